"""An assigner in a file of one's own, from outside the checkout: the example of the documents."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "nearest_centers.py"
KEY = "supervision.one_to_many.assigner"

Msdetr = Callable[..., Any]


def chosen(file: str = "nearest_centers.py", name: str = "NearestCenters", **options: Any) -> str:
    """The override that chooses a class of a file."""
    return f"{KEY}={json.dumps({'file': file, 'class': name, 'options': options})}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, which holds nothing but the example."""
    path = tmp_path_factory.mktemp("own")
    shutil.copy(EXAMPLE, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def run(folder: Path, train: Msdetr) -> Path:
    """A training run of the example."""
    done = train(folder / "run", "--set", chosen(k=3))
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="module")
def inspected(run: Path, msdetr: Msdetr) -> Path:
    """What inspect-matching writes of the run."""
    output = run.parent / "matching"
    done = msdetr("inspect-matching", "--ckpt", run, "--output", output, "--device", "cpu")
    assert done.code == 0, done.err
    assert "no positives: too far" in done.out
    return output


def test_example_is_about_40_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 48


def test_run_says_what_it_was_trained_with(run: Path) -> None:
    info = json.loads((run / "checkpoints" / "last" / "checkpoint.json").read_text())
    assert len(info["assigner"]["sha256"]) == 64
    assert info["recipe"]["supervision"]["one_to_many"]["assigner"]["class"] == "NearestCenters"
    assert "3 nearest centers within 0.25" in (run / "report.html").read_text()


def test_resumed_run_ends_in_the_same_bits(run: Path, folder: Path, train: Msdetr) -> None:
    options = ("--set", chosen(k=3))
    halfway = folder / "halfway"
    keep = ("--set", "train.keep_every_epochs=1")
    assert train(halfway, *options, *keep).code == 0
    first = halfway / "checkpoints" / "epoch_001"
    assert train(folder / "resumed", *options, *keep, "--resume-from", first).code == 0
    weights = [
        (path / "checkpoints" / "last" / "model.safetensors").read_bytes()
        for path in (run, halfway, folder / "resumed")
    ]
    assert weights[0] == weights[1] == weights[2]


def test_trace_has_table_pictures_and_page(inspected: Path) -> None:
    with (inspected / "assignments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["reason"] for row in rows} <= {"", "too_far", "over_k"}
    assert "over_k" in {row["reason"] for row in rows}
    assert all((row["paired"] == "1") == (row["reason"] == "") for row in rows)
    assert "candidate" not in rows[0]
    assert list((inspected / "pictures").glob("*_targets.png"))
    page = (inspected / "matching.html").read_text()
    assert "3 nearest centers within 0.25" in page
    assert 'id="set-k"' not in page


def test_stored_trace_needs_no_file(
    inspected: Path, msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    trace, output = inspected / "trace", tmp_path / "again"
    done = msdetr("inspect-matching", "--trace", trace, "--output", output)
    assert done.code == 0, done.err
    name = "assignments.csv"
    assert (output / name).read_bytes() == (inspected / name).read_bytes()
    sweep = msdetr("sweep-matching", "--trace", trace, "--k", "1,2", "--output", tmp_path / "sweep")
    assert (sweep.code, len(sweep.err.splitlines())) == (2, 1)
    assert "its assigner is NearestCenters, which has no settings to sweep" in sweep.err


def test_candidates_are_ranked_by_the_default_score(
    inspected: Path, msdetr: Msdetr, tmp_path: Path
) -> None:
    done = msdetr("candidates", "--trace", inspected / "trace", "--output", tmp_path / "best")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "best" / "summary.json").read_text())
    assert (summary["iou_weight"], summary["class_weight"]) == (0.7, 0.3)


def test_epochs_are_traced_with_what_was_read_at_the_start(
    folder: Path, train: Msdetr, msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_bytes((folder / "nearest_centers.py").read_bytes())
    # The file deletes itself: whoever reads it a second time fails.
    with (tmp_path / "own.py").open("a") as file:
        file.write("\nimport os\nos.unlink(__file__)\n")
    options = ("--set", chosen("own.py", k=3), "--set", "inspection.trace_every_epoch=true")
    done = train(tmp_path / "run", *options)
    assert done.code == 0, done.err
    done = msdetr("stability", tmp_path / "run", "--output", tmp_path / "stability")
    assert done.code == 0, done.err


def test_checkpoint_is_evaluated_and_checked_without_the_file(
    run: Path, msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = msdetr("eval", "--ckpt", run, "--output", tmp_path / "scores", "--device", "cpu")
    assert done.code == 0, done.err
    done = msdetr("data", "check", "shapes_tiny", *tiny, "--set", chosen())
    assert done.code == 0, done.err


def test_changed_file_is_refused_by_resuming_and_tracing(
    run: Path, folder: Path, train: Msdetr, msdetr: Msdetr, tmp_path: Path
) -> None:
    file = folder / "nearest_centers.py"
    original = file.read_bytes()
    file.write_bytes(original + b"\n# changed\n")
    try:
        trace = msdetr("inspect-matching", "--ckpt", run, "--output", tmp_path / "matching")
        resumed = train(tmp_path / "more", "--set", chosen(k=3), "--resume-from", run)
    finally:
        file.write_bytes(original)
    for done in (trace, resumed):
        assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
        assert "its SHA-256 was" in done.err
        assert "put the old file back" in done.err
    assert list(tmp_path.iterdir()) == []


RETURNS = "class A:\n    def assign(self, predictions, targets, u):\n        "
ROWS = """
import torch
from msdetr.structures import Assignment
def rows(**changes):
    index = dict.fromkeys(("layer", "image", "query", "target"), torch.zeros(2, dtype=torch.int64))
    kept = {"score": torch.zeros(2), "valid": torch.zeros(2, dtype=torch.bool)}
    return Assignment(**{**index, **kept, **changes})
"""
STRICT = (
    "from pydantic import BaseModel\nclass A:\n    class Options(BaseModel, extra='forbid'):\n"
    "        k: int = 1\n    def __init__(self, options): pass\n    assign = None\n"
)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, "wrong.py: cannot be read: No such file or directory"),
        ("def broken(:\n", "wrong.py: is no valid Python in line 1: "),
        ("import no_such_package\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("class Other:\n    pass\n", "wrong.py: has no class A; its classes are Other"),
        ("class A:\n    pass\n", "wrong.py: A: has no method assign(predictions, targets, u)"),
        (RETURNS + "pass\n    def __init__(self, m): pass\n", "options do not fit: TypeError: "),
        (
            STRICT.replace("assign = None", "def assign(self, predictions, targets, u): pass"),
            "options.radius: Extra inputs are not permitted, got 3",
        ),
        (RETURNS + "1 / 0\n", "wrong.py: A: assign: ZeroDivisionError: division by zero (line 3)"),
        (RETURNS + "return 5\n", "assign: must return an Assignment, got int"),
        (ROWS + RETURNS + "return rows(query=[1])\n", "must return tensors, but query is none"),
        (
            ROWS + RETURNS + "return rows(query=torch.zeros(3))\n",
            "assign: must return vectors of one length, got {",
        ),
        (ROWS + RETURNS + "return rows(query=torch.zeros(2))\n", "query as torch.int64, got"),
        (
            ROWS + RETURNS + "return rows(query=torch.full((2,), 99))\n",
            "assign: must return query in 0..19, got 99",
        ),
        (
            ROWS + RETURNS + "return rows(target=torch.full((2,), -1))\n",
            "assign: must return target in 0..",
        ),
        (
            ROWS + RETURNS + "return rows(valid=torch.ones(2, dtype=torch.bool), "
            "target=torch.full((2,), targets.labels.shape[1] - 1), "
            "image=targets.counts.argmin().expand(2))\n",
            "pairs a query with a padding target",
        ),
    ],
)
def test_every_way_to_be_wrong_is_said_in_one_line(
    train: Msdetr, tmp_path: Path, source: str | None, told: str
) -> None:
    file = tmp_path / "wrong.py"
    if source is not None:
        file.write_text(source)
    options = {"radius": 3} if "Options" in str(source) or "__init__" in str(source) else {}
    done = train(tmp_path / "run", "--set", chosen(str(file), "A", **options))
    assert done.code == 2, done.err
    [line] = [text for text in done.err.splitlines() if text.startswith("error: ")]
    assert told in line
    assert "Traceback" not in done.err
