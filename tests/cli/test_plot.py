"""`msdetr plot`, and the plots and the report that a training ends with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msdetr.api.training import run_report

PICTURES = [
    f"{name}{suffix}" for name in ("losses", "ap", "learning_rate") for suffix in (".png", ".svg")
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log in the published format."""
    rows = [
        {
            "epoch": epoch,
            "train_lr": 2e-4,
            "train_loss_ce": 0.5 / (epoch + 1),
            "train_loss_bbox": 0.3,
            "train_loss_giou": 0.4,
            "test_coco_eval_bbox": [0.1 * epoch] * 12,
        }
        for epoch in range(3)
    ]
    path = tmp_path / "published" / "log.txt"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_training_ends_with_plots_and_a_report(finished: tuple[Path, Any]) -> None:
    run, done = finished
    assert sorted(path.name for path in (run / "plots").iterdir()) == sorted(PICTURES)
    html = (run / "report.html").read_text()
    assert str(run / "report.html") in done.err
    metrics = json.loads((run / "evaluation/metrics.json").read_text())
    for entry in metrics["per_class"]:
        assert f"<td>{entry['name']}</td><td>{entry['num_ground_truth']}</td>" in html
    # Three figures; ground truth and detections of all images that have objects.
    with_targets = html.count("ground truth (")
    assert 1 <= with_targets <= 4
    assert html.count('src="data:image/svg+xml;base64,') == 3
    assert html.count('src="data:image/jpeg;base64,') == 2 * with_targets
    assert "num_queries: 20" in html


@pytest.mark.parametrize("failing", ["plot_runs", "render_run_report"])
def test_failure_to_plot_does_not_lose_the_training(
    failing: str,
    finished: tuple[Path, Any],
    train: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no ink")

    run = shutil.copytree(finished[0], tmp_path / "run")
    monkeypatch.setattr(run_report, failing, fail)
    done = train(run, "--resume")
    assert (done.code, done.out) == (0, f"{run}\n")
    log = run / "train.log"
    assert done.err.splitlines()[-1] == (
        f"the run is whole, but has no report: ZeroDivisionError: no ink; its traceback is in {log}"
    )
    last = log.read_text().rpartition(" ERROR ")[2].splitlines()
    assert last[:2] == ["no report: no ink", "Traceback (most recent call last):"]
    assert last[-1] == "ZeroDivisionError: no ink"
    assert 'raise ZeroDivisionError("no ink")' in "\n".join(last)


def test_report_that_cannot_be_written_is_a_line_without_a_traceback(
    finished: tuple[Path, Any], train: Callable[..., Any], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(run / "plots")
    (run / "plots").write_text("in the way")
    done = train(run, "--resume")
    assert (done.code, done.out) == (0, f"{run}\n")
    assert done.err.splitlines()[-1].startswith(
        f"the run is whole, but has no report: {run / 'plots'}: cannot be written: "
    )
    last = (run / "train.log").read_text().rpartition(" ERROR ")[2].splitlines()
    assert len(last) == 1
    assert last[0].startswith(f"no report: {run / 'plots'}: cannot be written: ")


def test_detection_of_a_nameless_label_is_left_out_of_the_samples(
    finished: tuple[Path, Any], train: Callable[..., Any], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    file = run / "evaluation/predictions.json"
    sure = [{**entry, "score": 0.9} for entry in json.loads(file.read_text())]
    shown = []
    for category_id in (sure[0]["category_id"], 999):
        # 100 detections of an image each, of which 20 are shown.
        file.write_text(json.dumps([{**e, "category_id": category_id} for e in sure]))
        done = train(run, "--resume")
        assert done.code == 0
        assert f"report: {run / 'report.html'}" in done.err
        html = (run / "report.html").read_text()
        shown.append((html.count("detections (20)"), html.count("detections (0)")))
    (all_shown, none), (rest, all_gone) = shown
    assert all_shown == all_gone > 0 == none == rest


def test_pictures_go_to_the_run_again_and_again(
    msdetr: Callable[..., Any], run_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("metrics.jsonl", "recipe.yaml"):
        shutil.copy(run_dir / name, run / name)
    for _ in range(2):
        done = msdetr("plot", run)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines() == [str(run / "plots" / name) for name in PICTURES]
    for name in PICTURES[::2]:
        picture = Image.open(run / "plots" / name)
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(100_000) or []) > 10


def test_runs_are_drawn_beside_published_logs(
    msdetr: Callable[..., Any], run_dir: Path, log: Path, tmp_path: Path
) -> None:
    done = msdetr("plot", run_dir, log, "--output", tmp_path / "both")
    assert done.code == 0
    assert done.err == (
        "published: its losses are weighted; they are divided by the published weights\n"
    )
    svg = (tmp_path / "both/losses.svg").read_text()
    for text in (">finished<", ">published<", ">with mixed supervision<", ">without<"):
        assert text in svg


def test_bad_input_is_refused(
    refused_line: Callable[..., str], run_dir: Path, log: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"kind": "epoch"}\nnonsense\n{}\n')
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "ap.svg").write_text("mine")
    output = ("--output", tmp_path / "out")
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        ((tmp_path / "nothing", *output), "does not exist"),
        ((taken, *output), "holds neither metrics.jsonl nor log.txt"),
        ((broken, *output), "line 2: expected a JSON object, got 'nonsense'"),
        ((run_dir, log), "--output: is needed unless one run directory is given"),
        ((log,), "--output: is needed"),
        ((run_dir, "--output", taken), "holds ap.svg already; give another --output"),
        ((run_dir, "--output", broken), "is a file; --output needs a directory"),
        ((run_dir, "--layer", "2", *output), "--layer: finished has layers 0 to 1, got 2"),
    ]
    for arguments, message in cases:
        assert message in refused_line("plot", *arguments), arguments
