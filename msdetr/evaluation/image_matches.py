"""Matches of one model with the ground truth, per class and image, to be accumulated many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.evaluation.matching import Library, Result, match_boxes, prepare_task

AREA_RANGES = ("all", "small", "medium", "large")

_Entry = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """Detections of one class, matched within one area range, in descending order of score.

    Letters: D detections, H IoU thresholds, I images.

    Attributes:
        image: [D] position of the image.
        rank: [D] position among the image's detections of this class, from 0.
        score: [D].
        is_true: [H, D] matched with ground truth that counts.
        is_ignored: [H, D] neither right nor wrong: of a crowd, or outside the area range.
        num_targets: [I] ground truth that counts.
    """

    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    score: NDArray[np.float64]
    is_true: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]
    num_targets: NDArray[np.int64]

    def limited(self, max_detections: int) -> ClassMatches:
        """Keep the best detections of every image."""
        return self._kept(self.rank < max_detections, self.image, self.num_targets)

    def of_images(self, images: NDArray[np.int64]) -> ClassMatches:
        """Keep the images at ascending positions, which are numbered anew."""
        place = np.full(len(self.num_targets), -1)
        place[images] = np.arange(len(images))
        moved = place[self.image]
        return self._kept(moved >= 0, moved, self.num_targets[images])

    def _kept(
        self, keep: NDArray[np.bool_], image: NDArray[np.int64], num_targets: NDArray[np.int64]
    ) -> ClassMatches:
        return ClassMatches(
            image=image[keep],
            rank=self.rank[keep],
            score=self.score[keep],
            is_true=self.is_true[:, keep],
            is_ignored=self.is_ignored[:, keep],
            num_targets=num_targets,
        )


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """Everything that COCO's metrics of one model are accumulated from.

    Attributes:
        image_ids: Ids of the I images, ascending.
        iou_thresholds: [H] of the matching.
        recall_thresholds: [R] at which precision is read.
        max_detections: Limits on the detections per image.
        classes: Matches of every class, by area range.
    """

    image_ids: tuple[int, ...]
    iou_thresholds: NDArray[np.float64]
    recall_thresholds: NDArray[np.float64]
    max_detections: tuple[int, int, int]
    classes: Mapping[str, tuple[ClassMatches, ...]]

    def of_images(self, images: NDArray[np.int64]) -> ImageMatches:
        """Keep the images at ascending positions."""
        return ImageMatches(
            image_ids=tuple(self.image_ids[image] for image in images),
            iou_thresholds=self.iou_thresholds,
            recall_thresholds=self.recall_thresholds,
            max_detections=self.max_detections,
            classes={
                area: tuple(matches.of_images(images) for matches in per_class)
                for area, per_class in self.classes.items()
            },
        )


def match_images(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
    max_detections: tuple[int, int, int] = (1, 10, 100),
    library: Library | None = None,
) -> ImageMatches:
    """Match a model's detections once; arguments as of ``evaluate_boxes``.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    task = prepare_task(ground_truth, results, image_ids=image_ids, max_detections=max_detections)
    evaluator = match_boxes(task, library)
    params = evaluator.params
    iou_thresholds = np.asarray(params.iouThrs)
    grouped = _group(evaluator.evalImgs)
    areas = [tuple(map(float, limits)) for limits in params.areaRng]
    return ImageMatches(
        image_ids=task.image_ids,
        iou_thresholds=iou_thresholds,
        recall_thresholds=np.asarray(params.recThrs),
        max_detections=max_detections,
        classes={
            name: tuple(
                _join(grouped.get((area, number), []), len(task.image_ids), len(iou_thresholds))
                for number in range(1, len(task.category_ids) + 1)
            )
            for name, area in zip(AREA_RANGES, areas, strict=True)
        },
    )


def _group(entries: Sequence[_Entry | None]) -> dict[tuple[tuple[float, ...], int], list[_Entry]]:
    """Entries by area range and category, in the order of the images."""

    def key(entry: _Entry) -> tuple[tuple[float, ...], int]:
        return tuple(map(float, entry["aRng"])), int(entry["category_id"])

    # hotcoco leaves out where pycocotools has None.
    present = [entry for entry in entries if entry is not None]
    return {k: list(group) for k, group in groupby(sorted(present, key=key), key=key)}


def _join(entries: Sequence[_Entry], num_images: int, num_thresholds: int) -> ClassMatches:
    lengths = [len(entry["dtScores"]) for entry in entries]
    images = [int(entry["image_id"]) - 1 for entry in entries]
    none = np.zeros((num_thresholds, 0), dtype=bool)
    is_matched, is_ignored = (
        np.concatenate(
            [none, *(np.asarray(e[name]).reshape(num_thresholds, -1) != 0 for e in entries)], axis=1
        )
        for name in ("dtMatches", "dtIgnore")
    )
    num_targets = np.zeros(num_images, dtype=np.int64)
    num_targets[images] = [np.sum(np.asarray(entry["gtIgnore"]) == 0) for entry in entries]
    score = np.concatenate([np.zeros(0), *(np.asarray(e["dtScores"], float) for e in entries)])
    # The libraries' order: equal scores in the order of the images.
    order = np.argsort(-score, kind="mergesort")
    ranks = [np.arange(length) for length in lengths]
    return ClassMatches(
        image=np.repeat(np.asarray(images, dtype=np.int64), lengths)[order],
        rank=np.concatenate([np.zeros(0, dtype=np.int64), *ranks])[order],
        score=score[order],
        is_true=(is_matched & ~is_ignored)[:, order],
        is_ignored=is_ignored[:, order],
        num_targets=num_targets,
    )
