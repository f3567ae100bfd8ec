"""Detections matched with ground truth as COCO does, by hotcoco where installed, or pycocotools.

pycocotools is the reference. hotcoco computes the same arrays to the bit, many times faster; a
test compares the two.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, Protocol, cast

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msdetr.errors import DataError

Result = Mapping[str, Any]
Library = Literal["hotcoco", "pycocotools"]


class Evaluator(Protocol):
    """What both libraries' ``COCOeval`` have in common.

    Attributes:
        params: Thresholds, limits, images and categories.
        eval: Arrays of precision and recall, once accumulated.
        evalImgs: Matches per category, area range and image.
    """

    params: Any
    eval: Any
    evalImgs: Any  # noqa: N815 - the libraries' name

    def evaluate(self) -> None:
        """Match."""

    def accumulate(self) -> None:
        """Compute ``eval`` of the matches."""


# The oldest release whose arrays equal those of pycocotools to the bit in our tests.
_OLDEST_HOTCOCO = (1, 3)


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """What both libraries are given, cleaned.

    Ids are positions from 1 on in ascending order of the original ones: hotcoco takes no negative
    ids, and pycocotools takes an annotation with id 0 for "no match".

    Attributes:
        image_ids: Original ids of the images to evaluate, ascending.
        category_ids: Original ids of the categories, ascending.
        annotations: Ground truth with area, of these images and categories.
        annotation_ids: Original ids of these; None where the ground truth gives none.
        detections: Of these images and categories, in the order given.
        max_detections: Limits on the detections per image, ascending.
        num_without_area: Boxes of the annotation file that were left out.
    """

    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    annotations: list[dict[str, Any]]
    annotation_ids: tuple[int | None, ...]
    detections: list[dict[str, Any]]
    max_detections: tuple[int, int, int]
    num_without_area: int


def fastest_library() -> Library:
    """Choose hotcoco where a release is installed that is known to agree, else pycocotools."""
    try:
        version = metadata.version("hotcoco")
    except metadata.PackageNotFoundError:
        return "pycocotools"
    major, minor = (int(part) for part in version.split(".")[:2])
    return "hotcoco" if (major, minor) >= _OLDEST_HOTCOCO else "pycocotools"


def describe_library() -> str:
    """Name and version of what computes the metrics here."""
    name = fastest_library()
    return f"{name} {metadata.version(name)}"


def prepare_task(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
    max_detections: tuple[int, int, int] = (1, 10, 100),
) -> ScoringTask:
    """Select and number what is to be scored; arguments as of ``evaluate_boxes``.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    known = {int(image["id"]) for image in ground_truth["images"]}
    ids = sorted(known if image_ids is None else set(image_ids))
    _check_images(known, ids, results)
    categories = sorted({category["id"] for category in ground_truth["categories"]})
    numbers = _Numbers(
        {image: number for number, image in enumerate(ids, start=1)},
        {category: number for number, category in enumerate(categories, start=1)},
    )
    with_area = [a for a in ground_truth["annotations"] if a["bbox"][2] > 0 and a["bbox"][3] > 0]
    return ScoringTask(
        image_ids=tuple(ids),
        category_ids=tuple(categories),
        annotations=numbers.annotations(with_area),
        annotation_ids=tuple(entry.get("id") for entry in filter(numbers.knows, with_area)),
        detections=numbers.detections(results),
        max_detections=max_detections,
        num_without_area=len(ground_truth["annotations"]) - len(with_area),
    )


def match_boxes(task: ScoringTask, library: Library | None = None) -> Evaluator:
    """Match every detection with ground truth of its class and image.

    Args:
        task: What to match.
        library: Whose ``COCOeval`` to use; the fastest that is installed by default.

    Returns:
        The ``COCOeval``, matched and not accumulated.
    """
    library = library or fastest_library()
    with redirect_stdout(io.StringIO()):
        evaluator = _create(task, library)
        evaluator.params.imgIds = list(range(1, len(task.image_ids) + 1))
        evaluator.params.maxDets = list(task.max_detections)
        evaluator.evaluate()
    return evaluator


def accumulate(evaluator: Evaluator) -> None:
    """Compute ``evaluator.eval`` from its matches, silently."""
    with redirect_stdout(io.StringIO()):
        evaluator.accumulate()


@dataclass(frozen=True)
class _Numbers:
    images: Mapping[int, int]
    categories: Mapping[int, int]

    def annotations(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                **self._place(number, entry),
                "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]),
                "iscrowd": int(entry.get("iscrowd", 0)),
            }
            for number, entry in enumerate(filter(self.knows, entries), start=1)
        ]

    def detections(self, results: Sequence[Result]) -> list[dict[str, Any]]:
        return [
            {
                **self._place(number, result),
                "area": result["bbox"][2] * result["bbox"][3],
                "iscrowd": 0,
                "score": result["score"],
            }
            for number, result in enumerate(filter(self.knows, results), start=1)
        ]

    def knows(self, entry: Mapping[str, Any]) -> bool:
        return entry["image_id"] in self.images and entry["category_id"] in self.categories

    def _place(self, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": number,
            "image_id": self.images[entry["image_id"]],
            "category_id": self.categories[entry["category_id"]],
            "bbox": entry["bbox"],
        }


def _create(task: ScoringTask, library: Library) -> Evaluator:
    images = [{"id": number} for number in range(1, len(task.image_ids) + 1)]
    categories = [
        {"id": number, "name": str(number)} for number in range(1, len(task.category_ids) + 1)
    ]
    truth, detections = (
        {"images": images, "categories": categories, "annotations": entries}
        for entries in (task.annotations, task.detections)
    )
    if library == "hotcoco":
        import hotcoco  # noqa: PLC0415 - an extra

        fast = hotcoco.COCOeval(hotcoco.COCO(truth), hotcoco.COCO(detections), "bbox")
        return cast("Evaluator", fast)
    return cast("Evaluator", COCOeval(_index(truth), _index(detections), "bbox"))


def _index(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _check_images(known: set[int], ids: Sequence[int], results: Sequence[Result]) -> None:
    strangers = sorted({int(result["image_id"]) for result in results} - known)
    if strangers:
        raise DataError(
            "detections",
            f"{len(strangers)} image ids are not in the annotation file, first {strangers[0]}; "
            "do they belong to another data set?",
        )
    missing = sorted(set(ids) - known)
    if missing:
        raise DataError("image_ids", f"{missing[0]} is not in the annotation file")
