"""What an assigner from a file may leave out, and what its explanation is held to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msdetr.assignment.own_file import FileAssigner, load_assigner
from msdetr.errors import AssignerError
from msdetr.structures import Predictions, Targets

HEAD = """
import torch
from msdetr.assignment.rows import rows_of_targets
from msdetr.structures import Explanation, Reason

class A:
    def assign(self, predictions, targets, u):
        query = torch.zeros(2, 1, 2, 1, dtype=torch.int64)
        return rows_of_targets(query, query.float(), targets.valid.expand(2, 1, 2)[..., None])
"""
PAIRED = "        paired = torch.tensor([True, False, False]).expand(2, 1, 2, 3)\n"
EXPLAIN = "    def explain(self, predictions, targets, u):\n" + PAIRED
REASONS = "reasons=(Reason('no', 'no'),)"


@pytest.fixture
def load(tmp_path: Path) -> object:
    def make(source: str, **options: object) -> FileAssigner:
        file = tmp_path / "own.py"
        file.write_text(source)
        return load_assigner(file, "A", options)

    return make


def scene() -> tuple[Predictions, Targets, torch.Tensor]:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]])
    targets = Targets.from_lists([boxes], [torch.zeros(2, dtype=torch.int64)])
    predictions = Predictions(torch.zeros(2, 1, 3, 1), torch.full((2, 1, 3, 4), 0.5))
    return predictions, targets, torch.zeros(2, 1, 3)


def test_defaults(load: object) -> None:
    assert callable(load)
    assigner = load(HEAD)
    assert assigner.describe() == "A"
    assert assigner.draws_u
    assert assigner.max_positives(30) is None
    explained = assigner.explain(*scene())
    assert explained.paired[0, 0].tolist() == [[True, False, False]] * 2
    assert explained.reason[0, 0].tolist() == [[0, 1, 1]] * 2
    assert explained.reasons[0].words == "not paired"


def test_own_words_are_asked_for(load: object) -> None:
    assert callable(load)
    own = "    draws_u = False\n    def describe(self): return 'mine'\n"
    own += "    def max_positives(self, num_queries): return num_queries // 2\n"
    assigner = load(HEAD + own)
    assert (assigner.describe(), assigner.draws_u, assigner.max_positives(7)) == ("mine", False, 3)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (EXPLAIN + "        return None\n", "explain: must return an Explanation, got NoneType"),
        (
            EXPLAIN + "        return Explanation(score=paired.float(), paired=~paired, "
            f"reason=(~paired).long(), {REASONS})\n",
            "explain: names other pairs than assign does",
        ),
        (
            EXPLAIN + "        return Explanation(score=paired.float()[0], paired=paired, "
            f"reason=(~paired).long(), {REASONS})\n",
            r"explain: must return score as \[2, 1, 2, 3\], got \[1, 2, 3\]",
        ),
        (
            EXPLAIN + "        return Explanation(score=paired.float(), paired=paired, "
            f"reason=paired.long(), {REASONS})\n",
            "must give pairs the reason 0, and no other query",
        ),
        (
            EXPLAIN + "        return Explanation(score=paired.float(), paired=paired, "
            f"reason=(~paired).long() * 2, {REASONS})\n",
            "explain: has no reason 2",
        ),
        (
            EXPLAIN + "        return Explanation(score=paired.float(), paired=paired, "
            "reason=(~paired).long(), reasons=(Reason('to:{other}', 'no'),))\n",
            r"has a text that names no column: 'to:\{other\}'",
        ),
        (
            EXPLAIN + "        return Explanation(score=paired.float(), paired=paired, "
            "reason=(~paired).long(), reasons=('no',))\n",
            "explain: AttributeError: 'str' object has no attribute 'code'",
        ),
        ("    def describe(self): raise RuntimeError('a\\nb')\n", r"describe: RuntimeError: a \("),
        ("    def max_positives(self, n): return 'x'\n", "max_positives: must return an integer"),
    ],
)
def test_wrong_explanations_are_one_line(load: object, source: str, told: str) -> None:
    assert callable(load)
    assigner = load(HEAD + source)

    def ask() -> None:
        assigner.explain(*scene())
        assigner.describe()
        assigner.max_positives(3)

    with pytest.raises(AssignerError, match=told) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_description_is_one_line(load: object) -> None:
    assert callable(load)
    assert load(HEAD + "    def describe(self): return 'a\\n  b'\n").describe() == "a b"


def test_file_that_exits_is_refused(load: object) -> None:
    assert callable(load)
    with pytest.raises(AssignerError, match="cannot be imported: SystemExit: 3"):
        load("import sys\nsys.exit(3)\n")


def test_later_edits_do_not_reach_a_loaded_assigner(load: object, tmp_path: Path) -> None:
    assert callable(load)
    assigner = load(HEAD)
    (tmp_path / "own.py").write_text("raise RuntimeError\n")
    assert assigner.assign(*scene()).valid.all()
