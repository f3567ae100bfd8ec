"""`msdetr eval`: the numbers, where they go, and what they are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.datasets import load_evaluation_data
from msdetr.api.evaluate import evaluate_branches
from msdetr.evaluation.metrics import SUMMARY_KEYS
from msdetr.evaluation.nms_sweep import suppress_results

COMMAND = Path(sys.executable).with_name("msdetr")
TWELVE = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(msdetr: Callable[..., Any], run_dir: Path) -> Evaluate:
    """Evaluate the finished run and return what `--json` printed."""

    def run(*options: str | Path) -> dict[str, Any]:
        done = msdetr("eval", "--ckpt", run_dir, "--device", "cpu", "--json", *options)
        assert done.code == 0, done.err
        content: dict[str, Any] = json.loads(done.out)
        return content

    return run


@pytest.fixture
def perfect(shapes_root: Path, tmp_path: Path) -> Path:
    """The ground truth as a results file."""
    truth = json.loads((shapes_root / "annotations/instances_val2017.json").read_text())
    keys = ("image_id", "category_id", "bbox")
    path = tmp_path / "perfect.json"
    results = [{**{k: entry[k] for k in keys}, "score": 0.9} for entry in truth["annotations"]]
    path.write_text(json.dumps(results))
    return path


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in {"setting", "cost"}}


def test_json_has_the_twelve_numbers_and_the_setting(evaluate: Evaluate) -> None:
    report = evaluate()
    assert SUMMARY_KEYS == TWELVE
    assert list(report)[:12] == list(TWELVE)
    assert report["num_images"] == 4
    assert report["per_layer"] == []
    assert len(report["ap_by_iou"]) == 10
    assert len(report["per_class"]) == 7
    assert report["cost"]["image_flops"] > 1e6
    assert report["cost"]["evaluation_seconds"] > 0
    assert report["cost"]["peak_memory_mib"] > 50
    setting = report["setting"]
    assert setting["recipe"]["data"]["source"] == "shapes"
    assert (setting["seed"], setting["num_images"]) == (42, 4)
    assert (setting["detections_per_image"], setting["image_size"]) == (100, [64, 128])
    assert setting["op_backend"] in {"native", "reference"}


def test_epoch_row_and_file_of_the_training_have_the_same_numbers(
    evaluate: Evaluate, run_dir: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    written = json.loads((run_dir / "evaluation/metrics.json").read_text())
    row = rows_of(run_dir)[-1]
    last = evaluate("--ckpt", run_dir / "checkpoints/last")
    for key in TWELVE:
        assert written[key] == row[key] == last[key]


@pytest.mark.parametrize("field", ["train.ema={decay: 0.5}", "train.precision=bf16"])
def test_checkpoint_alone_gives_what_the_training_saw(
    field: str, msdetr: Callable[..., Any], train: Callable[..., Any], tmp_path: Path
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    assert train(run, "--set", field, "--set", "train.epochs=1").code == 0
    options = ("--ckpt", run / "checkpoints/last", "--device", "cpu", "--output", again)
    assert msdetr("eval", *options).code == 0
    first, second = (
        json.loads((folder / "predictions.json").read_text())
        for folder in (run / "evaluation", again)
    )
    assert first == second


def test_twice_the_same_numbers_and_no_random_ones(
    evaluate: Evaluate, tmp_path: Path, content_of: Callable[[Path], dict[str, str]]
) -> None:
    state = torch.get_rng_state()
    first = evaluate("--output", tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert numbers(evaluate("--output", tmp_path / "second")) == numbers(first)
    one, two = content_of(tmp_path / "first"), content_of(tmp_path / "second")
    assert one["predictions.json"] == two["predictions.json"]


def test_output_holds_metrics_and_predictions_in_the_results_format(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    report = evaluate("--output", tmp_path / "results")
    written = json.loads((tmp_path / "results/metrics.json").read_text())
    assert written == report
    predictions = json.loads((tmp_path / "results/predictions.json").read_text())
    assert len(predictions) == 4 * 100
    for entry in predictions:
        assert set(entry) == {"image_id", "category_id", "bbox", "score"}
        assert 1 <= entry["category_id"] <= 7


def test_predictions_score_the_same_again(evaluate: Evaluate, tmp_path: Path) -> None:
    report = evaluate("--output", tmp_path / "results")
    again = evaluate("--from-predictions", tmp_path / "results/predictions.json")
    assert numbers(again) == numbers(report)
    assert "cost" not in again
    assert again["setting"]["predictions"] == str(tmp_path / "results/predictions.json")


def test_ground_truth_as_predictions_scores_one(evaluate: Evaluate, perfect: Path) -> None:
    report = evaluate("--from-predictions", perfect)
    defined = {key: report[key] for key in TWELVE if report[key] is not None}
    assert {"ap", "ap50", "ap75", "ar_100"} <= set(defined)
    exact = {k: v for k, v in defined.items() if k not in {"ar_1", "ar_10"}}
    assert exact == pytest.approx(dict.fromkeys(exact, 1.0))


def test_layers_are_reported_on_demand(evaluate: Evaluate, msdetr: Callable[..., Any]) -> None:
    report = evaluate("--per-layer")
    assert len(report["per_layer"]) == 2
    assert report["per_layer"][-1] == {key: report[key] for key in TWELVE}
    shown = msdetr(
        *("eval", "--ckpt", report["setting"]["checkpoint"], "--device", "cpu", "--per-layer")
    )
    assert "by decoder layer" in shown.out


def test_branches_are_told_apart(
    evaluate: Evaluate, msdetr: Callable[..., Any], run_dir: Path, tmp_path: Path
) -> None:
    report = evaluate("--per-branch", "--per-layer", "--output", tmp_path / "out")
    branches = report["per_branch"]
    assert json.loads((tmp_path / "out/metrics.json").read_text())["per_branch"] == branches
    ones = [{key: row[key] for key in TWELVE} for row in branches["one_to_one"]]
    assert ones == report["per_layer"]
    assert [len(layers) for layers in (branches["one_to_many"], ones)] == [2, 2]
    alone = evaluate("--per-branch")
    assert (alone["per_branch"], alone["per_layer"]) == (branches, [])
    plain = evaluate()
    assert "per_branch" not in plain
    assert {key: alone[key] for key in numbers(plain)} == numbers(plain)
    shown = msdetr("eval", "--ckpt", run_dir, "--device", "cpu", "--per-branch").out
    assert "by branch and decoder layer" in shown


def test_model_without_one_to_many_has_one_branch(
    msdetr: Callable[..., Any], train: Callable[..., Any], tmp_path: Path
) -> None:
    fields = ("supervision.one_to_many=null", "model.placement=baseline", "model.extra_ffn=false")
    options = [word for field in (*fields, "train.epochs=1") for word in ("--set", field)]
    assert train(tmp_path / "run", *options).code == 0
    command = ("eval", "--ckpt", tmp_path / "run", "--device", "cpu", "--per-branch")
    report = json.loads(msdetr(*command, "--json").out)
    assert len(report["per_branch"]["one_to_one"]) == 2
    assert report["per_branch"]["one_to_many"] is None
    assert "trained without a one-to-many branch" in msdetr(*command).out


def test_branches_of_a_loaded_checkpoint(evaluate: Evaluate, run_dir: Path) -> None:
    loaded = load_checkpoint(run_dir)
    images = load_evaluation_data(loaded.recipe, loaded.label_space)
    found = evaluate_branches(loaded, images, device="cpu")
    assert found is not None
    assert found.to_dict() == evaluate("--per-branch")["per_branch"]


def test_suppressed_detections_are_not_there(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate("--output", tmp_path / "all")
    report = evaluate("--set", "evaluation.nms_threshold=0.01", "--output", tmp_path / "kept")
    everything, kept = (
        json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("all", "kept")
    )
    assert kept == suppress_results(everything, 0.01)
    assert report["num_detections"] == len(kept) < len(everything)


@pytest.mark.parametrize("threshold", ["0.5", "null"])
def test_a_sweep_says_what_was_suppressed_before_it(
    threshold: str, msdetr: Callable[..., Any], run_dir: Path
) -> None:
    command = ("eval", "--ckpt", run_dir, "--device", "cpu", "--nms-sweep")
    done = msdetr(*command, "--set", f"evaluation.nms_threshold={threshold}")
    assert done.code == 0
    note = "note: the sweep begins with detections that the recipe has suppressed at IoU 0.5"
    assert (note in done.err) == (threshold != "null")


@pytest.mark.parametrize("form", ["root", "pair"])
def test_data_names_other_images(
    form: str, evaluate: Evaluate, shapes_root: Path, tmp_path: Path
) -> None:
    annotations = shapes_root / "annotations/instances_train2017.json"
    if form == "pair":
        data = f"{shapes_root / 'train2017'},{annotations}"
    else:
        (tmp_path / "annotations").mkdir()
        (tmp_path / "val2017").symlink_to(shapes_root / "train2017")
        annotations = tmp_path / "annotations/instances_val2017.json"
        annotations.symlink_to(shapes_root / "annotations/instances_train2017.json")
        data = str(tmp_path)
    report = evaluate("--data", data)
    assert report["num_images"] == 8
    assert report["setting"]["annotations"] == str(annotations)


def test_annotations_as_tools_write_them_are_scored_with_a_warning(
    msdetr: Callable[..., Any], run_dir: Path, perfect: Path, shapes_root: Path, tmp_path: Path
) -> None:
    content = json.loads((shapes_root / "annotations/instances_val2017.json").read_text())
    for entry in content["annotations"][:2]:
        entry["bbox"] = [str(number) for number in entry["bbox"]]
    content["categories"].append(content["categories"][0])
    (tmp_path / "exported.json").write_text(json.dumps(content))
    data = f"{shapes_root / 'val2017'},{tmp_path / 'exported.json'}"
    command = ("eval", "--ckpt", run_dir, "--from-predictions", perfect, "--data", data)
    done = msdetr(*command)
    assert done.code == 0
    assert "100.0" in done.out
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["warning"] * 2
    assert "numbers written as text; they are read as numbers: 2 (annotations[0].bbox" in done.err


def test_fields_of_the_recipe_can_be_changed(evaluate: Evaluate, tmp_path: Path) -> None:
    report = evaluate(
        *("--set", "evaluation.detections_per_image=5", "--set", "data.val.limit=2"),
        *("--output", tmp_path / "results"),
    )
    assert report["num_detections"] == 10
    assert report["setting"]["detections_per_image"] == 5


def test_tables_go_to_stdout_and_talk_does_not(
    msdetr: Callable[..., Any], run_dir: Path, perfect: Path
) -> None:
    done = msdetr("eval", "--ckpt", run_dir, "--from-predictions", perfect)
    assert done.code == 0
    for text in ("COCO metrics", "AP by IoU", "by category", "ar_100", "100.0"):
        assert text in done.out
    assert done.err == ""


def test_process_prints_json_only(run_dir: Path, perfect: Path) -> None:
    done = subprocess.run(
        [COMMAND, "eval", "--ckpt", run_dir, "--from-predictions", perfect, "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ap"] == pytest.approx(1.0)
