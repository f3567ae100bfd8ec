"""A model with a suppressor on the command line: trained, evaluated, exported, inspected."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr import Detector
from msdetr.export.formats import SUFFIXES

Msdetr = Callable[..., Any]
Train = Callable[..., Any]

FIELDS = {
    "model.placement": "b",
    "model.extra_ffn": "false",
    "model.suppressor": "{learned_keys: 3}",
    "supervision.class_loss": "varifocal",
    "supervision.one_to_many.max_positive_fraction": "null",
}
WORDS = [word for key, value in FIELDS.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def suppressing(tmp_path_factory: pytest.TempPathFactory, train: Train) -> Path:
    """A finished training run with a trace of every epoch."""
    folder = tmp_path_factory.mktemp("runs") / "suppressing"
    done = train(folder, *WORDS, "--set", "inspection.trace_every_epoch=true")
    assert done.code == 0, done.err
    return folder


def test_branches_have_layers_of_their_own(
    suppressing: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    for row in rows_of(suppressing):
        classes = {key for key in row["terms"] if "/class/" in key}
        assert classes == {
            "one_to_one/class/0",
            "one_to_many/class/0",
            "one_to_many/class/1",
            "proposals/class/0",
        }
    report = (suppressing / "report.html").read_text()
    assert "3 learned keys" in report
    assert "varifocal" in report


def test_layers_are_evaluated_before_and_after_the_suppressor(
    suppressing: Path, tmp_path: Path, msdetr: Msdetr
) -> None:
    command = ("eval", "--ckpt", suppressing, "--device", "cpu", "--per-layer", "--nms-sweep")
    done = msdetr(*command, "--output", tmp_path / "eval")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert len(metrics["per_layer"]) == 3
    assert metrics["per_layer"][-1]["ap"] == metrics["ap"]
    before, after = metrics["before_suppressor"]["nms_sweep"], metrics["nms_sweep"]
    assert before[0]["ap"] == metrics["per_layer"][-2]["ap"]
    assert after[0]["ap"] == metrics["ap"]
    assert "AP gained by the best NMS" in done.out
    both = json.loads(msdetr(*command, "--per-branch", "--json").out)
    assert [len(both["per_branch"][name]) for name in ("one_to_one", "one_to_many")] == [1, 2]
    assert both["per_layer"] == metrics["per_layer"]
    assert both["before_suppressor"] == metrics["before_suppressor"]
    table = done.out[done.out.index("by decoder layer") :]
    assert [name in table for name in ("0", "1", "suppressor")] == [True] * 3


def test_prediction_runs_the_suppressor(suppressing: Path, shapes_root: Path) -> None:
    detector = Detector.from_checkpoint(suppressing, device="cpu")
    image = min((shapes_root / "val2017").iterdir())
    (found,) = detector.predict([image], threshold=0.0)
    with torch.no_grad():
        detector.model.decoder.suppressor_class_head.bias.add_(1.0)
    (shifted,) = detector.predict([image], threshold=0.0)
    assert len(found.scores) > 5
    assert min(shifted.scores) > min(found.scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (),  # of any size; the tracing, which takes longest, is the same for all formats
        ("--format", "torch-export", "--static", "64x96"),
        ("--format", "openvino", "--static", "64x96"),
        ("--precision", "fp16", "--static", "64x96"),
        ("--static", "64x96", "--raw"),
    ],
    ids=" ".join,
)
def test_exports_are_verified(
    options: tuple[str, ...], suppressing: Path, tmp_path: Path, msdetr: Msdetr
) -> None:
    form = options[1] if "--format" in options else "onnx"
    output = tmp_path / f"model{SUFFIXES[form]}"
    done = msdetr("export", "--ckpt", suppressing, "--output", output, *options)
    assert done.code == 0, done.err
    assert "verified on" in done.out
    assert output.is_file()


def test_official_export_needs_a_published_backbone_only(
    suppressing: Path, tmp_path: Path, refused: Callable[..., list[str]]
) -> None:
    lines = refused(
        *("export", "--ckpt", suppressing, "--format", "official"),
        *("--output", tmp_path / "out.pth"),
    )
    named = [line.split()[0] for line in lines if "which the published code has not" in line]
    assert named == ["model.backbone.norm", "model.backbone.name"]


def test_stability_and_candidates(suppressing: Path, tmp_path: Path, msdetr: Msdetr) -> None:
    assert msdetr("stability", suppressing).code == 0
    command = ("candidates", "--ckpt", suppressing, "--device", "cpu", "--output")
    assert msdetr(*command, tmp_path / "candidates").code == 0


def test_inspection_shows_both_branches(suppressing: Path, tmp_path: Path, msdetr: Msdetr) -> None:
    command = ("inspect-matching", "--ckpt", suppressing, "--device", "cpu")
    done = msdetr(*command, "--output", tmp_path / "inspection")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "inspection/summary.json").read_text())
    assert summary["setting"]["has_suppressor"] is True
    first, last = summary["layers"]
    assert (first["loss_one_to_one"], last["loss_one_to_one"] > 0) == (0.0, True)
    assert f"the suppressor and {summary['suppression']['num_queries']} queries" in done.out
    assert summary["suppression"]["num_queries"] == sum(summary["suppression"]["outcomes"].values())
    with (tmp_path / "inspection/suppressions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == summary["suppression"]["num_queries"] > 0
    assert list((tmp_path / "inspection/pictures").glob("*_suppression.png"))
    assert "<h2>The suppressor" in (tmp_path / "inspection/matching.html").read_text()
    with (tmp_path / "inspection/assignments.csv").open() as file:
        assert {row["layer"] for row in csv.DictReader(file)} == {"0", "1"}
    again = msdetr(
        "inspect-matching", "--trace", tmp_path / "inspection/trace", "--output", tmp_path / "again"
    )
    assert again.code == 0, again.err
    first, second = (tmp_path / name / "suppressions.csv" for name in ("inspection", "again"))
    assert first.read_bytes() == second.read_bytes()
