from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msdetr.data.coco_index import locate_split, read_coco
from msdetr.data.images import decode_image
from msdetr.data.shapes import dataset as shapes
from msdetr.data.shapes.scene import generate_scene
from msdetr.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.ensure(tmp_path_factory.mktemp("cache") / "shapes", 6, 4)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_reads_back_as_a_coco_data_set(folder: Path) -> None:
    for split, count in (("train", 6), ("val", 4)):
        located = locate_split(split, root=folder)
        index = read_coco(located.images_dir, located.annotations_file)
        assert len(index) == count
        assert index.num_without_area == index.num_crowd == 0
        assert [category.name for category in index.categories] == [
            "circle",
            "square",
            "triangle",
            "star",
            "cross",
            "ring",
            "crescent",
        ]
        for position in range(count):
            scene = generate_scene(split, position)
            height, width = index.image_hw[position].tolist()
            image = decode_image(index.path_of(position), (height, width))
            np.testing.assert_array_equal(np.asarray(image), scene.pixels)
            rows = index.targets_of(position)
            boxes = [placed.box_xywh_px for placed in scene.objects]
            corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
            assert index.boxes_xyxy_px[rows].tolist() == corners
            labels = [placed.outline.label + 1 for placed in scene.objects]
            assert index.category_ids[rows].tolist() == labels


def test_splits_share_no_image_and_no_id(folder: Path) -> None:
    ids: list[int] = []
    pixels: list[bytes] = []
    for split in ("train", "val"):
        located = locate_split(split, root=folder)
        index = read_coco(located.images_dir, located.annotations_file)
        ids.extend(index.image_ids.tolist())
        paths = (index.path_of(position) for position in range(len(index)))
        pixels.extend(Image.open(path).tobytes() for path in paths)
    assert len(set(ids)) == len(set(pixels)) == 10


def test_the_first_images_are_the_same_for_any_number(folder: Path, tmp_path: Path) -> None:
    fewer = contents(shapes.ensure(tmp_path / "fewer", 2, 1))
    more = contents(folder)
    images = [name for name in fewer if name.endswith(".png")]
    assert len(images) == 3
    assert all(fewer[name] == more[name] for name in images)


def test_a_second_call_leaves_the_folder_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    calls: list[tuple[int, int]] = []
    shapes.ensure(folder, 6, 4, lambda done, total: calls.append((done, total)))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert calls == []


def test_reports_progress_and_leaves_nothing_beside_the_folder(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    shapes.ensure(tmp_path / "set", 2, 1, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt(f"{done} of {total}")

    with pytest.raises(KeyboardInterrupt):
        shapes.ensure(tmp_path / "set", 2, 1, fail)
    assert list(tmp_path.iterdir()) == []


def test_another_process_may_finish_first(tmp_path: Path) -> None:
    target = tmp_path / "set"

    def overtake(done: int, total: int) -> None:
        if done == total:
            shapes.ensure(target, 2, 1)

    shapes.ensure(target, 2, 1, overtake)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((target / "train2017").iterdir())) == 2


def test_the_marker_tells_version_counts_and_hash(folder: Path) -> None:
    marker = json.loads((folder / shapes.MARKER_NAME).read_text())
    assert (marker["version"], marker["num_train"], marker["num_val"]) == (1, 6, 4)
    assert len(marker["sha256"]) == 64


def test_other_content_is_not_touched(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else"):
        shapes.ensure(tmp_path, 6, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match=r"holds shapes of .*'num_train': 6.* expected .* 7"):
        shapes.ensure(folder, 7, 4)


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        shapes.ensure(tmp_path / "file" / "set", 1, 1)


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSDETR_CACHE", str(tmp_path))
    assert shapes.default_folder(20, 10) == tmp_path / "shapes-v1-20-10"
    monkeypatch.delenv("MSDETR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert shapes.default_folder(20, 10).parent == tmp_path / "xdg" / "msdetr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert shapes.default_folder(20, 10).parent == tmp_path / "home" / ".cache" / "msdetr"
