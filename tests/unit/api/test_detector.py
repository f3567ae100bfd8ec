from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msdetr import Detector
from msdetr.api.checkpoints.loaded import LoadedCheckpoint, checkpoint_info
from msdetr.build import build_model
from msdetr.data.labels import LabelSpace
from msdetr.errors import CheckpointError, DataError, UsageError
from msdetr.export import ExportSettings
from msdetr.model.deformable_attention import DeformableAttention
from msdetr.recipe import load_recipe

SMALLER = {"model.num_queries": 10, "evaluation.detections_per_image": 8}
SPACE = LabelSpace((3, 5), ("cat", "dog"), 2)


@pytest.fixture(scope="module")
def detector(tiny_fields: Callable[..., list[str]]) -> Detector:
    recipe = load_recipe("shapes_tiny", tiny_fields(SMALLER))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(recipe.model, SPACE.num_classes)
    # So that scores of different images differ.
    torch.nn.init.normal_(model.decoder.class_heads[-1].weight, std=0.3)
    info = checkpoint_info(recipe, SPACE)
    return Detector(LoadedCheckpoint(Path("none"), model.eval(), recipe, SPACE, info))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(60, 80), (80, 60), (60, 80), (90, 90), (80, 60), (60, 80), (1, 1)]
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def test_mixed_shapes_and_any_batch_size(detector: Detector, images: list[Image.Image]) -> None:
    single = [detector.predict(image, threshold=0.0)[0] for image in images]
    assert len({float(entry.scores[0]) for entry in single}) == len(images)
    for batch_size in (1, 2, 5, None):
        found = detector.predict(images, threshold=0.0, batch_size=batch_size)
        assert [entry.image_hw for entry in found] == [image.size[::-1] for image in images]
        for entry, alone in zip(found, single, strict=True):
            torch.testing.assert_close(entry.scores, alone.scores, atol=1e-5, rtol=0)
            torch.testing.assert_close(entry.boxes_xyxy_px, alone.boxes_xyxy_px, atol=1e-3, rtol=0)


def test_kinds_of_inputs_in_any_mixture(
    detector: Detector, images: list[Image.Image], tmp_path: Path
) -> None:
    image = images[0]
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).movedim(-1, 0)
    mixture = [tmp_path / "a.png", str(tmp_path / "a.png"), image, array, tensor, tensor / 255]
    found = detector.predict(mixture, threshold=0.0)
    for value, entry in zip(mixture, found, strict=True):
        torch.testing.assert_close(entry.boxes_xyxy_px, found[2].boxes_xyxy_px)
        (alone,) = detector.predict(value, threshold=0.0)
        assert len(alone) == 8
    assert detector.predict((value for value in mixture[:1]), threshold=0.0)[0].scores.shape == (8,)
    assert detector.predict([]) == []


def test_names_ids_and_threshold(detector: Detector, images: list[Image.Image]) -> None:
    (found,) = detector.predict(images[0], threshold=0.0)
    assert set(found.class_names) <= {"cat", "dog"} == set(detector.class_names)
    ids = {"cat": 3, "dog": 5}
    assert found.category_ids == tuple(ids[name] for name in found.class_names)
    assert found.class_names == tuple(detector.class_names[i] for i in found.labels.tolist())
    middle = float(found.scores[3])
    (kept,) = detector.predict(images[0], threshold=middle)
    assert torch.equal(kept.scores, found.scores[found.scores >= middle])


def test_saved_and_loaded(detector: Detector, images: list[Image.Image], tmp_path: Path) -> None:
    detector.save(tmp_path / "saved")
    loaded = Detector.from_checkpoint(tmp_path / "saved", device="cpu")
    (first,), (second,) = (d.predict(images[0], threshold=0.0) for d in (detector, loaded))
    assert torch.equal(first.boxes_xyxy_px, second.boxes_xyxy_px)
    assert first.category_ids == second.category_ids
    assert loaded.recipe == detector.recipe
    changed = Detector.from_checkpoint(
        str(tmp_path / "saved"), overrides=["evaluation.detections_per_image=3"], device="cpu"
    )
    assert len(changed.predict(images[0], threshold=0.0)[0]) == 3


def test_saving_overwrites_checkpoints_only_and_only_by_force(
    detector: Detector, tmp_path: Path
) -> None:
    detector.save(tmp_path / "saved")
    with pytest.raises(UsageError, match="exists already"):
        detector.save(tmp_path / "saved")
    detector.save(tmp_path / "saved", force=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="is no checkpoint"):
        detector.save(tmp_path / "mine", force=True)


def test_unreadable_files_are_raised_or_reported(
    detector: Detector, images: list[Image.Image], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(DataError, match=r"bad\.png: cannot be read as an image"):
        detector.predict([images[0], bad])
    told: list[tuple[int, str]] = []
    found = list(
        detector.stream(
            [images[0], bad, images[1]],
            on_unreadable=lambda position, error: told.append((position, error.source)),
        )
    )
    assert [entry is None for entry in found] == [False, True, False]
    assert told == [(1, str(bad))]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": -0.1}, "threshold"),
        ({"batch_size": 0}, "1"),
    ],
)
def test_options_out_of_range(
    options: dict[str, float], part: str, detector: Detector, images: list[Image.Image]
) -> None:
    with pytest.raises(UsageError, match=part):
        detector.predict(images, **options)  # type: ignore[arg-type]


def test_nothing_random_is_drawn(detector: Detector, images: list[Image.Image]) -> None:
    state = torch.get_rng_state()
    detector.predict(images)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    # Tracing for inputs of any size takes longest: once is enough here.
    [("model.onnx", ExportSettings(static_hw=(64, 96))), ("model.pt2", None)],
    ids=["onnx", "pt2"],
)
def test_exported_file_is_the_model(
    name: str,
    settings: ExportSettings | None,
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MSDETR_CACHE", str(tmp_path / "cache"))
    backends = [m.backend for m in detector.model.modules() if isinstance(m, DeformableAttention)]
    report = detector.export(tmp_path / name, settings, verified_images=2)
    assert (report.path, report.settings.format) == (
        tmp_path / name,
        "onnx" if name.endswith("onnx") else "torch-export",
    )
    assert report.size_bytes == (tmp_path / name).stat().st_size
    found = report.verification
    assert found is not None
    assert (found.passed, found.num_images) == (True, 2)
    assert detector.device == torch.device("cpu")
    now = [m.backend for m in detector.model.modules() if isinstance(m, DeformableAttention)]
    assert now == backends
    with pytest.raises(UsageError, match="exists; add `force=True`"):
        detector.export(tmp_path / name)


def test_form_of_an_exported_file(detector: Detector, tmp_path: Path) -> None:
    settings = ExportSettings(format="torch-export", static_hw=(64, 96), raw=True)
    report = detector.export(tmp_path / "raw.pt2", settings, verified_images=0)
    assert report.verification is None
    assert report.notices == (
        "not verified; `verified_images=N` compares the file with the model on N images",
    )
    logits, boxes = torch.export.load(tmp_path / "raw.pt2").module()(torch.zeros(1, 3, 64, 96))
    assert (logits.shape, boxes.shape) == ((1, 10, 2), (1, 10, 4))
    with pytest.raises(UsageError, match=r"expected a name ending in \.pt2"):
        detector.export(tmp_path / "raw.onnx", settings)


def test_devices(detector: Detector) -> None:
    assert detector.to("cpu") is detector
    assert detector.device == torch.device("cpu")


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Detector.from_checkpoint(tmp_path / "gone")
