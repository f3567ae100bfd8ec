"""Match traces on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from msdetr.errors import TraceError
from msdetr.files import SUMS_FILE, list_sums
from msdetr.inspection.trace import MatchTrace, TracedImage

Scene = Any
FILES = ("trace.json", "trace.safetensors")


def tensors_of(image: TracedImage) -> Iterator[tuple[str, torch.Tensor]]:
    for part in (image, image.one_to_one, image.one_to_many):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, torch.Tensor):
                yield field.name, value


def write_sums(folder: Path) -> None:
    (folder / SUMS_FILE).write_bytes(list_sums({n: (folder / n).read_bytes() for n in FILES}))


@pytest.fixture
def saved(scene: Scene, tmp_path: Path) -> Path:
    scene().trace.save(tmp_path / "trace")
    return tmp_path / "trace"


@pytest.mark.parametrize("has_one_to_many", [True, False])
def test_everything_returns_bit_for_bit(
    scene: Scene, tmp_path: Path, has_one_to_many: bool
) -> None:
    trace = scene(has_one_to_many=has_one_to_many).trace
    trace.save(tmp_path / "trace")
    loaded = MatchTrace.load(tmp_path / "trace" / "trace.json")
    assert loaded.info == trace.info
    for image, again in zip(trace.images, loaded.images, strict=True):
        for (name, first), (_, second) in zip(tensors_of(image), tensors_of(again), strict=True):
            assert first.dtype == second.dtype, name
            assert torch.equal(first, second), name
        plain = ("image_id", "file_name", "path", "original_hw")
        assert [getattr(image, k) for k in plain] == [getattr(again, k) for k in plain]


def test_predictions_of_a_baseline_are_stored_once(scene: Scene, tmp_path: Path) -> None:
    sizes = []
    for has_one_to_many in (True, False):
        scene(has_one_to_many=has_one_to_many).trace.save(tmp_path / f"{has_one_to_many}")
        sizes.append((tmp_path / f"{has_one_to_many}" / "trace.safetensors").stat().st_size)
    assert sizes[1] < 0.75 * sizes[0]


def test_older_trace_is_replaced_but_nothing_else(scene: Scene, saved: Path) -> None:
    scene(counts=(1,)).trace.save(saved)
    assert len(MatchTrace.load(saved).images) == 1
    other = saved.parent / "notes"
    other.mkdir()
    with pytest.raises(TraceError, match="not a match trace"):
        scene().trace.save(other)
    assert list(other.iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_trace_of_version_1_has_the_rule_of_ms_detr(scene: Scene, saved: Path) -> None:
    path = saved / "trace.json"
    document = json.loads(path.read_text())
    assert document["one_to_many"].pop("type") == "ms_detr"
    path.write_text(json.dumps({**document, "format_version": 1}))
    write_sums(saved)
    assert MatchTrace.load(saved).info.one_to_many == scene().trace.info.one_to_many


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damage_is_refused(saved: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(saved / name)
    with pytest.raises(TraceError) as caught:
        MatchTrace.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format_version": 3}, "format version 3.*reads up to 2"),
        ({"format_version": "x"}, "no valid format_version"),
        ({"num_queries": 41}, r"boxes_cxcywh|hungarian_cost|\bu is"),
        ({"one_to_many": {"k": 3}}, "is damaged"),
        ({"category_names": ["one"]}, "labels holds [12], which does not exist"),
        ({"images": [{}]}, "is damaged"),
    ],
)
def test_documents_that_do_not_fit_are_refused(
    saved: Path, change: dict[str, Any], told: str
) -> None:
    path = saved / "trace.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    write_sums(saved)
    with pytest.raises(TraceError, match=told):
        MatchTrace.load(saved)


@pytest.mark.parametrize("name", ["one_to_one_queries", "one_to_many_queries"])
def test_queries_that_do_not_exist_are_refused(saved: Path, name: str) -> None:
    tensors = load_file(saved / "trace.safetensors")
    tensors[f"0.{name}"].fill_(999)
    save_file(tensors, saved / "trace.safetensors")
    write_sums(saved)
    with pytest.raises(TraceError, match=f"{name} holds 999, which does not exist"):
        MatchTrace.load(saved)


def test_missing_tensor_is_refused(saved: Path) -> None:
    tensors = load_file(saved / "trace.safetensors")
    del tensors["0.u"]
    save_file(tensors, saved / "trace.safetensors")
    write_sums(saved)
    with pytest.raises(TraceError, match=r"0\.u"):
        MatchTrace.load(saved)


@pytest.mark.parametrize("name", ["", "nothing", "trace.json"])
def test_what_is_no_trace_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match="is no match trace"):
        MatchTrace.load(tmp_path / name)


def test_images_can_be_chosen(scene: Scene) -> None:
    trace = scene().trace
    assert [image.image_id for image in trace.select([30, 10, 30]).images] == [10, 30]
    assert [image.image_id for image in trace.limit(2).images] == [10, 20]
    with pytest.raises(TraceError, match="40: not among the 3 images"):
        trace.select([10, 40])


@pytest.mark.parametrize(
    ("area", "size_bin"),
    [(0, "small"), (1023, "small"), (1024, "medium"), (9216, "medium"), (9217, "large")],
)
def test_size_bins_are_those_of_coco(scene: Scene, area: float, size_bin: str) -> None:
    image = scene(counts=(1,)).trace.images[0]
    image.areas_px[0] = area
    assert image.size_bins == [size_bin]
