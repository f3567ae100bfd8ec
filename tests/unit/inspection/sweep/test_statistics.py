"""Sweeps: every setting gives exactly what re-matching with it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.errors import TraceError, UsageError
from msdetr.inspection.rematch import rematch
from msdetr.inspection.sweep import scores as sweep_scores
from msdetr.inspection.sweep.scores import ChunkScores, TraceChunk
from msdetr.inspection.sweep.statistics import PositiveCounts, SweepGrid, quantile_of_counts, sweep
from msdetr.inspection.trace import MatchTrace

GRID = SweepGrid(
    ks=(1, 3, 8),
    thresholds=(0.0, 0.4, 0.55),
    iou_weights=(0.0, 0.35, 0.7, 1.0),
    max_positive_fraction=0.1,
)
SCENES = [
    {"seed": 1},
    {"seed": 2, "copies": 2},
    {"seed": 3, "has_one_to_many": False, "counts": (1, 9)},
]


def expected_sums(trace: MatchTrace, setting: Any) -> dict[str, torch.Tensor]:
    """The sums of one setting, image by image and pair by pair."""
    names = (
        *("positives", "targets_without_positives", "iou", "probability", "low_iou", "conflicts"),
        *("duplicates", "images_capped", "queries_capped", "pairs_lost_to_cap"),
        "targets_emptied_by_cap",
    )
    sums = {name: torch.zeros(trace.info.num_layers, dtype=torch.float64) for name in names}
    for image in trace.images:
        found = rematch(image, setting)
        free = rematch(image, replace(setting, max_positive_fraction=None))
        pairs, counts = found.one_to_many, found.one_to_many.sum(dim=2)
        sums["positives"] += counts.sum(dim=1)
        sums["targets_without_positives"] += (counts == 0).sum(dim=1)
        sums["iou"] += (found.iou.double() * pairs).sum(dim=(1, 2))
        sums["probability"] += (image.one_to_many.probabilities.double() * pairs).sum(dim=(1, 2))
        sums["low_iou"] += ((found.iou < 0.5) & pairs).sum(dim=(1, 2))
        sums["conflicts"] += (pairs.sum(dim=1) > 1).sum(dim=1)
        sums["images_capped"] += found.explanation.query_columns["capped"].any(dim=1)
        sums["queries_capped"] += found.explanation.query_columns["capped"].sum(dim=1)
        lost = free.one_to_many.sum(dim=2) - counts
        sums["pairs_lost_to_cap"] += lost.sum(dim=1)
        sums["targets_emptied_by_cap"] += ((counts == 0) & (lost > 0)).sum(dim=1)
        for layer, queries in enumerate(found.one_to_many_queries):
            boxes = cxcywh_to_xyxy(image.one_to_many.boxes_cxcywh[layer])
            for row in queries:
                used = boxes[row[row >= 0]]
                iou, _ = iou_and_giou(used[:, None], used[None])
                sums["duplicates"][layer] += sum(
                    bool((iou[i, :i] >= 0.9).any()) for i in range(len(used))
                )
    return sums


@pytest.mark.parametrize("options", SCENES, ids=str)
def test_statistics_equal_those_of_rematching(options: Any, scene: Callable[..., Any]) -> None:
    trace = scene(**options).trace
    statistics = sweep(trace, GRID)
    assert list(statistics.settings) == GRID.settings()
    assert len(statistics.settings) == 36
    assert float(statistics.sums["images_capped"].sum()) > 0
    for index, setting in enumerate(statistics.settings):
        expected = expected_sums(trace, setting)
        assert set(expected) == set(statistics.sums)
        for name, value in expected.items():
            torch.testing.assert_close(
                statistics.sums[name][index], value, rtol=1e-12, atol=1e-12, msg=name
            )


@pytest.mark.parametrize("options", SCENES, ids=str)
def test_pairs_equal_those_of_rematching(options: Any, scene: Callable[..., Any]) -> None:
    trace = scene(**options).trace
    chunk = TraceChunk.of(tuple(image for image in trace.images if image.num_targets))
    for setting in GRID.settings():
        scores = ChunkScores.of(chunk, replace(setting, k=max(GRID.ks)))
        counts = PositiveCounts.of(chunk, scores, setting.threshold, setting.max_positive_fraction)
        slots = torch.arange(max(GRID.ks))
        used = slots < counts.kept.clamp(max=setting.k)[..., None]
        pairs = torch.where(used, scores.best_queries, -1)[..., : setting.k]
        expected = [rematch(image, setting).one_to_many_queries for image in chunk.images]
        assert torch.equal(pairs, torch.cat(expected, dim=1))


def test_histogram_counts_every_target(scene: Callable[..., Any]) -> None:
    trace = scene(seed=4).trace
    statistics = sweep(trace, GRID)
    counts = torch.arange(statistics.histogram.shape[2])
    assert (statistics.histogram.sum(dim=2) == statistics.num_targets).all()
    assert torch.equal(
        (statistics.histogram * counts).sum(dim=2).double(), statistics.sums["positives"]
    )


def test_size_of_chunks_changes_nothing(
    scene: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = scene(seed=5, counts=(3, 0, 6, 2)).trace
    whole = sweep(trace, GRID)
    monkeypatch.setattr(sweep_scores, "_PAIRS_PER_CHUNK", 1)
    assert len(list(sweep_scores.split_trace(trace))) == 3
    parts = sweep(trace, GRID)
    assert torch.equal(whole.histogram, parts.histogram)
    for name, value in whole.sums.items():
        torch.testing.assert_close(parts.sums[name], value)


def test_more_queries_per_target_than_there_are_is_refused(scene: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="41"):
        sweep(scene().trace, replace(GRID, ks=(41,)))


def test_trace_without_targets_is_refused(scene: Callable[..., Any]) -> None:
    trace = scene(counts=(2, 0)).trace.select([20])
    with pytest.raises(TraceError, match="no image of the trace has targets"):
        sweep(trace, GRID)


@pytest.mark.parametrize(
    ("histogram", "q", "expected"),
    [
        ([10, 0, 0], 0.9, 0),
        ([1, 8, 1], 0.1, 0),
        ([1, 8, 1], 0.9, 1),
        ([0, 0, 5], 0.1, 2),
        ([5, 5], 0.5, 0),
    ],
)
def test_quantile_of_counts(histogram: list[int], q: float, expected: int) -> None:
    assert quantile_of_counts(histogram, q) == expected
