"""Statistics of assignments, against counting by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from msdetr.inspection.rematch import rematch
from msdetr.inspection.summary import MatchingSummary, Spread, SummaryBuilder
from msdetr.inspection.summary_table import summary_table
from msdetr.inspection.trace import MatchTrace

Scene = Any
Pairs = set[tuple[int, int, int, int]]


def summary_of(trace: MatchTrace) -> MatchingSummary:
    builder = SummaryBuilder(trace.info, range(trace.info.num_layers))
    for image in trace.images:
        builder.add(image, rematch(image, trace.info.one_to_many))
    return builder.build()


@pytest.mark.parametrize("options", [{"seed": 0}, {"seed": 1, "max_positive_fraction": 0.1}])
def test_counts_are_those_of_the_assigners_output(
    scene: Scene, pairs_of_batch: Callable[[Any], dict[str, Pairs]], options: dict[str, Any]
) -> None:
    made = scene(**options)
    pairs, summary = pairs_of_batch(made), summary_of(made.trace)
    targets = [(i.image_id, t) for i in made.trace.images for t in range(i.num_targets)]
    assert (summary.num_images, summary.num_targets) == (3, 9)
    for layer in summary.layers:
        many = {(i, t, q) for i, n, t, q in pairs["one_to_many"] if n == layer.layer}
        one = {(i, t, q) for i, n, t, q in pairs["one_to_one"] if n == layer.layer}
        per_target = Counter((i, t) for i, t, _ in many)
        counts = [per_target[target] for target in targets]
        assert layer.positives_per_target == Spread.of(np.array(counts))
        assert sum(layer.targets_without_positives.values()) == counts.count(0)
        per_query = Counter((i, q) for i, _, q in many)
        assert layer.positive_queries == len(per_query)
        assert layer.queries_with_two_targets == sum(n > 1 for n in per_query.values())
        assert layer.one_to_one_also_one_to_many == pytest.approx(len(one & many) / len(one))
        label = {
            (i.image_id, t): int(i.labels[t])
            for i in made.trace.images
            for t in range(len(i.labels))
        }
        taught = {(i, q, label[i, t]) for i, t, q in one}
        background = sum((i, q, label[i, t]) not in taught for i, t, q in many)
        assert layer.positives_trained_as_background == pytest.approx(background / len(many))


def test_ranks_losses_and_cap(scene: Scene) -> None:
    made = scene(seed=1, max_positive_fraction=0.1, threshold=0.2)
    trace = made.trace
    info = trace.info
    steps = info.one_to_many.steps(made.output.one_to_many, made.targets, made.u)
    terms = made.criterion(made.output, made.targets, num_targets=9.0, u=made.u)
    for layer in summary_of(trace).layers:
        capped = steps.capped[layer.layer]
        assert layer.positives_dropped_by_cap == int(capped.sum()) > 0
        assert layer.images_at_cap == int(capped.any(dim=1).sum())
        ranks = [
            1 + int((m.scores[layer.layer, t] > m.scores[layer.layer, t, q]).sum())
            for m in (rematch(i, info.one_to_many) for i in trace.images)
            for t, q in enumerate(m.one_to_one_queries[layer.layer].tolist())
        ]
        assert layer.rank_of_one_to_one == Spread.of(np.array(ranks))
        assert layer.one_to_one_at_rank_1 == pytest.approx(ranks.count(1) / len(ranks))
        masses = {
            branch: sum(
                float(term.value) * term.weight
                for term in terms
                if (term.branch, term.layer) == (branch, layer.layer)
            )
            for branch in ("one_to_one", "one_to_many")
        }
        assert layer.loss_one_to_one == pytest.approx(masses["one_to_one"], rel=1e-5)
        assert layer.loss_ratio == pytest.approx(
            masses["one_to_many"] / masses["one_to_one"], rel=1e-5
        )


def test_causes_tell_the_cap_from_lost_candidates(scene: Scene) -> None:
    """Without a cap nothing is lost to it; with a tight one the difference is."""
    causes = []
    for fraction in (None, 0.03):
        trace = scene(seed=1, counts=(9, 9), max_positive_fraction=fraction, threshold=0.2).trace
        causes.append(summary_of(trace).layers[0].targets_without_positives)
    assert causes[0]["dropped_by_cap"] == 0
    assert causes[1]["dropped_by_cap"] > 0


def test_sizes_divide_the_targets(scene: Scene) -> None:
    layer = summary_of(scene().trace).layers[0]
    assert sum(s.count for s in layer.positives_per_target_by_size.values()) == 9
    assert Spread.of(np.array([])) == Spread(0, None, None, None)


@pytest.mark.parametrize("change", [{"shares_class_head": False}, {"has_one_to_many": False}])
def test_background_needs_a_shared_head(scene: Scene, change: dict[str, Any]) -> None:
    trace = scene().trace
    changed = MatchTrace(replace(trace.info, **change), trace.images)
    assert summary_of(changed).layers[0].positives_trained_as_background is None


def test_summary_is_json_and_fits_a_terminal(scene: Scene) -> None:
    trace = scene(num_layers=6).trace
    summary = summary_of(trace)
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))["num_targets"] == 9
    out = StringIO()
    table = summary_table(summary)
    Console(file=out, width=80).print(table)
    lines = out.getvalue().splitlines()
    assert sum("…" in line for line in lines) == 0
    # Title, heading and rule; no row takes a second line.
    assert len([line for line in lines if line.strip()]) == 3 + table.row_count
