"""`msdetr sweep-matching`, `candidates` and `stability`: commands that read match traces."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msdetr.api.traces.make_trace import trace_checkpoint
from msdetr.inspection.trace import MatchTrace

CANDIDATES = ("candidates.csv", "candidates.png", "iou_density.png", "summary.json")


@pytest.fixture(scope="module")
def trace(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of the finished run."""
    folder = tmp_path_factory.mktemp("traces") / "trace"
    trace_checkpoint(run_dir, device="cpu").save(folder)
    return folder


@pytest.fixture(scope="module")
def traced_run(
    train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A training that stored a trace of three images after each of its two epochs."""
    run = tmp_path_factory.mktemp("runs") / "traced"
    fields = ("inspection.trace_every_epoch=true", "inspection.num_images=3")
    done = train(run, *(text for field in fields for text in ("--set", field)))
    assert done.code == 0, done.err
    return run, done


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_sweep_writes_table_and_maps(
    msdetr: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    output = tmp_path / "sweep"
    grid = ("--k", "1,2,6", "--threshold", "0.2:0.4:0.1", "--alpha", "0.5,0.7")
    done = msdetr("sweep-matching", "--trace", trace, *grid, "--output", output)
    assert (done.code, done.err) == (0, "")
    rows = read_csv(output / "sweep.csv")
    assert len(rows) == 3 * 3 * 2 * 3  # the last factor: two layers and all
    assert {row["threshold"] for row in rows} == {"0.2", "0.3", "0.4"}
    assert {row["class_weight"] for row in rows} == {"0.5", "0.3"}
    assert "18 settings" in done.out
    assert "not the AP of a training" in " ".join(done.out.split())
    written = [line for line in done.out.splitlines() if line.startswith(str(output))]
    assert sorted(written) == sorted(str(path) for path in output.iterdir())
    for path in output.glob("*.png"):
        assert Image.open(path).width > 300


def test_sweep_of_the_own_setting_repeats_the_trace(
    msdetr: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    done = msdetr("sweep-matching", "--trace", trace, "--output", tmp_path / "own", "--json")
    assert done.code == 0
    rows = json.loads(done.out)
    loaded = MatchTrace.load(trace)
    for layer in (0, 1):
        pairs = sum(int((i.one_to_many_queries[layer] >= 0).sum()) for i in loaded.images)
        assert rows[layer]["positives"] == pairs
    assert (rows[2]["k"], rows[2]["threshold"], rows[2]["iou_weight"]) == (2, 0.4, 0.7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "0"], "--k: expected numbers from 1, got 0"),
        (["--k", "1.5"], "--k: expected whole numbers, got '1.5'"),
        (["--k", "21"], "k: is 21, but the model has only 20 queries"),
        (["--iou-weight", "0:2:1"], "--iou-weight: expected numbers from 0 to 1, got 2"),
        (["--alpha", "high"], "--iou-weight: expected a list like 1,2,4 or a range"),
        (["--threshold", "0.6:0.2:0.1"], "--threshold: expected a list"),
        (["--threshold", "0:1:0"], "--threshold: expected a list"),
        (["--threshold", "0:1"], "--threshold: expected a list"),
        (["--threshold", "nan"], "--threshold: expected a list"),
        (["--alpha", "0:1:0.001", "--threshold", "0:1:0.01"], "--k: 101101 settings in all"),
        (["--cap", "0"], "--cap: expected one number above 0 and up to 1, or none, got '0'"),
    ],
)
def test_bad_settings_are_refused(
    options: list[str], message: str, refused_line: Callable[..., str], trace: Path, tmp_path: Path
) -> None:
    line = refused_line("sweep-matching", "--trace", trace, "--output", tmp_path / "o", *options)
    assert message in line


def test_bad_traces_and_outputs_are_refused(
    refused_line: Callable[..., str], trace: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(trace, tmp_path / "damaged")
    content = bytearray((damaged / "trace.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "trace.safetensors").write_bytes(content)
    taken = tmp_path / "taken"
    taken.mkdir()
    for name in ("sweep.csv", "candidates.csv"):
        (taken / name).write_text("mine")
    for command in ("sweep-matching", "candidates"):
        output = ("--output", tmp_path / "out")
        for path, message in ((damaged, "is damaged"), (tmp_path, "is no match trace")):
            assert message in refused_line(command, "--trace", path, *output)
        line = refused_line(command, "--trace", trace, "--output", taken)
        assert "already; give another --output" in line


def test_candidates_of_two_models(
    msdetr: Callable[..., Any], run_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "candidates"
    last = run_dir / "checkpoints/last"
    models = ("--ckpt", run_dir, "--ckpt", last, "--device", "cpu")
    done = msdetr("candidates", *models, "--pictures", "2", "--output", output)
    assert done.code == 0, done.err
    assert sorted(path.name for path in output.iterdir()) == sorted(CANDIDATES)
    assert "A - B" in done.out
    summary = json.loads((output / "summary.json").read_text())
    assert [(e["model"], e["branch"]) for e in summary["last_layer"]] == [
        ("A", "one_to_one"),
        ("A", "one_to_many"),
        ("B", "one_to_one"),
        ("B", "one_to_many"),
        ("A - B", "one_to_one"),
    ]
    for entry in summary["last_layer"]:
        estimate = entry["iou_at_5"]
        assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    rows = read_csv(output / "candidates.csv")
    assert len(rows) == 2 * 2 * 2 * summary["num_targets"]
    mean = sum(
        float(row["iou_at_5"])
        for row in rows
        if (row["model"], row["branch"], row["layer"]) == ("A", "one_to_one", "1")
    )
    expected = summary["last_layer"][0]["iou_at_5"]["mean"]
    assert mean / summary["num_targets"] == pytest.approx(expected, rel=1e-4)


def test_bad_choice_of_models_is_refused(
    refused_line: Callable[..., str], trace: Path, run_dir: Path, tmp_path: Path
) -> None:
    output = ("--output", tmp_path / "out")
    once = "--ckpt: give --ckpt or --trace, once or twice"
    assert once in refused_line("candidates", *output)
    assert once in refused_line("candidates", *output, "--trace", trace, "--ckpt", run_dir)
    assert once in refused_line("candidates", *output, *(["--trace", trace] * 3))
    line = refused_line("candidates", *output, "--ckpt", run_dir, "--image-ids", "1,x")
    assert "--image-ids" in line
    line = refused_line("candidates", *output, "--ckpt", run_dir, "--image-ids", "12345")
    assert "--image-ids: 12345: not among" in line


def test_epochs_are_traced_on_the_same_images(traced_run: tuple[Path, Any]) -> None:
    run, _ = traced_run
    assert sorted(path.name for path in (run / "traces").iterdir()) == ["epoch_001", "epoch_002"]
    first, second = (MatchTrace.load(run / "traces" / f"epoch_00{i}") for i in (1, 2))
    assert len(first.images) == 3
    assert [i.image_id for i in first.images] == [i.image_id for i in second.images]
    assert [i.u.tolist() for i in first.images] == [i.u.tolist() for i in second.images]


def test_last_epoch_is_traced_like_the_last_checkpoint(traced_run: tuple[Path, Any]) -> None:
    run, _ = traced_run
    during = MatchTrace.load(run / "traces/epoch_002")
    after = trace_checkpoint(run / "checkpoints/last", device="cpu").limit(3)
    for one, other in zip(during.images, after.images, strict=True):
        assert one.one_to_many_queries.tolist() == other.one_to_many_queries.tolist()
        assert one.one_to_one_queries.tolist() == other.one_to_one_queries.tolist()


def test_tracing_changes_nothing_of_the_training(
    traced_run: tuple[Path, Any], run_dir: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    timing = {"images_per_second", "memory_mib", "cost"}
    traced, plain = (
        [{k: v for k, v in row.items() if k not in timing} for row in rows_of(run)]
        for run in (traced_run[0], run_dir)
    )
    assert traced == plain


def test_failing_trace_does_not_lose_the_training(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(MatchTrace, "save", fail)
    fields = ("inspection.trace_every_epoch=true", "train.epochs=1")
    done = train(tmp_path / "run", *(t for field in fields for t in ("--set", field)))
    assert done.code == 0
    assert "this epoch was not inspected: disk is full" in done.err


def test_candidates_of_a_trace_as_json(
    msdetr: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    done = msdetr("candidates", "--trace", trace, "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads((tmp_path / "out/summary.json").read_text())


def test_stability_of_a_traced_run(
    msdetr: Callable[..., Any], traced_run: tuple[Path, Any], tmp_path: Path
) -> None:
    output = tmp_path / "stability"
    done = msdetr("stability", traced_run[0], "--output", output)
    assert (done.code, done.err) == (0, "")
    rows = read_csv(output / "stability.csv")
    assert [(row["epoch"], row["layer"]) for row in rows] == [
        ("1", "0"),
        ("1", "1"),
        ("2", "0"),
        ("2", "1"),
    ]
    assert rows[0]["one_to_one_changed"] == ""
    for row in rows[2:]:
        assert 0 <= float(row["one_to_one_changed"]) <= 1
        assert 0 <= float(row["one_to_many_jaccard"]) <= 1
    assert Image.open(output / "stability.png").width > 1000
    assert "decoder layer 1" in (output / "stability.svg").read_text()
    done = msdetr("stability", traced_run[0], "--output", tmp_path / "again", "--json")
    assert [(row["epoch"], row["layer"]) for row in json.loads(done.out)] == [
        (int(row["epoch"]), int(row["layer"])) for row in rows
    ]


def test_run_without_traces_is_refused(
    refused_line: Callable[..., str], run_dir: Path, tmp_path: Path
) -> None:
    line = refused_line("stability", run_dir)
    assert "train with --set inspection.trace_every_epoch=true" in line
    assert "is no run directory" in refused_line("stability", tmp_path / "nothing")
