"""`msdetr export`: files that compute what the model computes, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
import torch

from msdetr.api import export as exporting
from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.detector import Detector
from msdetr.engine.checkpoint import FORMAT_VERSION
from msdetr.export import DetectionProgram, openvino_file
from msdetr.export.formats import SUFFIXES
from msdetr.export.onnx_session import open_session
from msdetr.export.openvino_program import open_file
from msdetr.export.settings import weights_file
from msdetr.files import SUMS_FILE, list_sums
from msdetr.model.detections import select_detections
from msdetr.structures import ImageBatch

ROOT = Path(__file__).resolve().parents[2]
NO_PACKAGE = "import sys; sys.modules['msdetr'] = None\n"


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, msdetr: Callable[..., Any], run_dir: Path
) -> Callable[..., tuple[Path, Any]]:
    """Export the finished run once per set of options: the file and what was said."""
    made: dict[tuple[str, ...], tuple[Path, Any]] = {}

    def export(*options: str) -> tuple[Path, Any]:
        if options not in made:
            form = options[1] if "--format" in options[:1] else "onnx"
            path = tmp_path_factory.mktemp("export") / f"model{SUFFIXES[form]}"
            done = msdetr("export", "--ckpt", run_dir, "--output", path, *options)
            made[options] = path, done
        return made[options]

    return export


@pytest.fixture(scope="module")
def onnx_file(exported: Callable[..., tuple[Path, Any]]) -> Path:
    path, done = exported()
    assert done.code == 0, done.err
    return path


def images_of(sizes_hw: list[tuple[int, int]]) -> ImageBatch:
    """Random images, padded into one batch."""
    generator = torch.Generator().manual_seed(3)
    height, width = (max(side) for side in zip(*sizes_hw, strict=True))
    pixels = torch.zeros(len(sizes_hw), 3, height, width)
    padding_mask = torch.ones(len(sizes_hw), height, width, dtype=torch.bool)
    for index, (h, w) in enumerate(sizes_hw):
        pixels[index, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        padding_mask[index, :h, :w] = False
    return ImageBatch(pixels, padding_mask)


def weight_bytes(path: Path) -> int:
    """Size of the backbone's and the encoder's weights in a file."""
    entries = onnx.load(path).graph.initializer
    return sum(len(e.raw_data) for e in entries if re.match(r"(backbone|encoder|neck)\.", e.name))


def test_what_is_said_and_written(exported: Callable[..., tuple[Path, Any]]) -> None:
    path, done = exported()
    assert done.code == 0, done.err
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.onnx", "model.onnx.report.json"]
    assert f"{path}: " in done.out
    assert "onnx, gather, fp32, input of any size, with a padding mask" in done.out
    assert "verified on 4 images" in done.out
    report = json.loads(path.with_name(f"{path.name}.report.json").read_text())
    assert (report["file"], report["size_bytes"]) == (str(path), path.stat().st_size)
    checked = report["verification"]
    assert checked["passed"] is True
    assert checked["shared_cells"] >= 0.99
    assert 0 <= checked["largest_logit_difference"] < 1e-4
    assert 0 <= checked["largest_box_difference"] < 1e-4
    assert checked["ap"]["model"] == checked["ap"]["exported"]
    assert len({tuple(size) for size in checked["input_sizes"]}) > 1
    # Two epochs teach too little: the check must not look better than it is.
    assert checked["weak"] is True
    found = checked["detections"]["model"]
    assert (
        f"note: the verification is weak: {found} detections above 0.3 on 4 images, "
        "expected at least 50; try --verify 128"
    ) in done.err


def test_weights_are_those_of_inference(onnx_file: Path, run_dir: Path) -> None:
    names = {entry.name for entry in onnx.load(onnx_file).graph.initializer}
    model = load_checkpoint(run_dir).model
    own = dict(model.named_parameters())
    only_training = {
        name
        for name in own
        if ".extra_ffn." in name or re.match(r"decoder\.(one_to_many|class_heads\.0)", name)
    }
    assert only_training
    kept = own.keys() - only_training
    # Only the last layer classifies.
    renamed = {re.sub(r"^decoder\.class_heads\.1", "decoder.class_heads.0", n) for n in kept}
    assert not [n for n in names if "extra_ffn" in n or "one_to_many" in n]
    assert not [n for n in names if "running" in n or "dropout" in n]
    # Constants are folded, transposed matrices renamed; biases of linear layers stay as they are.
    linear = r"(linear[12]|_proj|offsets|weights|class_head|class_heads\.0)\.bias$"
    expected = {name for name in renamed if re.search(linear, name)}
    assert len(expected) > 20
    assert not [name for name in expected if name not in names and "in_proj" not in name]
    assert sum(np.prod(e.dims) for e in onnx.load(onnx_file).graph.initializer) < sum(
        p.numel() for p in own.values()
    )


def test_standard_operators_only(
    onnx_file: Path, exported: Callable[..., tuple[Path, Any]]
) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", 18)]
    operators = {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert "GridSample" not in operators
    assert not model.functions
    path, done = exported(
        *("--static", "96x128", "--batch", "2", "--raw", "--op", "grid_sample", "--verify", "3")
    )
    assert done.code == 0, done.err
    graph = onnx.load(path).graph
    assert "GridSample" in {node.op_type for node in graph.node}
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}
    assert shapes == {"pixels": [2, 3, 96, 128]}
    assert [o.name for o in graph.output] == ["logits", "boxes"]
    checked = json.loads(path.with_name(f"{path.name}.report.json").read_text())["verification"]
    assert (checked["passed"], checked["num_images"]) == (True, 3)


def test_inputs_may_have_any_size(onnx_file: Path, run_dir: Path) -> None:
    graph = onnx.load(onnx_file).graph
    names = {i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in graph.input}
    assert names["pixels"] == ["batch", "", "height", "width"]
    assert names["padding_mask"] == ["batch", "height", "width"]
    session = open_session(onnx_file)
    model = load_checkpoint(run_dir).model
    for sizes in ([(64, 64)], [(96, 128), (70, 100)], [(33, 160), (64, 50), (40, 40)]):
        images = images_of(sizes)
        scores, labels, boxes = session.run(
            None, {"pixels": images.pixels.numpy(), "padding_mask": images.padding_mask.numpy()}
        )
        with torch.no_grad():
            last = model(images).one_to_one
        expected = select_detections(
            last.logits[-1], last.boxes_cxcywh[-1], torch.tensor(sizes), scores.shape[1]
        )
        torch.testing.assert_close(torch.tensor(scores), expected.scores, rtol=0, atol=1e-5)
        assert labels.dtype == np.int64
        agree = (torch.tensor(boxes) - expected.boxes_xyxy_px).abs().amax(-1) < 1e-2
        assert agree.float().mean() > 0.9  # near-tied detections may swap


def test_metadata_tells_all_that_a_consumer_needs(onnx_file: Path, run_dir: Path) -> None:
    texts = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    about = {name: json.loads(text) for name, text in texts.items()}
    loaded = load_checkpoint(run_dir)
    assert about["class_names"] == list(loaded.label_space.names)
    assert about["category_ids"] == list(loaded.label_space.category_ids)
    assert about["recipe"]["model"]["num_queries"] == 20
    assert (about["op"], about["precision"], about["detections"]) == ("gather", "fp32", 100)
    assert about["preprocessing"]["resize"]["short_side"] == 64
    assert about["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert about["msdetr_version"]


def test_half_precision_halves_the_weights(
    exported: Callable[..., tuple[Path, Any]], onnx_file: Path
) -> None:
    options = ("--precision", "fp16", "--static", "96x128", "--verify", "2", "--json")
    path, done = exported(*options)
    report = json.loads(path.with_name(f"{path.name}.report.json").read_text())
    assert done.code == 0, (done.err, report)
    assert json.loads(done.out)["verification"] == report["verification"]
    model = onnx.load(path)
    halves = [e for e in model.graph.initializer if e.data_type == onnx.TensorProto.FLOAT16]
    assert any("backbone" in entry.name for entry in halves)
    assert not [entry.name for entry in halves if "box_head" in entry.name]
    elements = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    assert elements["scores"] == elements["boxes"] == onnx.TensorProto.FLOAT
    assert weight_bytes(path) < 0.6 * weight_bytes(onnx_file)
    assert report["verification"]["largest_logit_difference"] > 0


@pytest.mark.slow
def test_program_runs_without_the_package(
    exported: Callable[..., tuple[Path, Any]], onnx_file: Path, tmp_path: Path
) -> None:
    path, done = exported("--format", "torch-export")
    assert done.code == 0, done.err
    images = images_of([(96, 128), (70, 100)])
    torch.save((images.pixels, images.padding_mask), tmp_path / "inputs.pt")
    code = NO_PACKAGE + (
        "import json, torch\n"
        "extra = {'metadata.json': ''}\n"
        f"program = torch.export.load({str(path)!r}, extra_files=extra).module()\n"
        f"inputs = torch.load({str(tmp_path / 'inputs.pt')!r})\n"
        f"torch.save(program(*inputs), {str(tmp_path / 'outputs.pt')!r})\n"
        "program(inputs[0][:1], inputs[1][:1])\n"
        "print(json.loads(extra['metadata.json'])['class_names'][0])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "circle\n"
    scores, _, boxes = torch.load(tmp_path / "outputs.pt")
    other = open_session(onnx_file).run(
        None, {"pixels": images.pixels.numpy(), "padding_mask": images.padding_mask.numpy()}
    )
    torch.testing.assert_close(scores, torch.tensor(other[0]), rtol=0, atol=1e-5)
    assert boxes.shape == (2, 100, 4)


def test_openvino_file_is_verified_and_asks_for_float32(
    exported: Callable[..., tuple[Path, Any]],
) -> None:
    path, done = exported("--format", "openvino", "--verify", "2")
    assert done.code == 0, done.err
    names = ["model.bin", "model.xml", "model.xml.report.json"]
    assert sorted(p.name for p in path.parent.iterdir()) == names
    report = json.loads(path.with_name(names[2]).read_text())
    assert report["size_bytes"] == sum((path.parent / n).stat().st_size for n in names[:2])
    assert report["verification"]["passed"] is True
    hint = ET.parse(path).find("rt_info/runtime_options/INFERENCE_PRECISION_HINT")
    assert hint is not None
    assert hint.get("value") == "f32"
    program = open_file(path)
    assert program.metadata["class_names"][0] == "circle"
    assert program.precision == "f32"


def test_corrupted_weights_of_openvino_are_found(
    msdetr: Callable[..., Any], run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = openvino_file.write

    def damage(program: Any, path: Path, *rest: Any) -> None:
        write(program, path, *rest)
        weights = weights_file(path)
        content = bytearray(weights.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 4096] = bytes(4096)
        weights.write_bytes(content)

    monkeypatch.setattr(openvino_file, "write", damage)
    command = ("export", "--ckpt", run_dir, "--format", "openvino", "--static", "64x96", "--raw")
    done = msdetr(*command, "--output", tmp_path / "model.xml", "--verify", "1")
    assert (done.code, done.out) == (4, ""), done.err
    names = ["model.bin.unverified", "model.xml.report.json", "model.xml.unverified"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("program", "options"),
    [("detect.py", ()), ("detect_openvino.py", ("--format", "openvino", "--verify", "2"))],
)
def test_consumer_of_the_documentation(
    program: str,
    options: tuple[str, ...],
    *,
    exported: Callable[..., tuple[Path, Any]],
    run_dir: Path,
    shapes_root: Path,
    tmp_path: Path,
) -> None:
    text = (ROOT / "docs/export.md").read_text()
    code = text.split(f"<!-- {program} -->\n```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 25
    (tmp_path / program).write_text(NO_PACKAGE + code)
    file, done = exported(*options)
    assert done.code == 0, done.err
    for written in file.parent.iterdir():
        shutil.copy(written, tmp_path)
    photo = sorted((shapes_root / "val2017").iterdir())[0]
    ran = subprocess.run(
        [sys.executable, program, photo],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    found = np.array([[float(line[0]), *map(float, line[2:])] for line in lines])
    (expected,) = Detector.from_checkpoint(run_dir, device="cpu").predict(photo, threshold=0.0)
    assert found.shape == (len(expected.scores), 5)
    np.testing.assert_allclose(found[:, 0], expected.scores, rtol=0, atol=1e-3)
    near = np.abs(found[:, 1:] - np.asarray(expected.boxes_xyxy_px)).max(axis=1) < 0.1
    assert near.mean() > 0.9  # near-tied detections may swap
    assert [line[1] for line in lines[:5]] == list(expected.class_names[:5])


def perturbed(program: DetectionProgram) -> DetectionProgram:
    with torch.no_grad():
        program.decoder.class_heads[0].bias += 0.01
    return program


def test_wrong_file_is_named_unverified(
    msdetr: Callable[..., Any], run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = exporting.build_program
    monkeypatch.setattr(
        exporting, "build_program", lambda *args, **kwargs: perturbed(build(*args, **kwargs))
    )
    output = tmp_path / "wrong.onnx"
    command = ("export", "--ckpt", run_dir, "--output", output, "--static", "64x64")
    done = msdetr(*command, "--verify", "2")
    assert (done.code, done.out) == (4, "")
    assert re.fullmatch(
        rf"error: {output}\.unverified: logits differ by 1\.0e-02, tolerance 1e-04 of \d\.\d; "
        rf"see {output}\.report\.json\n",
        done.err.splitlines(keepends=True)[-1],
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["wrong.onnx.report.json", "wrong.onnx.unverified"]
    report = json.loads((tmp_path / "wrong.onnx.report.json").read_text())
    assert report["verification"]["passed"] is False


class TestRefused:
    def test_checkpoint(
        self, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        output, nothing = tmp_path / "out" / "m.onnx", tmp_path / "nothing"
        line = refused_line("export", "--ckpt", nothing, "--output", output)
        assert line == f"error: {nothing}: no such checkpoint or run directory"
        copied = Path(shutil.copytree(run_dir / "checkpoints/last", tmp_path / "copied"))
        weights = copied / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-9])
        line = refused_line("export", "--ckpt", copied, "--output", output)
        assert line == (
            f"error: {weights}: is damaged: it is not what SHA256SUMS says (truncated or changed?)"
        )
        weights.write_bytes(whole)
        info = json.loads((copied / "checkpoint.json").read_text())
        info["format_version"] = FORMAT_VERSION + 1
        (copied / "checkpoint.json").write_text(json.dumps(info))
        files = {p.name: p.read_bytes() for p in copied.iterdir() if p.name != SUMS_FILE}
        (copied / SUMS_FILE).write_bytes(list_sums(files))
        line = refused_line("export", "--ckpt", copied, "--output", output)
        assert line == (
            f"error: {copied}: has format version {FORMAT_VERSION + 1}, but this release reads up "
            f"to {FORMAT_VERSION}; update the package"
        )

    @pytest.mark.parametrize("name", ["m.onnx", "m.onnx.unverified", "m.onnx.report.json"])
    def test_existing_output(
        self, name: str, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        (tmp_path / name).write_text("precious")
        line = refused_line("export", "--ckpt", run_dir, "--output", tmp_path / "m.onnx")
        assert line == (
            f"error: {tmp_path / name}: exists; add --force, or write to another folder"
        )

    def test_folder_that_cannot_be_written(
        self, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        (tmp_path / "file").write_text("")
        output = tmp_path / "file" / "m.onnx"
        line = refused_line("export", "--ckpt", run_dir, "--output", output)
        assert line == f"error: {output}: cannot be written: {output.parent} is not a directory"
        output = Path("/proc/m.onnx")  # not even root may write there
        line = refused_line("export", "--ckpt", run_dir, "--output", output)
        assert line.startswith(f"error: {output}: cannot be written: ")

    @pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
    def test_missing_package(
        self,
        package: str,
        run_dir: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        line = refused_line("export", "--ckpt", run_dir, "--output", tmp_path / "m.onnx")
        assert line == f"error: --format onnx: needs {package}: pip install 'msdetr[export]'"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--static", "8x16"), "--static 8x16: has 5 cells, but the model chooses 20 queries "
             "among them; the smallest square is 25x25"),
            (("--static", "640"), "--static: expected height x width in pixels, as in 640x640, "
             "got '640'"),
            (("--batch", "2"), "--batch: needs --static; other files take any batch size"),
            (("--static", "64x64", "--batch", "0"), "--batch: must be at least 1, got 0"),
            (("--verify", "-1"), "--verify: must be at least 0, got -1"),
            (("--detections", "0"), "--detections: must be at least 1, got 0"),
            (("--raw", "--detections", "9"), "--detections: cannot go with --raw, which yields "
             "all queries"),
        ],
    )  # fmt: skip
    def test_option(
        self,
        options: tuple[str, ...],
        message: str,
        run_dir: Path,
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        output = tmp_path / "m.onnx"
        assert refused_line("export", "--ckpt", run_dir, "--output", output, *options) == (
            f"error: {message}"
        )

    def test_name_of_another_format(
        self, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        output = tmp_path / "m.pt2"
        line = refused_line("export", "--ckpt", run_dir, "--output", output)
        assert line == f"error: {output}: expected a name ending in .onnx for --format onnx"

    def test_missing_data(
        self, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        nothing = tmp_path / "nothing"
        line = refused_line(
            *("export", "--ckpt", run_dir, "--output", tmp_path / "m.onnx", "--data", nothing)
        )
        assert line == (
            f"error: {nothing}: the data root does not exist; data.root must name a folder with "
            "train2017/, val2017/ and annotations/"
        )


def test_suppression_is_left_to_the_reader_and_said(
    exported: Callable[..., tuple[Path, Any]],
) -> None:
    _, plain = exported()
    options = ("--format", "torch-export", "--verify", "0", "--static", "96x128")
    _, suppressed = exported(*options, "--set", "evaluation.nms_threshold=0.6")
    said = "note: the file does not suppress duplicates; evaluation.nms_threshold=0.6"
    assert (plain.code, suppressed.code) == (0, 0)
    assert said in suppressed.err
    assert "suppress" not in plain.err
