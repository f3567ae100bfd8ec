"""COCO's metrics of images that count several times or not at all.

A weight of 2 on an image does what a second copy of it in the data set would do, to the bit: the
numbers are those of an accumulation over all detections, not means of numbers per image.

Letters: S sets of weights, I images, D detections of a class, P of them matched, R recall
thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdetr.evaluation.coco import mean_defined
from msdetr.evaluation.image_matches import ClassMatches, ImageMatches
from msdetr.evaluation.metrics import SUMMARY_KEYS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Elements of the largest array, so that 1,000 resamples of a large data set fit into memory.
_MAX_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class MetricSlice:
    """What one of the twelve numbers is the mean of.

    Attributes:
        is_recall: Of maximum recalls; of precisions otherwise.
        area: Area range.
        limit: Position in ``max_detections``.
        iou: The only IoU threshold; None for all.
    """

    is_recall: bool = False
    area: str = "all"
    limit: int = 2
    iou: float | None = None


METRIC_SLICES: dict[str, MetricSlice] = dict(
    zip(
        SUMMARY_KEYS,
        (
            MetricSlice(),
            *(MetricSlice(iou=iou) for iou in (0.5, 0.75)),
            *(MetricSlice(area=area) for area in ("small", "medium", "large")),
            *(MetricSlice(is_recall=True, limit=limit) for limit in range(3)),
            *(MetricSlice(is_recall=True, area=area) for area in ("small", "medium", "large")),
        ),
        strict=True,
    )
)


def weighted_metric(matches: ImageMatches, weights: Integers, metric: str = "ap") -> Floats:
    """Compute a metric under many sets of weights on the images.

    Args:
        matches: Of one model.
        weights: [S, I] how often every image counts, from 0.
        metric: One of ``SUMMARY_KEYS``.

    Returns:
        [S] values in 0..1; NaN where no ground truth has any weight.

    Raises:
        KeyError: The metric is unknown.
    """
    which = METRIC_SLICES[metric]
    at = _thresholds(matches, which.iou)
    limit = matches.max_detections[which.limit]
    columns = [
        _class_values(of_class.limited(limit), weights, at, matches.recall_thresholds, which)
        for of_class in matches.classes[which.area]
    ]
    # [S, H, R or 1, K], as the libraries lay it out: the order of a sum decides its last bits.
    values = np.stack(columns, axis=-1) if columns else np.full((len(weights), 1), -1.0)
    means = (mean_defined(each) for each in values)
    return np.array([np.nan if mean is None else mean for mean in means])


def _thresholds(matches: ImageMatches, iou: float | None) -> list[int]:
    if iou is None:
        return list(range(len(matches.iou_thresholds)))
    return [int(np.argmin(np.abs(matches.iou_thresholds - iou)))]


def _class_values(
    matches: ClassMatches,
    weights: Integers,
    thresholds: list[int],
    recall_thresholds: Floats,
    which: MetricSlice,
) -> Floats:
    """Precisions [S, H, R] or maximum recalls [S, H] of one class; -1 without ground truth."""
    num_targets = weights @ matches.num_targets
    shape = (len(weights), len(thresholds)) + (() if which.is_recall else (len(recall_thresholds),))
    values = np.full(shape, -1.0)
    for rows in _chunks(len(weights), len(matches.image)):
        has_targets = rows[num_targets[rows] > 0]
        targets = num_targets[has_targets, None]
        for place, threshold in enumerate(thresholds):
            counts = _count(matches, weights[has_targets], threshold)
            recall = counts.is_true / targets
            values[has_targets, place] = (
                _last(recall)
                if which.is_recall
                else _interpolate(counts.precision(), recall, recall_thresholds)
            )
    return values


def _chunks(num_rows: int, row_length: int) -> Iterator[Integers]:
    size = max(1, _MAX_ELEMENTS // max(1, row_length))
    for start in range(0, num_rows, size):
        yield np.arange(start, min(start + size, num_rows))


@dataclass(frozen=True, eq=False)
class _Counts:
    """Right detections and all that count, [S, P], down to every right one."""

    is_true: Integers
    total: Integers

    def precision(self) -> Floats:
        # Divided as the libraries do.
        precision: Floats = self.is_true / (self.total + np.spacing(1))
        return precision


def _count(matches: ClassMatches, weights: Integers, threshold: int) -> _Counts:
    """Count at the right detections only: precision is never highest in between."""
    is_true, is_counted = matches.is_true[threshold], ~matches.is_ignored[threshold]
    if _ties_matter(matches, is_true, is_counted):
        return _count_in_copies(matches, weights, is_true, is_counted)
    total = np.cumsum(weights[:, matches.image[is_counted]], axis=1)
    return _Counts(
        is_true=np.cumsum(weights[:, matches.image[is_true]], axis=1),
        total=total[:, is_true[is_counted]],
    )


def _tie_groups(matches: ClassMatches) -> Integers:
    """[D] numbers of runs of equal scores within an image."""
    is_new = np.ones(len(matches.image), dtype=bool)
    is_new[1:] = (np.diff(matches.score) != 0) | (np.diff(matches.image) != 0)
    return np.cumsum(is_new) - 1


def _ties_matter(
    matches: ClassMatches, is_true: NDArray[np.bool_], is_counted: NDArray[np.bool_]
) -> bool:
    """Whether right and wrong detections of an image share a score.

    Copies of the image then come one after the other, right, wrong, right, wrong.
    """
    groups = _tie_groups(matches)
    right, wrong = groups[is_true], groups[is_counted & ~is_true]
    return bool(np.intersect1d(right, wrong).size)


def _count_in_copies(
    matches: ClassMatches,
    weights: Integers,
    is_true: NDArray[np.bool_],
    is_counted: NDArray[np.bool_],
) -> _Counts:
    """Count over the copies of every detection; rows are padded with their last counts."""
    groups = _tie_groups(matches)
    rows = [
        _count_copies(groups, copies, is_true, is_counted) for copies in weights[:, matches.image]
    ]
    width = max((row.shape[1] for row in rows), default=0)
    both = np.zeros((len(rows), 2, width), dtype=np.int64)
    for counts, row in zip(both, rows, strict=True):
        counts[:, : row.shape[1]] = row
        counts[:, row.shape[1] :] = row.max(axis=1, initial=0, keepdims=True)
    return _Counts(is_true=both[:, 0], total=both[:, 1])


def _count_copies(
    groups: Integers,
    copies: Integers,
    is_true: NDArray[np.bool_],
    is_counted: NDArray[np.bool_],
) -> Integers:
    """Count right detections and all, [2, P], for one set of weights."""
    detection = np.repeat(np.arange(len(copies)), copies)
    first = np.repeat(np.cumsum(copies) - copies, copies)
    copy = np.arange(len(detection)) - first
    order = detection[np.lexsort((detection, copy, groups[detection]))]
    right = is_true[order]
    return np.stack([np.cumsum(right)[right], np.cumsum(is_counted[order])[right]])


def _last(recall: Floats) -> Floats:
    return recall[:, -1] if recall.shape[1] else np.zeros(len(recall))


def _interpolate(precision: Floats, recall: Floats, thresholds: Floats) -> Floats:
    """Highest precision at or beyond every recall threshold: [S, R] of [S, P]."""
    num_rows, num_points = precision.shape
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([highest, np.zeros((num_rows, 1))], axis=1)
    # Per row, the number of points with less recall is the place of the first with enough.
    reached = np.searchsorted(thresholds, recall, side="right")
    histogram = np.zeros((num_rows, len(thresholds) + 1), dtype=np.int64)
    np.add.at(histogram, (np.repeat(np.arange(num_rows), num_points), reached.ravel()), 1)
    first = np.cumsum(histogram, axis=1)[:, :-1]
    return np.take_along_axis(padded, first, axis=1)
