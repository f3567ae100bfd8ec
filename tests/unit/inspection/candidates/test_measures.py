"""Candidates: the best queries of targets and their measures."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.errors import TraceError
from msdetr.inspection.candidates.measures import (
    MEASURES,
    MeasuredTrace,
    check_same_targets,
    find_candidates,
    measure,
    write_candidates_csv,
)
from msdetr.inspection.rematch import rematch


def test_order_is_that_of_the_one_to_many_assignment(scene: Callable[..., Any]) -> None:
    trace = scene(copies=2).trace
    for image in trace.images:
        found = find_candidates(image, "one_to_many", trace.info.one_to_many)
        matching = rematch(image, trace.info.one_to_many)
        assert found.queries.shape[2] == 20
        ranks = matching.ranks.gather(2, found.queries)
        assert (ranks == torch.arange(1, 21)).all()
        assert torch.equal(found.scores, matching.scores.gather(2, found.queries))


def test_measures_are_means_and_counts_of_the_first(scene: Callable[..., Any]) -> None:
    trace = scene(num_queries=12).trace  # fewer than 20 queries
    image = trace.images[2]
    found = find_candidates(image, "one_to_one", trace.info.one_to_many)
    values = measure(found)
    assert values.shape == (2, 6, len(MEASURES))
    for layer, target in ((0, 0), (1, 5)):
        row = dict(zip(MEASURES, values[layer, target].tolist(), strict=True))
        iou = found.iou[layer, target].tolist()
        probability = found.probability[layer, target].tolist()
        assert row["iou_at_1"] == pytest.approx(iou[0])
        assert row["iou_at_5"] == pytest.approx(sum(iou[:5]) / 5)
        assert row["iou_at_20"] == pytest.approx(sum(iou) / 12)
        assert row["probability_at_10"] == pytest.approx(sum(probability[:10]) / 10)
        assert row["num_iou_0.5"] == sum(v >= 0.5 for v in iou)
        assert row["num_iou_0.75"] == sum(v >= 0.75 for v in iou)


def test_csv_has_a_row_per_model_target_layer_and_branch(
    scene: Callable[..., Any], tmp_path: Path
) -> None:
    with_both, with_one = scene().trace, scene(has_one_to_many=False).trace
    rule = with_both.info.one_to_many
    models = [MeasuredTrace.of("A", with_both, rule), MeasuredTrace.of("B", with_one, rule)]
    write_candidates_csv(tmp_path / "candidates.csv", models)
    with (tmp_path / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    # 9 targets, 2 layers; a baseline has one branch.
    assert [row["branch"] for row in rows if row["model"] == "B"] == ["one_to_one"] * 18
    assert sum(row["model"] == "A" for row in rows) == 36
    assert {row["annotation_id"] for row in rows} == {
        str(int(i)) for image in with_both.images for i in image.annotation_ids
    }
    assert set(MEASURES) <= set(rows[0])


def test_traces_of_other_targets_are_not_compared(scene: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match="other images or targets"):
        check_same_targets(scene().trace, scene(counts=(3, 0, 5)).trace)
