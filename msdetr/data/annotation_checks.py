"""Checks of annotations that need no image: boxes, repetitions, crowding, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.data.coco_file import column
from msdetr.data.findings import Finding, present

SMALL_AREA_PX = 32**2
"""Area of the largest object that COCO's metrics call small."""

_ROUNDING = 1e-3

BEYOND_PX = 1.0
"""Boxes that leave the image by no more than this are due to rounding and not reported."""


def check_annotations(
    content: Mapping[str, Sequence[Any]], has_area: NDArray[np.bool_], image_hw: NDArray[np.int64]
) -> tuple[Finding, ...]:
    """Check boxes and find repetitions.

    Args:
        content: Of a consistent annotation file.
        has_area: [A], whether something of an annotation's box lies in the image.
        image_hw: [A, 2] height and width in pixels of every annotation's image.
    """
    annotations = content["annotations"]
    boxes = np.array([entry["bbox"] for entry in annotations], dtype=np.float64).reshape(-1, 4)
    return present(
        [
            _normalised_boxes(annotations, boxes, image_hw),
            _only_crowds(annotations),
            _tiny_areas(annotations, boxes),
            *_check_boxes(annotations, boxes, has_area, image_hw),
            _repeated_annotations(annotations, boxes),
            _repeated_file_names(content["images"]),
        ]
    )


def check_spellings(names: Sequence[str], meant: Sequence[str]) -> tuple[Finding, ...]:
    """Find file names that are not spelled as the files are.

    Args:
        names: In the annotation file.
        meant: Of the files.
    """
    differing = [
        f"{name} is {file}" for name, file in zip(names, meant, strict=True) if name != file
    ]
    message = "file names have backslashes or percent codes that the files do not have"
    return present([Finding.of("file_name_spelling", "warning", message, differing)])


def check_outside(names: Sequence[str], *, is_allowed: bool) -> tuple[Finding, ...]:
    """Report files that do not belong to the data set.

    Args:
        names: Of such files.
        is_allowed: Whether the recipe knows of them.
    """
    found = Finding.of(
        "file_outside",
        "warning" if is_allowed else "error",
        "file names lead out of the data set, which data.allow_outside allows"
        if is_allowed
        else "file names lead out of the data set; data.allow_outside: true allows them",
        names,
    )
    return present([found])


def check_targets(num_targets: int) -> tuple[Finding, ...]:
    """Find a validation split without anything to detect."""
    message = "no image has a box to detect, so that every AP is undefined"
    found = Finding("no_boxes", "warning", message, 1) if num_targets == 0 else None
    return present([found])


def check_crowding(
    image_ids: NDArray[np.int64],
    num_boxes: NDArray[np.int64],
    num_queries: int,
    max_positives: int | None,
) -> tuple[Finding, ...]:
    """Compare the boxes of every image with what a model can match.

    Args:
        image_ids: [I].
        num_boxes: [I] targets of each image.
        num_queries: Q.
        max_positives: Maximum number of positive queries of an image in one-to-many supervision;
            None for no such bound.
    """
    found = [
        Finding.of(
            "more_boxes_than_queries",
            "warning",
            f"images have more boxes than the model has queries ({num_queries}), so that some "
            "are never matched",
            _images(image_ids[num_boxes > num_queries]),
        )
    ]
    if max_positives is not None:
        found.append(
            Finding.of(
                "more_boxes_than_positives",
                "warning",
                "images have more boxes than one-to-many supervision has positive queries "
                f"({max_positives} of {num_queries}), so that it leaves some out at random",
                _images(image_ids[num_boxes > max_positives]),
            )
        )
    return present(found)


def check_group_crowding(
    image_ids: NDArray[np.int64],
    num_boxes: NDArray[np.int64],
    *,
    hybrid: int | None,
    denoising: int | None,
) -> tuple[Finding, ...]:
    """Compare the boxes of every image with what query groups beside the primary one can take.

    Args:
        image_ids: [I].
        num_boxes: [I] targets of each image.
        hybrid: Boxes of an image of which the hybrid group can serve every copy; None without
            such a group.
        denoising: Boxes of an image up to which the number of denoising queries is bounded;
            None where nothing bounds it, or without denoising.
    """
    found: list[Finding | None] = []
    if hybrid is not None:
        found.append(
            Finding.of(
                "more_boxes_than_hybrid",
                "warning",
                f"images have more boxes than the hybrid group can serve in all copies ({hybrid}), "
                "so that some copies are never matched",
                _images(image_ids[num_boxes > hybrid]),
            )
        )
    if denoising is not None:
        found.append(
            Finding.of(
                "more_boxes_than_denoising_budget",
                "warning",
                "images have more boxes than the budget of denoising queries "
                f"({denoising}), so that their number grows with the boxes; "
                "model.query_groups.denoising.max_targets bounds it",
                _images(image_ids[num_boxes > denoising]),
            )
        )
    return present(found)


def check_classes(
    num_boxes_of: Mapping[str, int], shared_names: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """Find classes without any training box, and names of several classes.

    Args:
        num_boxes_of: Training targets by class name.
        shared_names: Names that several classes have.
    """
    missing = [name for name, count in num_boxes_of.items() if count == 0]
    shared = "names belong to several classes, which stay apart"
    return present(
        [
            Finding.of(
                "class_without_boxes", "warning", "classes have no box to train on", missing
            ),
            Finding.of("shared_class_name", "warning", shared, list(shared_names)),
        ]
    )


def _normalised_boxes(
    annotations: Sequence[Mapping[str, Any]],
    boxes: NDArray[np.float64],
    image_hw: NDArray[np.int64],
) -> Finding | None:
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    # A single box of one pixel may be meant; fractions of pixels within it are not.
    is_normalised = (
        len(boxes) > 0
        and bool(((corners >= 0) & (corners <= 1 + _ROUNDING)).all())
        and bool((boxes % 1 != 0).any())
        and bool((image_hw > 1).all())
    )
    message = "boxes, all of them, lie within 0..1: fractions of the image, where COCO has pixels"
    ids = column(annotations, "id") if is_normalised else np.zeros(0, dtype=np.int64)
    return Finding.of("normalised_boxes", "warning", message, _annotations(ids))


def _only_crowds(annotations: Sequence[Mapping[str, Any]]) -> Finding | None:
    is_crowd = column(annotations, "iscrowd") == 1
    message = "annotations, all of them, mark crowds, which are neither trained on nor missed"
    ids = column(annotations, "id") if is_crowd.all() else np.zeros(0, dtype=np.int64)
    return Finding.of("only_crowds", "warning", message, _annotations(ids))


def _tiny_areas(
    annotations: Sequence[Mapping[str, Any]], boxes: NDArray[np.float64]
) -> Finding | None:
    areas = np.array([entry["area"] for entry in annotations], dtype=np.float64)
    is_tiny = (areas <= 1) & (boxes[:, 2] * boxes[:, 3] > SMALL_AREA_PX)
    message = "boxes of medium or large objects have an area of at most 1, so that AP counts them "
    message += "among the small ones"
    return Finding.of(
        "tiny_area", "warning", message, _annotations(column(annotations, "id")[is_tiny])
    )


def _check_boxes(
    annotations: Sequence[Mapping[str, Any]],
    boxes: NDArray[np.float64],
    has_area: NDArray[np.bool_],
    image_hw: NDArray[np.int64],
) -> list[Finding | None]:
    is_target = column(annotations, "iscrowd") == 0
    is_empty = (boxes[:, 2:] <= 0).any(axis=1)
    beyond = (boxes[:, :2] < -BEYOND_PX).any(axis=1)
    beyond |= (boxes[:, :2] + boxes[:, 2:] > image_hw[:, ::-1] + BEYOND_PX).any(axis=1)
    kinds = (
        ("box_without_area", "boxes have no area and are left out", ~has_area & is_empty),
        ("box_outside", "boxes lie outside their image and are left out", ~has_area & ~is_empty),
        ("box_beyond", "boxes leave their image by over 1 px and are clipped", has_area & beyond),
    )
    ids = column(annotations, "id")
    return [
        Finding.of(check, "warning", message, _annotations(ids[is_target & mask]))
        for check, message, mask in kinds
    ]


def _repeated_annotations(
    annotations: Sequence[Mapping[str, Any]], boxes: NDArray[np.float64]
) -> Finding | None:
    keys = [column(annotations, key) for key in ("image_id", "category_id", "iscrowd")]
    rows = np.concatenate([np.stack(keys, axis=1).astype(np.float64), boxes], axis=1)
    _, first = np.unique(rows, axis=0, return_index=True)
    repeated = np.setdiff1d(np.arange(len(rows)), first)
    message = "annotations repeat another one (same image, class and box)"
    ids = column(annotations, "id")[repeated]
    return Finding.of("duplicate_annotation", "warning", message, _annotations(ids))


def _repeated_file_names(images: Sequence[Mapping[str, Any]]) -> Finding | None:
    times = Counter(image["file_name"] for image in images)
    message = "files are named by more than one image"
    repeated = sorted(name for name, count in times.items() if count > 1)
    return Finding.of("duplicate_file_name", "warning", message, repeated)


def _annotations(ids: NDArray[np.int64]) -> list[str]:
    return [f"annotation {number}" for number in ids.tolist()]


def _images(ids: NDArray[np.int64]) -> list[str]:
    return [f"image {number}" for number in ids.tolist()]
