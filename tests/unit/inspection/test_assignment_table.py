"""The table of assignments."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from msdetr.inspection.assignment_table import AssignmentTable, assignment_rows, own_columns
from msdetr.inspection.rematch import rematch

Scene = Any
Pairs = set[tuple[int, int, int, int]]


def rows_of(made: Any, *, top: int, layers: range | None = None) -> list[dict[str, str]]:
    """Write the table, and read it with nothing but a CSV reader."""
    file = io.StringIO(newline="")
    info = made.trace.info
    table = AssignmentTable(file, own_columns(info))
    for image in made.trace.images:
        matching = rematch(image, info.one_to_many)
        chosen = layers or range(info.num_layers)
        table.write(assignment_rows(image, matching, info, layers=chosen, top=top))
    file.seek(0)
    return list(csv.DictReader(file))


def pairs_where(rows: list[dict[str, str]], column: str) -> Pairs:
    keys = ("image", "layer", "target", "query")
    return {tuple(int(row[key]) for key in keys) for row in rows if row[column] == "1"}  # type: ignore[misc]


@pytest.mark.parametrize("top", [0, 5, 40])
@pytest.mark.parametrize(
    "options", [{}, {"copies": 4, "seed": 1}, {"has_one_to_many": False}, {"counts": (9, 9)}]
)
def test_rows_reproduce_the_assigners_output(
    scene: Scene,
    pairs_of_batch: Callable[[Any], dict[str, Pairs]],
    options: dict[str, Any],
    top: int,
) -> None:
    made = scene(**options)
    rows, expected = rows_of(made, top=top), pairs_of_batch(made)
    for branch in ("one_to_one", "one_to_many"):
        assert pairs_where(rows, branch) == expected[branch]
    assert pairs_where(rows, "paired") == expected["one_to_many"]
    assert all((row["paired"] == "1") == (row["reason"] == "") for row in rows)


def test_states_and_scores_are_those_of_the_assigners_steps(scene: Scene) -> None:
    made = scene(seed=2, max_positive_fraction=0.1)
    steps = made.trace.info.one_to_many.steps(made.output.one_to_many, made.targets, made.u)
    rows = rows_of(made, top=40)
    assert len(rows) == 2 * 40 * 9
    for row in rows:
        layer, target, query = (int(row[key]) for key in ("layer", "target", "query"))
        batch = int(row["image"]) // 10 - 1
        place = (layer, batch, query)
        assert int(row["candidate"]) == steps.candidate[place]
        for column in ("above_threshold", "forced", "capped"):
            assert (row[column] == "1") == bool(getattr(steps, column)[place])
        assert int(row["num_positives"]) == steps.num_positives[layer, batch, target]
        score = steps.scores[layer, batch, target, query].numpy()
        assert np.float32(row["score"]) == score
        parts = 0.7 * float(row["iou"]) + 0.3 * float(row["probability"])
        assert float(row["score"]) == pytest.approx(parts, abs=1e-6)


def test_hungarian_cost_follows_from_its_columns(scene: Scene) -> None:
    for row in rows_of(scene(seed=4), top=10):
        p = float(row["one_to_one_probability"])
        focal = -0.25 * (1 - p) ** 2 * np.log(p) + 0.75 * p**2 * np.log(1 - p)
        l1, giou = float(row["one_to_one_l1"]), float(row["one_to_one_giou"])
        assert float(row["hungarian_cost"]) == pytest.approx(
            2 * focal + 5 * l1 - 2 * giou, abs=1e-4
        )


def test_rows_come_by_target_and_rank_and_name_their_target(scene: Scene) -> None:
    rows = rows_of(scene(), top=3, layers=range(1, 2))
    keys = [tuple(int(row[k]) for k in ("image", "layer", "target", "rank")) for row in rows]
    assert keys == sorted(keys)
    assert {key[1] for key in keys} == {1}
    ranks = [key[3] for key in keys if key[:3] == (30, 1, 2)]
    assert ranks[:3] == [1, 2, 3]
    named = {(r["image"], r["target"]): (r["annotation_id"], r["category"]) for r in rows}
    assert named["30", "2"][0] == "202"
    assert all(category.startswith("class, ") for _, category in named.values())
    own = ["candidate", "above_threshold", "forced", "capped", "num_positives"]
    assert list(rows[0])[-7:] == ["paired", *own, "reason"]
    assert len(rows[0]) == 27
