"""`msdetr predict` on files of every kind."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from pycocotools.coco import COCO
from safetensors.torch import load_file

from msdetr.api.detection.image_detections import ImageDetections
from msdetr.engine.checkpoint import read_info, save_checkpoint

Predict = Callable[..., Any]


@pytest.fixture
def predict(msdetr: Callable[..., Any], run_dir: Path) -> Predict:
    """Run the command on the CPU; the result as JSON values."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        done = msdetr("predict", "--ckpt", run_dir, *arguments, "--device", "cpu", "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    return run


@pytest.fixture
def photo(shapes_root: Path) -> Path:
    return sorted((shapes_root / "val2017").iterdir())[0]


def boxes(report: Any, index: int = 0) -> list[list[float]]:
    return [[*entry["bbox"], entry["score"]] for entry in report["images"][index]["detections"]]


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


class TestSameAsEval:
    @pytest.fixture(params=[(), ("--set", "evaluation.nms_threshold=0.3")], ids=["plain", "nms"])
    def options(self, request: pytest.FixtureRequest) -> tuple[str, ...]:
        chosen: tuple[str, ...] = request.param
        return chosen

    @pytest.fixture
    def evaluated(
        self, msdetr: Callable[..., Any], run_dir: Path, tmp_path: Path, options: tuple[str, ...]
    ) -> dict[int, list[list[float]]]:
        output = tmp_path / "evaluation"
        common = ("--ckpt", run_dir, "--device", "cpu", "--set", "evaluation.batch_size=1")
        assert msdetr("eval", *common, *options, "--output", output).code == 0
        results: dict[int, list[list[float]]] = {}
        for entry in json.loads((output / "predictions.json").read_text()):
            row = [*entry["bbox"], entry["score"], entry["category_id"]]
            # What the suppression of duplicates has put out is no detection.
            results.setdefault(entry["image_id"], []).extend([row] if entry["score"] > 0 else [])
        return results

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_boxes(
        self,
        batch_size: int,
        *,
        evaluated: dict[int, list[list[float]]],
        options: tuple[str, ...],
        predict: Predict,
        shapes_root: Path,
    ) -> None:
        size = ("--set", f"evaluation.batch_size={batch_size}")
        report = predict(shapes_root / "val2017", "--threshold", "0", *options, *size)
        found = {
            int(Path(image["file_name"]).stem): [
                [*entry["bbox"], entry["score"], entry["category_id"]]
                for entry in image["detections"]
            ]
            for image in report["images"]
        }
        assert found.keys() == evaluated.keys()
        assert all(len(rows) >= 5 for rows in found.values())
        if batch_size == 1:
            assert found == evaluated
        for image_id, rows in found.items():
            # Sums of another batch size round differently; close scores may swap.
            np.testing.assert_allclose(
                [row[4] for row in rows], [row[4] for row in evaluated[image_id]], atol=1e-5
            )


class TestKinds:
    def same(self, predict: Predict, first: Path, second: Path) -> None:
        report = predict(first, second, "--threshold", "0")
        assert len(boxes(report)) == 100
        np.testing.assert_allclose(boxes(report, 0), boxes(report, 1), atol=1e-3)

    def test_grayscale_and_16_bit(self, predict: Predict, photo: Path, tmp_path: Path) -> None:
        grey = np.asarray(Image.open(photo).convert("L"))
        eight = save(tmp_path / "8.png", grey)
        for suffix in ("png", "tif"):
            sixteen = save(tmp_path / f"16.{suffix}", grey.astype(np.uint16) * 257)
            assert Image.open(sixteen).mode == "I;16"
            self.same(predict, eight, sixteen)
        colour = save(tmp_path / "rgb.png", np.repeat(grey[..., None], 3, axis=2))
        self.same(predict, eight, colour)

    def test_palette(self, predict: Predict, photo: Path, tmp_path: Path) -> None:
        palette = Image.open(photo).convert("RGB").quantize(64)
        palette.save(tmp_path / "palette.png")
        palette.convert("RGB").save(tmp_path / "rgb.png")
        assert Image.open(tmp_path / "palette.png").mode == "P"
        self.same(predict, tmp_path / "rgb.png", tmp_path / "palette.png")

    def test_transparency_is_ignored(self, predict: Predict, photo: Path, tmp_path: Path) -> None:
        image = Image.open(photo).convert("RGB")
        image.putalpha(7)
        image.save(tmp_path / "rgba.png")
        self.same(predict, photo, tmp_path / "rgba.png")

    def test_orientation_is_honoured(self, predict: Predict, photo: Path, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # shown after a turn by 90 degrees clockwise
        image = Image.open(photo).convert("RGB")
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
        self.same(predict, photo, tmp_path / "turned.png")
        report = predict(tmp_path / "turned.png")
        assert (report["images"][0]["width"], report["images"][0]["height"]) == image.size

    @pytest.mark.parametrize("size", [(1, 1), (20_000, 30), (3, 700)])
    def test_odd_sizes(self, size: tuple[int, int], predict: Predict, tmp_path: Path) -> None:
        width, height = size
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = save(tmp_path / "odd.png", noise)
        report = predict(file, "--threshold", "0", "--output", tmp_path / "out")
        assert (report["images"][0]["width"], report["images"][0]["height"]) == size
        assert len(boxes(report)) == 100
        assert all(math.isfinite(value) for row in boxes(report) for value in row)
        with Image.open(tmp_path / "out/drawings/odd.jpg") as picture:
            ratio = picture.width / width
            assert max(picture.size) <= 8192
            assert picture.height == max(1, round(height * ratio))


class TestInputs:
    def test_folders_patterns_and_files_each_once(
        self, predict: Predict, photo: Path, tmp_path: Path
    ) -> None:
        for name in ("a/1.PNG", "a/deep/2.png", "b/1.png", "b/3.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(photo.read_bytes())
        (tmp_path / "a/notes.txt").write_text("no image")
        given = (tmp_path / "b/3.png", tmp_path / "a", tmp_path / "b" / "*.png")
        report = predict(*given, "--output", tmp_path / "out")
        names = [Path(image["file_name"]).relative_to(tmp_path) for image in report["images"]]
        assert [str(name) for name in names] == ["b/3.png", "a/1.PNG", "a/deep/2.png", "b/1.png"]
        assert [image["image_id"] for image in report["images"]] == [1, 2, 3, 4]
        drawings = {path.name for path in (tmp_path / "out/drawings").iterdir()}
        assert drawings == {"3.jpg", "1.jpg", "2.jpg", "1_2.jpg"}

    def test_file_with_any_suffix(self, predict: Predict, photo: Path, tmp_path: Path) -> None:
        (tmp_path / "picture.dat").write_bytes(photo.read_bytes())
        assert len(predict(tmp_path / "picture.dat")["images"]) == 1

    def test_nothing_there(
        self, run_dir: Path, tmp_path: Path, refused: Callable[..., list[str]]
    ) -> None:
        (tmp_path / "empty").mkdir()
        names = ("gone.png", "empty", "*.png")
        lines = refused("predict", "--ckpt", run_dir, *(tmp_path / name for name in names))
        assert lines[0] == "error: input: 3 problems"
        reasons = ("no such file or folder", "is a folder without images", "matches no file")
        for line, name, reason in zip(lines[1:], names, reasons, strict=True):
            assert line.split(maxsplit=1) == [str(tmp_path / name), reason]

    def test_pictures_that_cannot_be_read_are_named(
        self, msdetr: Callable[..., Any], run_dir: Path, photo: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "a.png").write_bytes(photo.read_bytes())
        (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        (tmp_path / "notes.txt").write_text("no picture")
        save(tmp_path / "depth.tif", np.asarray([[0.0, 3.5]], dtype=np.float32))
        limit = ("--max-pixels", "200000")
        Image.new("1", (500, 500)).save(tmp_path / "huge.png")
        done = msdetr("predict", "--ckpt", run_dir, tmp_path, "--device", "cpu", *limit)
        assert done.code == 1
        *skipped, last = done.err.splitlines()
        assert last == "error: 3 of 4 files could not be read"
        reasons = {
            "depth.tif": "its gray values, 0 to 3.5, do not tell which value is white",
            "huge.png": "500 x 500 pixels are more than data.max_image_pixels, 200000",
            "phone.HEIC": "HEIC; pip install pillow-heif",
        }
        for line, (name, reason) in zip(skipped, reasons.items(), strict=True):
            assert line.startswith(f"skipped {tmp_path / name}: cannot be read as an image (")
            assert reason in line

    def test_unreadable_files_are_skipped_and_counted(
        self, msdetr: Callable[..., Any], run_dir: Path, photo: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "text.png").write_text("no image")
        (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:-200])
        (tmp_path / "empty.png").touch()
        (tmp_path / "z.png").write_bytes(photo.read_bytes())
        options = ("--output", tmp_path / "out", "--json", "--threshold", "0")
        done = msdetr("predict", "--ckpt", run_dir, tmp_path, *options)
        assert done.code == 1
        lines = done.err.splitlines()
        assert lines[-1] == "error: 3 of 4 files could not be read"
        for name in ("text.png", "cut.png", "empty.png"):
            expected = f"skipped {tmp_path / name}: cannot be read as an image ("
            assert sum(line.startswith(expected) for line in lines) == 1
        report = json.loads(done.out)
        assert [entry["file_name"] for entry in report["unreadable"]] == [
            str(tmp_path / name) for name in ("cut.png", "empty.png", "text.png")
        ]
        (image,) = report["images"]
        assert (image["image_id"], Path(image["file_name"]).name) == (4, "z.png")
        results = json.loads((tmp_path / "out/predictions.json").read_text())
        assert {entry["image_id"] for entry in results} == {4}
        assert [path.name for path in (tmp_path / "out/drawings").iterdir()] == ["z.jpg"]


class TestOutput:
    def test_results_are_cocos(self, predict: Predict, shapes_root: Path, tmp_path: Path) -> None:
        report = predict(shapes_root / "val2017", "--output", tmp_path / "out", "--threshold", "0")
        listed = json.loads((tmp_path / "out/images.json").read_text())
        truth = COCO()
        truth.dataset = {**listed, "annotations": []}
        truth.createIndex()
        found = truth.loadRes(str(tmp_path / "out/predictions.json"))
        assert len(found.getAnnIds()) == 4 * 100
        for image in report["images"]:
            annotations = found.loadAnns(found.getAnnIds(imgIds=[image["image_id"]]))
            for annotation, entry in zip(annotations, image["detections"], strict=True):
                assert annotation["bbox"] == entry["bbox"]
                (category,) = truth.loadCats([annotation["category_id"]])
                assert category["name"] == entry["class_name"]

    def test_drawing_shows_the_boxes(self, predict: Predict, photo: Path, tmp_path: Path) -> None:
        predict(photo, "--output", tmp_path / "all", "--threshold", "0")
        predict(photo, "--output", tmp_path / "none", "--threshold", "1")
        pictures = [
            np.asarray(Image.open(tmp_path / name / "drawings" / f"{photo.stem}.jpg")).astype(int)
            for name in ("all", "none")
        ]
        original = Image.open(photo).convert("RGB")
        scale = pictures[0].shape[1] / original.width
        plain = np.asarray(original.resize(pictures[1].shape[1::-1], Image.Resampling.BICUBIC))
        assert scale == int(scale)
        assert np.abs(pictures[1] - plain).mean() < 4
        assert np.abs(pictures[0] - plain).mean() > 4

    def test_threshold(self, predict: Predict, photo: Path) -> None:
        scores = [row[4] for row in boxes(predict(photo, "--threshold", "0"))]
        middle = scores[10]
        kept = [row[4] for row in boxes(predict(photo, "--threshold", repr(middle)))]
        assert kept == [score for score in scores if score >= middle]
        assert len(kept) < len(scores)

    def test_table(self, msdetr: Callable[..., Any], run_dir: Path, photo: Path) -> None:
        done = msdetr("predict", "--ckpt", run_dir, photo, "--threshold", "0")
        assert (done.code, done.err) == (0, "")
        assert done.out.split()[:7] == ["file", "class", "score", "x0", "y0", "x1", "y1"]
        assert len(done.out.splitlines()) >= 100
        empty = msdetr("predict", "--ckpt", run_dir, photo, "--threshold", "1")
        assert " - " in empty.out

    @pytest.mark.parametrize("name", ["predictions.json", "images.json", "drawings"])
    def test_nothing_is_overwritten(
        self,
        name: str,
        run_dir: Path,
        photo: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        (tmp_path / name).write_text("mine")
        command = ("predict", "--ckpt", run_dir, photo, "--output", tmp_path)
        assert refused_line(*command) == (
            f"error: {tmp_path}: holds {name} already; give another --output, or --force"
        )

    @pytest.mark.parametrize("force", [(), ("--force",)], ids=["new", "force"])
    def test_an_interrupted_prediction_leaves_what_was_there(
        self,
        force: tuple[str, ...],
        *,
        predict: Predict,
        msdetr: Callable[..., Any],
        run_dir: Path,
        shapes_root: Path,
        tmp_path: Path,
        content_of: Callable[[Path], dict[str, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        output, images = tmp_path / "a" / "out", shapes_root / "val2017"
        if force:
            predict(next(images.iterdir()), "--output", output)
        before, drawn = content_of(tmp_path), ImageDetections.draw

        def stop_at_the_second(self: ImageDetections, *arguments: Any) -> Any:
            if calls:
                signal.raise_signal(signal.SIGTERM)
            calls.append(1)
            return drawn(self, *arguments)

        calls: list[int] = []
        command = ("predict", "--ckpt", run_dir, images, "--output", output, "--device", "cpu")
        with monkeypatch.context() as patch:
            patch.setattr(ImageDetections, "draw", stop_at_the_second)
            assert msdetr(*command, *force).code == 143
        assert len(calls) == 1
        assert content_of(tmp_path) == before
        assert (tmp_path / "a").exists() == bool(force)
        assert msdetr(*command, *force).code == 0
        assert len(list((output / "drawings").iterdir())) == 4

    @pytest.mark.parametrize("name", ["drawings", "images.json"])
    def test_links_are_not_written_through(
        self,
        name: str,
        run_dir: Path,
        photo: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
        command = ("predict", "--ckpt", run_dir, photo, "--output", tmp_path / "out", "--force")
        assert f"out/{name}: is no result of a prediction" in refused_line(*command)

    @pytest.mark.parametrize("name", ["predictions.json", "drawings"])
    def test_force_replaces_nothing_of_another_kind(
        self,
        name: str,
        run_dir: Path,
        photo: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        path = tmp_path / name
        path.write_text("mine") if name == "drawings" else path.mkdir()
        line = refused_line("predict", "--ckpt", run_dir, photo, "--output", tmp_path, "--force")
        assert line == f"error: {path}: is no result of a prediction; give another --output"

    def test_force_replaces_an_earlier_prediction(
        self, predict: Predict, shapes_root: Path, photo: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        predict(shapes_root / "val2017", "--output", output)
        assert len(list((output / "drawings").iterdir())) == 4
        (output / "drawings/mine.jpg").write_text("not drawn by the command")
        (output / "notes.txt").write_text("mine")
        report = predict(photo, "--output", output, "--force", "--threshold", "0")
        drawings = {path.stem for path in (output / "drawings").iterdir()}
        assert drawings == {"mine", photo.stem}
        assert (output / "notes.txt").read_text() == "mine"
        (listed,) = json.loads((output / "images.json").read_text())["images"]
        assert (listed["file_name"], listed["drawing"]) == (
            str(photo),
            f"drawings/{photo.stem}.jpg",
        )
        results = json.loads((output / "predictions.json").read_text())
        assert len(results) == len(boxes(report)) == 100

    def test_predicting_again_beside_the_photos_finds_the_same(
        self, predict: Predict, shapes_root: Path, tmp_path: Path
    ) -> None:
        photos = shutil.copytree(shapes_root / "val2017", tmp_path / "photos")
        output = photos / "found"
        first = predict(photos, "--output", output, "--threshold", "0")
        for options in ((), ("--output", output, "--force"), ("--output", tmp_path / "other")):
            assert predict(photos, *options, "--threshold", "0") == first
        assert len(list((output / "drawings").iterdir())) == len(first["images"]) == 4

    def test_a_file_is_no_folder(
        self, run_dir: Path, photo: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        command = ("predict", "--ckpt", run_dir, photo, "--output")
        assert f"{file}: is a file" in refused_line(*command, file)
        assert f"{file / 'out'}" in refused_line(*command, file / "out")


def test_threshold_out_of_range(msdetr: Callable[..., Any], run_dir: Path, photo: Path) -> None:
    done = msdetr("predict", "--ckpt", run_dir, photo, "--threshold", "1.5")
    assert (done.code, done.out) == (2, "")
    assert "--threshold" in done.err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(
    value: float,
    msdetr: Callable[..., Any],
    run_dir: Path,
    photo: Path,
    tmp_path: Path,
) -> None:
    weights = load_file(run_dir / "checkpoints/best/model.safetensors")
    info = read_info(run_dir / "checkpoints/best")
    broken = tmp_path / "broken"
    save_checkpoint(broken, info=info, model={k: v + value for k, v in weights.items()})
    for command in (("predict", photo, "--output", tmp_path / "out"), ("eval",)):
        done = msdetr(*command, "--ckpt", broken, "--device", "cpu")
        assert (done.code, done.out) == (1, "")
        (line,) = [each for each in done.err.splitlines() if each.startswith("error: ")]
        assert line.startswith("error: the detections are not finite: ")
        assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
