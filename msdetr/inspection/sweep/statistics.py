"""What one-to-many supervision would be with other settings, for many settings at once.

Only matching is repeated, on predictions that stay as they are. The result therefore predicts
the supervision that a setting would give to this model, not the AP of a model trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from msdetr.assignment import OneToManyAssigner
from msdetr.errors import TraceError
from msdetr.inspection.rematch import check_assigner
from msdetr.inspection.sweep.scores import ChunkScores, TraceChunk, split_trace
from msdetr.inspection.trace import MatchTrace

LOW_IOU = 0.5

# Column by column what is summed over images, per setting and layer.
_SUMS = (
    "positives",
    "targets_without_positives",
    "iou",
    "probability",
    "low_iou",
    "conflicts",
    "duplicates",
    "images_capped",
    "queries_capped",
    "pairs_lost_to_cap",
    "targets_emptied_by_cap",
)


@dataclass(frozen=True)
class SweepGrid:
    """Settings to try: all combinations.

    Attributes:
        ks: Maximum queries per target.
        thresholds: Lowest scores of a positive.
        iou_weights: Factors of the IoU in the score; the class weight is 1 less it.
        max_positive_fraction: Share of the queries that may be positive; None for all.
    """

    ks: tuple[int, ...]
    thresholds: tuple[float, ...]
    iou_weights: tuple[float, ...]
    max_positive_fraction: float | None

    def settings(self) -> list[OneToManyAssigner]:
        """List all combinations, k running fastest, then the threshold."""
        return [
            self.setting(k, threshold, iou_weight)
            for iou_weight, threshold, k in product(self.iou_weights, self.thresholds, self.ks)
        ]

    def setting(self, k: int, threshold: float, iou_weight: float) -> OneToManyAssigner:
        """Return one combination."""
        return OneToManyAssigner(
            k=k,
            threshold=threshold,
            iou_weight=iou_weight,
            # Recipes round the same way.
            class_weight=round(1.0 - iou_weight, 12),
            max_positive_fraction=self.max_positive_fraction,
        )


@dataclass(frozen=True, eq=False)
class SweepStatistics:
    """Statistics of every setting G and decoder layer N.

    Attributes:
        settings: [G] in the order of ``SweepGrid.settings``.
        num_images: Images of the trace, those without targets included.
        num_targets: Targets of all images.
        histogram: [G, N, J + 1] int64, targets with 0, 1, ... positives.
        sums: By name, [G, N] float64, over all targets or images:
            ``positives``: pairs; ``targets_without_positives``; ``iou``, ``probability``: of the
            pairs; ``low_iou``: pairs with an IoU below 0.5; ``conflicts``: queries that serve two
            or more targets; ``duplicates``: pairs whose box has an IoU of at least 0.9 with a
            better pair of the same target; ``images_capped``: images with more positive queries
            than the cap allows; ``queries_capped``: positive queries that it removes;
            ``pairs_lost_to_cap``, ``targets_emptied_by_cap``: against the same setting without
            a cap.
    """

    settings: tuple[OneToManyAssigner, ...]
    num_images: int
    num_targets: int
    histogram: Tensor
    sums: dict[str, Tensor]


def sweep(trace: MatchTrace, grid: SweepGrid) -> SweepStatistics:
    """Repeat the one-to-many assignment of a trace with every setting of a grid.

    Scores are computed once per IoU weight, positives once per threshold; a smaller k takes the
    first of the queries of a larger one. Every assignment equals that of ``rematch``.

    Args:
        trace: Predictions to match.
        grid: Settings.

    Raises:
        TraceError: The trace holds no targets.
        UsageError: A k exceeds the number of queries.
    """
    settings = grid.settings()
    for setting in settings:
        check_assigner(setting, trace.info.num_queries)
    num_targets = sum(image.num_targets for image in trace.images)
    if num_targets == 0:
        raise TraceError(
            trace.info.annotations_file, "no image of the trace has targets: nothing to match"
        )
    shape = (len(settings), trace.info.num_layers)
    result = SweepStatistics(
        settings=tuple(settings),
        num_images=len(trace.images),
        num_targets=num_targets,
        histogram=torch.zeros(*shape, max(grid.ks) + 1, dtype=torch.int64),
        sums={name: torch.zeros(shape, dtype=torch.float64) for name in _SUMS},
    )
    for chunk in split_trace(trace):
        for index, values in enumerate(_statistics_of(chunk, grid)):
            result.histogram[index] += values.histogram
            for name, value in values.sums.items():
                result.sums[name][index] += value
    return result


@dataclass(frozen=True, eq=False)
class _Values:
    histogram: Tensor
    sums: dict[str, Tensor]


def _statistics_of(chunk: TraceChunk, grid: SweepGrid) -> Iterator[_Values]:
    """Compute statistics of a few images, setting by setting."""
    for iou_weight in grid.iou_weights:
        rule = grid.setting(max(grid.ks), grid.thresholds[0], iou_weight)
        scores = ChunkScores.of(chunk, rule)
        prefixes = _prefix_sums(chunk, scores)
        for threshold in grid.thresholds:
            counts = PositiveCounts.of(chunk, scores, threshold, grid.max_positive_fraction)
            for k in grid.ks:
                yield _values(scores, prefixes, counts, k, max(grid.ks))


@dataclass(frozen=True, eq=False)
class PositiveCounts:
    """Positives per target [N, R], with and without the cap, and what the cap removes [N]."""

    kept: Tensor
    uncapped: Tensor
    images_capped: Tensor
    queries_capped: Tensor

    @classmethod
    def of(
        cls, chunk: TraceChunk, scores: ChunkScores, threshold: float, fraction: float | None
    ) -> PositiveCounts:
        """Count the positives of a threshold; ``fraction`` is the cap."""
        positive = (scores.candidate_score >= threshold) | scores.forced
        uncapped = scores.count_by_candidate(positive)
        limit = chunk.num_queries
        if fraction is not None:
            limit = math.floor(fraction * chunk.num_queries)
        excess = (positive.sum(dim=2) - limit).clamp_(min=0)
        kept = uncapped
        if bool(excess.any()):
            kept = scores.count_by_candidate(_first_by_u(positive, chunk.u_order, limit))
        return cls(kept, uncapped, (excess > 0).sum(dim=1), excess.sum(dim=1))


def _first_by_u(positive: Tensor, u_order: Tensor, limit: int) -> Tensor:
    """Return the ``limit`` positives [N, I, Q] of every image with the smallest u."""
    ordered = positive.gather(2, u_order)
    ordered &= ordered.cumsum(dim=2) <= limit
    return torch.zeros_like(positive).scatter_(2, u_order, ordered)


def _prefix_sums(chunk: TraceChunk, scores: ChunkScores) -> dict[str, Tensor]:
    """Return sums [N, R, J + 1] over the first 0, 1, ..., J queries of every target."""
    iou = chunk.iou.gather(2, scores.best_queries)
    values = {
        "iou": iou.double(),
        "probability": chunk.probability.gather(2, scores.best_queries).double(),
        "low_iou": (iou < LOW_IOU).double(),
        "duplicates": chunk.repeats(scores.best_queries).double(),
    }
    zero = torch.zeros(*iou.shape[:2], 1, dtype=torch.float64)
    return {name: torch.cat([zero, v.cumsum(dim=2)], dim=2) for name, v in values.items()}


def _values(
    scores: ChunkScores, prefixes: dict[str, Tensor], counts: PositiveCounts, k: int, largest: int
) -> _Values:
    pairs, uncapped = counts.kept.clamp(max=k), counts.uncapped.clamp(max=k)
    empty = pairs == 0
    sums = {
        name: prefix.gather(2, pairs[..., None])[..., 0].sum(dim=1)
        for name, prefix in prefixes.items()
    }
    sums |= {
        "positives": pairs.sum(dim=1),
        "targets_without_positives": empty.sum(dim=1),
        "conflicts": scores.count_conflicts(pairs),
        "images_capped": counts.images_capped,
        "queries_capped": counts.queries_capped,
        "pairs_lost_to_cap": (uncapped - pairs).sum(dim=1),
        "targets_emptied_by_cap": (empty & (uncapped > 0)).sum(dim=1),
    }
    layers = torch.arange(len(pairs))[:, None] * (largest + 1)
    histogram = torch.bincount((pairs + layers).flatten(), minlength=len(pairs) * (largest + 1))
    return _Values(histogram.view(len(pairs), -1), sums)


def quantile_of_counts(histogram: Sequence[int], q: float) -> int:
    """Find the smallest count that at least a share ``q`` of all targets do not exceed.

    Args:
        histogram: Targets with 0, 1, ... positives; not all zero.
        q: In 0..1.
    """
    needed, seen = q * sum(histogram), 0
    for count, number in enumerate(histogram):
        seen += number
        if seen >= needed and seen > 0:
            return count
    return len(histogram) - 1
