"""`msdetr predict` with exported files: the same detections as with the checkpoint."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from torch import Tensor

from msdetr.export.formats import SUFFIXES
from msdetr.export.openvino_process import OpenVinoProcess
from msdetr.export.openvino_program import OpenVinoProgram

Msdetr = Callable[..., Any]
Exported = Callable[..., Path]

# One size of input, given to the checkpoint by its recipe and to the file by its form.
SIDE = 160
SAME_SIZE = ("--set", f"data.eval_size={SIDE}", "--set", f"data.eval_max_size={SIDE}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, msdetr: Msdetr, run_dir: Path) -> Exported:
    """Export the finished run once per set of options."""
    made: dict[tuple[str, ...], Path] = {}

    def export(*options: str) -> Path:
        if options not in made:
            suffix = SUFFIXES[options[1] if "--format" in options[:1] else "onnx"]  # type: ignore[index]
            path = tmp_path_factory.mktemp("exported") / f"model{suffix}"
            command = ("export", "--ckpt", run_dir, "--output", path, "--verify", "0")
            done = msdetr(*command, *options)
            assert done.code == 0, done.err
            made[options] = path
        return made[options]

    return export


@pytest.fixture
def predict(msdetr: Msdetr) -> Callable[..., Any]:
    """Run the command; the result as JSON values."""

    def run(checkpoint: Path, *arguments: str | Path) -> Any:
        done = msdetr("predict", "--ckpt", checkpoint, *arguments, "--threshold", "0", "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


@pytest.fixture(scope="module")
def photos(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several shapes, some alike, some that need padding."""
    folder = tmp_path_factory.mktemp("photos")
    files = sorted((shapes_root / "val2017").iterdir())[:3]
    for number, size in enumerate([(128, 96), (96, 128), (128, 96), (400, 30), (1, 1)]):
        with Image.open(files[number % len(files)]) as image:
            image.convert("RGB").resize(size).save(folder / f"{number}.png")
    return folder


def assert_same_detections(found: Any, expected: Any) -> None:
    """Compare two reports; near-tied detections may swap, since each side rounds by itself."""
    assert [entry["file_name"] for entry in found["images"]] == [
        entry["file_name"] for entry in expected["images"]
    ]
    for one, other in zip(found["images"], expected["images"], strict=True):
        assert (one["width"], one["height"]) == (other["width"], other["height"])
        rows, wanted = one["detections"], other["detections"]
        assert len(rows) == len(wanted) > 0
        scores = [[entry["score"] for entry in each] for each in (rows, wanted)]
        np.testing.assert_allclose(*scores, rtol=0, atol=1e-4)
        boxes, others = (np.array([entry["bbox"] for entry in each]) for each in (rows, wanted))
        near = np.abs(boxes - others).max(axis=1) < 0.05
        keys = ("category_id", "class_name")
        same = [all(a[key] == b[key] for key in keys) for a, b in zip(rows, wanted, strict=True)]
        assert (near & np.array(same)).mean() > 0.9


@pytest.mark.parametrize("name", ["onnx", "torch-export", "openvino"])
def test_file_for_any_size_detects_as_the_checkpoint_does(
    name: str, exported: Exported, predict: Callable[..., Any], run_dir: Path, photos: Path
) -> None:
    found = predict(exported("--format", name), photos)
    assert_same_detections(found, predict(run_dir, photos))
    assert [len(entry["detections"]) for entry in found["images"]] == [100] * 5


def test_what_is_done_around_the_file(
    exported: Exported, predict: Callable[..., Any], run_dir: Path, photos: Path
) -> None:
    counts = []
    for option in ("nms_threshold=0.01", "detections_per_image=7", "batch_size=1"):
        change = ("--set", f"evaluation.{option}")
        found = predict(exported("--format", "onnx"), photos, *change)
        assert_same_detections(found, predict(run_dir, photos, *change))
        counts.append(sum(len(entry["detections"]) for entry in found["images"]))
    suppressed, few, alone = counts
    assert (few, alone) == (7 * 5, 100 * 5)
    assert suppressed < alone


@pytest.mark.parametrize(
    "options",
    [
        ("--format", "onnx", "--batch", "2"),
        ("--format", "torch-export", "--raw"),
        ("--format", "openvino"),
    ],
    ids=" ".join,
)
def test_file_of_one_size_detects_as_the_checkpoint_does(
    options: tuple[str, ...],
    *,
    exported: Exported,
    predict: Callable[..., Any],
    run_dir: Path,
    shapes_root: Path,
    tmp_path: Path,
) -> None:
    # Three images for a batch of two: the last batch is filled, and what fills it is not reported.
    for number, photo in enumerate(sorted((shapes_root / "val2017").iterdir())[:3]):
        with Image.open(photo) as image:
            image.convert("RGB").resize((200, 200)).save(tmp_path / f"{number}.png")
    file = exported(*options, "--static", f"{SIDE}x{SIDE}")
    assert_same_detections(predict(file, tmp_path), predict(run_dir, tmp_path, *SAME_SIZE))


@pytest.mark.dataset
def test_photographs(
    exported: Exported, predict: Callable[..., Any], run_dir: Path, data_dir: Path
) -> None:
    photos = sorted((data_dir / "coco-tiny").rglob("*.jpg"))[:4]
    assert len(photos) == 4
    file = exported("--format", "onnx")
    assert_same_detections(predict(file, *photos), predict(run_dir, *photos))


def test_results_and_drawings(
    exported: Exported, predict: Callable[..., Any], run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    file = exported("--format", "onnx")
    report = predict(file, photos, "--output", tmp_path / "file")
    predict(run_dir, photos, "--output", tmp_path / "model")
    files = [
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*"))
        for name in ("file", "model")
    ]
    assert files[0] == files[1]
    listed = [json.loads((tmp_path / n / "images.json").read_text()) for n in ("file", "model")]
    assert listed[0] == listed[1]
    results = json.loads((tmp_path / "file/predictions.json").read_text())
    assert len(results) == sum(len(entry["detections"]) for entry in report["images"])


def test_interrupted_prediction_leaves_nothing_behind(
    exported: Exported,
    msdetr: Msdetr,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes: list[OpenVinoProcess] = []

    def stop(self: OpenVinoProgram, feeds: object) -> list[Tensor]:
        del feeds
        processes.append(self.process)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    monkeypatch.setattr(OpenVinoProgram, "run", stop)
    file = exported("--format", "openvino")
    done = msdetr("predict", "--ckpt", file, photos, "--output", tmp_path / "out")
    assert (done.code, done.out) == (143, "")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (process,) = processes
    process.close()
    assert not Path(f"/proc/{process.pid}").exists()


def test_lost_process_is_one_line(
    exported: Exported, msdetr: Msdetr, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OpenVinoProgram.run

    def lose(self: OpenVinoProgram, feeds: Any) -> list[Tensor]:
        os.kill(self.process.pid, signal.SIGSEGV)
        return run(self, feeds)

    monkeypatch.setattr(OpenVinoProgram, "run", lose)
    done = msdetr("predict", "--ckpt", exported("--format", "openvino"), photos)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        "error: model.xml: the process that runs OpenVINO was ended by SIGSEGV"
    )


class TestRefused:
    @pytest.fixture
    def photo(self, photos: Path) -> Path:
        return photos / "0.png"

    @pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".xml"])
    def test_no_such_file(
        self, suffix: str, photo: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        file = tmp_path / f"gone{suffix}"
        assert refused_line("predict", "--ckpt", file, photo) == f"error: {file}: no such file"

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("onnx", "cannot be loaded by ONNX Runtime: "),
            ("torch-export", "cannot be read as a .pt2 file: "),
        ],
    )
    def test_damaged_file(
        self,
        name: str,
        reason: str,
        *,
        exported: Exported,
        photo: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        whole = exported("--format", name)
        file = tmp_path / f"cut{whole.suffix}"
        file.write_bytes(whole.read_bytes()[:-500])
        line = refused_line("predict", "--ckpt", file, photo)
        assert line.startswith(f"error: {file}: {reason}")

    def test_openvino_file_that_is_damaged_or_alone(
        self,
        exported: Exported,
        photo: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        whole = exported("--format", "openvino").read_bytes()
        file = tmp_path / "cut.xml"
        file.write_bytes(whole[:-500])
        line = refused_line("predict", "--ckpt", file, photo)
        assert line == f"error: {file}: its weights, cut.bin beside it, are missing"
        (tmp_path / "cut.bin").write_bytes(b"")
        line = refused_line("predict", "--ckpt", file, photo)
        assert line.startswith(f"error: {file}: cannot be loaded by OpenVINO: ")

    def test_file_of_somebody_else(
        self, photo: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [helper.make_node("Identity", ["data"], ["out"])],
            "other",
            [helper.make_tensor_value_info("data", kind, [1, 3])],
            [helper.make_tensor_value_info("out", kind, [1, 3])],
        )
        opset = [helper.make_opsetid("", 18)]
        file = tmp_path / "other.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), file)
        assert refused_line("predict", "--ckpt", file, photo) == (
            f"error: {file}: was not written by `msdetr export`: it has no metadata of its "
            "classes and inputs"
        )

    def test_missing_runtime(
        self,
        photo: Path,
        exported: Exported,
        refused_line: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        file = exported("--format", "onnx")
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        line = refused_line("predict", "--ckpt", file, photo)
        assert line == f"error: {file}: needs onnxruntime: pip install 'msdetr[export]'"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--recipe", "ddetr_300q"), "--recipe: is for published .pth files; {file} has its "
             "own"),
            (("--set", "data.eval_size=96"), "--set: data.eval_size: is fixed in an exported "
             "file; can be changed: data.max_image_pixels, evaluation.batch_size, "
             "evaluation.detections_per_image, evaluation.nms_threshold"),
            (("--set", "evaluation.detections_per_image=101"), "--set: "
             "evaluation.detections_per_image: must be at most 100, the file's, got 101"),
        ],
        ids=["recipe", "size", "detections"],
    )  # fmt: skip
    def test_option(
        self,
        options: tuple[str, ...],
        message: str,
        photo: Path,
        exported: Exported,
        refused_line: Callable[..., str],
    ) -> None:
        file = exported("--format", "onnx")
        line = refused_line("predict", "--ckpt", file, photo, *options)
        assert line == f"error: {message.format(file=file)}"
