"""Assignments recomputed from traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from msdetr.errors import UsageError
from msdetr.inspection.rematch import ImageMatching, rematch

Scene = Any
Pairs = set[tuple[int, int, int, int]]

SCENES: list[dict[str, Any]] = [
    {},
    {"seed": 1, "max_positive_fraction": None},
    {"seed": 2, "max_positive_fraction": 0.1, "threshold": 0.1},
    {"seed": 3, "copies": 4, "threshold": 0.2},
    {"seed": 4, "k": 1, "threshold": 0.0},
    {"seed": 5, "k": 40, "iou_weight": 0.0, "class_weight": 1.0},
    {"seed": 6, "num_layers": 6, "num_queries": 300, "counts": (20, 1, 0, 7)},
    {"seed": 7, "has_one_to_many": False},
    {"seed": 8, "num_queries": 4, "counts": (6, 2)},
]


def pairs_in(marked: torch.Tensor, image_id: int) -> Pairs:
    return {(image_id, *place) for place in marked.nonzero().tolist()}  # type: ignore[misc]


@pytest.mark.parametrize("options", SCENES)
def test_rematching_repeats_the_assigners_on_the_whole_batch(
    scene: Scene, pairs_of_batch: Callable[[Any], dict[str, Pairs]], options: dict[str, Any]
) -> None:
    made = scene(**options)
    expected = pairs_of_batch(made)
    for name in ("one_to_one", "one_to_many"):
        found: Pairs = set()
        for image in made.trace.images:
            matching = rematch(image, made.trace.info.one_to_many)
            found |= pairs_in(getattr(matching, name), image.image_id)
            assert torch.equal(matching.one_to_one_queries, image.one_to_one_queries)
            assert torch.equal(matching.one_to_many_queries, image.one_to_many_queries)
        assert found == expected[name]


@pytest.mark.parametrize(
    "change",
    [
        {"k": 1},
        {"threshold": 0.65},
        {"iou_weight": 0.2, "class_weight": 0.8},
        {"max_positive_fraction": 0.05},
        {"max_positive_fraction": None},
    ],
)
def test_other_settings_give_what_their_assigner_gives(
    scene: Scene, change: dict[str, Any]
) -> None:
    made = scene(seed=11)
    rule = replace(made.trace.info.one_to_many, **change)
    rows = rule.assign(made.output.one_to_many, made.targets, made.u)
    for index, image in enumerate(made.trace.images):
        chosen = rows.valid & (rows.image == index)
        columns = torch.stack([rows.layer, rows.target, rows.query], dim=1)[chosen]
        expected = {(image.image_id, *row) for row in columns.tolist()}
        assert pairs_in(rematch(image, rule).one_to_many, image.image_id) == expected


def test_scores_are_the_assigners_own(scene: Scene) -> None:
    made = scene(seed=12, counts=(4,))
    rule = made.trace.info.one_to_many
    scores = rule.scores(made.output.one_to_many, made.targets)[:, 0]
    assert torch.equal(rematch(made.trace.images[0], rule).scores, scores)


def expected_reason(matching: ImageMatching, layer: int, target: int, query: int, k: int) -> str:
    """The definition, row by row."""
    if matching.one_to_many[layer, target, query]:
        return ""
    candidate = int(matching.explanation.query_columns["candidate"][layer, query])
    if candidate != target:
        return f"lost_to_target:{candidate}"
    if matching.explanation.query_columns["capped"][layer, query]:
        return "dropped_by_cap"
    if not matching.explanation.query_columns["above_threshold"][layer, query]:
        return "below_threshold"
    rank = int(matching.ranks[layer, target, query])
    if rank > int(matching.explanation.target_columns["num_positives"][layer, target]):
        return "beyond_count"
    assert rank > k
    return "over_k"


def test_reasons_are_the_first_that_holds(scene: Scene) -> None:
    seen: set[str] = set()
    for seed in range(4):
        made = scene(seed=seed, k=3, threshold=0.45, copies=2)
        for image in made.trace.images:
            matching = rematch(image, made.trace.info.one_to_many)
            sizes = matching.explanation.reason.shape
            for place in torch.cartesian_prod(*map(torch.arange, sizes)).tolist():
                layer, target, query = place
                found = matching.reason(layer, target, query)
                text = "" if found is None else found.code
                assert text == expected_reason(matching, layer, target, query, 3)
                seen.add(text.split(":")[0])
    assert seen == {
        "",
        "lost_to_target",
        "dropped_by_cap",
        "below_threshold",
        "beyond_count",
        "over_k",
    }


def test_ranks_order_by_score_then_query(scene: Scene) -> None:
    made = scene(seed=5, copies=4, counts=(3,))
    matching = rematch(made.trace.images[0], made.trace.info.one_to_many)
    for layer, target in ((0, 0), (1, 2)):
        scores = matching.scores[layer, target].tolist()
        expected = sorted(range(len(scores)), key=lambda q: (-scores[q], q))
        assert matching.ranks[layer, target].argsort().tolist() == expected


def test_image_without_targets_has_no_candidates(scene: Scene) -> None:
    made = scene(counts=(2, 0))
    matching = rematch(made.trace.images[1], made.trace.info.one_to_many)
    assert matching.explanation.reason.shape == (2, 0, 40)
    assert matching.explanation.query_columns["candidate"].unique().tolist() == [-1]
    assert not matching.explanation.query_columns["above_threshold"].any()


def test_more_positives_than_queries_are_refused(scene: Scene) -> None:
    made = scene()
    with pytest.raises(UsageError, match="is 41, but the model has only 40 queries"):
        rematch(made.trace.images[0], replace(made.trace.info.one_to_many, k=41))
