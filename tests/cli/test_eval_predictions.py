"""`msdetr eval` of results files without a checkpoint, NMS sweeps and kinds of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.evaluation.nms_sweep import THRESHOLDS
from msdetr.evaluation.tide_errors import ERROR_KINDS

Msdetr = Callable[..., Any]


@pytest.fixture
def annotations(shapes_root: Path) -> Path:
    return shapes_root / "annotations/instances_val2017.json"


@pytest.fixture
def shifted(annotations: Path, tmp_path: Path) -> Path:
    """The ground truth found twice: a little to the right, and once more with a lower score."""
    truth = json.loads(annotations.read_text())
    results = []
    for entry in truth["annotations"]:
        x, y, w, h = entry["bbox"]
        place = {key: entry[key] for key in ("image_id", "category_id")}
        results.append({**place, "bbox": [x + w / 10, y, w, h], "score": 0.9})
        results.append({**place, "bbox": [x + w / 20, y, w, h], "score": 0.95 - w / 1000})
    path = tmp_path / "shifted.json"
    path.write_text(json.dumps(results))
    return path


def test_any_results_file_is_scored(
    msdetr: Msdetr, shifted: Path, annotations: Path, run_dir: Path
) -> None:
    done = msdetr("eval", "--from-predictions", shifted, "--data", annotations, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    with_model = msdetr("eval", "--ckpt", run_dir, "--from-predictions", shifted, "--json")
    other = json.loads(with_model.out)
    assert report["setting"]["evaluator"].split()[0] in {"hotcoco", "pycocotools"}
    for each in (report, other):
        del each["setting"]
    assert report == other
    assert report["ap50"] > 0.5


@pytest.mark.parametrize("form", ["root", "pair"])
def test_forms_of_data(
    form: str, msdetr: Msdetr, shifted: Path, annotations: Path, shapes_root: Path
) -> None:
    data = shapes_root if form == "root" else f"{shapes_root / 'val2017'},{annotations}"
    done = msdetr("eval", "--from-predictions", shifted, "--data", data, "--json")
    assert done.code == 0, done.err
    setting = json.loads(done.out)["setting"]
    assert (setting["checkpoint"], setting["annotations"]) == (None, str(annotations))


def test_classes_may_be_any(msdetr: Msdetr, shifted: Path, annotations: Path) -> None:
    for file, key in ((annotations, "annotations"), (shifted, None)):
        content = json.loads(file.read_text())
        for entry in content[key] if key else content:
            entry["category_id"] += 1000
        if key:
            content["categories"] = [
                {"id": category["id"] + 1000, "name": f"new {category['id']}"}
                for category in content["categories"]
            ]
        shifted.with_name(file.name).write_text(json.dumps(content))
    data = shifted.with_name(annotations.name)
    done = msdetr("eval", "--from-predictions", shifted, "--data", data)
    assert done.code == 0, done.err
    assert "new 1" in done.out


def test_analyses_of_a_results_file(
    msdetr: Msdetr, shifted: Path, annotations: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hotcoco")
    command = ("eval", "--from-predictions", shifted, "--data", annotations)
    done = msdetr(*command, "--nms-sweep", "--errors", "--output", tmp_path / "out")
    assert done.code == 0, done.err
    for text in ("after class-wise NMS", "TIDE errors", "duplicate"):
        assert text in done.out
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    assert [row["threshold"] for row in report["nms_sweep"]] == list(THRESHOLDS)
    assert report["nms_sweep"][0]["ap"] == report["ap"]
    assert report["nms_sweep"][1]["ap50"] > report["ap50"]
    assert set(report["errors"]) == {"ap50", *ERROR_KINDS}
    assert report["errors"]["duplicate"]["ap50"] > report["errors"]["classification"]["ap50"]
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())) > 0


def test_analyses_of_a_checkpoint(msdetr: Msdetr, run_dir: Path) -> None:
    pytest.importorskip("hotcoco")
    command = ("eval", "--ckpt", run_dir, "--device", "cpu", "--json")
    report = json.loads(msdetr(*command, "--nms-sweep", "--errors").out)
    assert report["nms_sweep"][0]["num_detections"] == report["num_detections"] == 400
    assert report["errors"]["ap50"] == pytest.approx(report["ap50"], abs=1e-9)
    plain = json.loads(msdetr(*command).out)
    assert not {"nms_sweep", "errors"} & set(plain)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "--ckpt: is missing; give one, or a results file as --from-predictions"),
        (["--from-predictions", "FILE"], "--data: is missing; without --ckpt"),
        (
            ["--from-predictions", "FILE", "--data", "JSON", "--set", "a=1"],
            "--set: means nothing without --ckpt",
        ),
        (["--from-predictions", "FILE", "--data", "JSON", "--per-layer"], "needs the model"),
        (
            ["--from-predictions", "FILE", "--data", "JSON", "--per-branch"],
            "--per-branch: needs the model; it cannot go with --from-predictions",
        ),
        (["--from-predictions", "nowhere.json", "--data", "JSON"], "nowhere.json: cannot be read"),
        (["--from-predictions", "FILE", "--data", "nowhere"], "nowhere"),
        (["--from-predictions", "FILE", "--data", "FILE"], "not a COCO annotation file"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str],
    part: str,
    shifted: Path,
    annotations: Path,
    refused_line: Callable[..., str],
) -> None:
    names = {"FILE": shifted, "JSON": annotations}
    assert part in refused_line("eval", *(names.get(option, option) for option in options))


def test_strange_images_are_one_line(
    shifted: Path, annotations: Path, refused_line: Callable[..., str]
) -> None:
    entry = {"image_id": 10**6, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}
    shifted.write_text(json.dumps([entry]))
    line = refused_line("eval", "--from-predictions", shifted, "--data", annotations)
    assert f"{shifted}: entry 0: image_id 1000000 is not in the annotation file" in line


def test_missing_library_is_said_before_the_model_runs(
    run_dir: Path, refused_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msdetr.evaluation.tide_errors.fastest_library", lambda: "pycocotools")
    line = refused_line("eval", "--ckpt", run_dir, "--errors")
    assert "need hotcoco 1.3 or later: pip install 'msdetr[fast]'" in line


def test_log_names_what_computed_the_metrics(run_dir: Path) -> None:
    assert "metrics computed by " in (run_dir / "train.log").read_text()
    environment = json.loads((run_dir / "environment.json").read_text())
    assert "hotcoco" in environment["packages"]


def test_force_replaces_an_earlier_evaluation(
    msdetr: Msdetr,
    refused_line: Callable[..., str],
    shifted: Path,
    annotations: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    command = ("eval", "--from-predictions", shifted, "--data", annotations, "--output", output)
    assert msdetr(*command).code == 0
    first = json.loads((output / "metrics.json").read_text())
    shifted.write_text("[]")
    assert "holds metrics.json already; give another --output, or --force" in refused_line(*command)
    assert msdetr(*command, "--force").code == 0
    second = json.loads((output / "metrics.json").read_text())
    assert first["ap"] > second["ap"] == 0
    (output / "predictions.json").unlink()
    (output / "predictions.json").mkdir()
    assert "is no result of an evaluation" in refused_line(*command, "--force")
