"""COCO-format annotation files as compact arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.data.annotation_checks import check_annotations, check_spellings
from msdetr.data.coco_file import AnnotationFile, parse_annotations
from msdetr.data.file_names import FileNames, find_meant_name
from msdetr.data.findings import Finding
from msdetr.data.labels import Category
from msdetr.errors import DataError

SPLIT_FOLDERS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True)
class CocoSplit:
    """Where one split of a data set lies.

    Attributes:
        images_dir: Folder of the images.
        annotations_file: The COCO JSON file.
    """

    images_dir: Path
    annotations_file: Path


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """The images of a data set, by ascending id, and the targets to train on.

    Arrays instead of objects: worker processes share them without copying.

    Attributes:
        images_dir: Folder of the images.
        annotations_file: File that the index was read from.
        categories: Classes by ascending id.
        image_ids: [I] int64, ascending.
        file_names: I names, relative to ``images_dir``.
        image_hw: [I, 2] int64, annotated height and width in pixels.
        first_target: [I + 1] int64; image i has the targets ``first_target[i]`` to
            ``first_target[i + 1]``.
        boxes_xyxy_px: [A, 4] float32, clipped to the image, each with an area.
        category_ids: [A] int64.
        annotation_ids: [A] int64, ids of the targets in the file.
        num_crowd: Annotations left out because they mark a crowd.
        num_without_area: Annotations left out because nothing of the box lies in the image.
        annotations_sha256: Hash of the annotation file.
        findings: Findings about the annotations of the file.
    """

    images_dir: Path
    annotations_file: Path
    categories: tuple[Category, ...]
    image_ids: NDArray[np.int64]
    file_names: FileNames
    image_hw: NDArray[np.int64]
    first_target: NDArray[np.int64]
    boxes_xyxy_px: NDArray[np.float32]
    category_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    num_crowd: int
    num_without_area: int
    annotations_sha256: str
    findings: tuple[Finding, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    @property
    def num_targets(self) -> int:
        """Annotations that are trained on."""
        return len(self.category_ids)

    @property
    def num_images_without_targets(self) -> int:
        """Images that have nothing to detect."""
        return int((np.diff(self.first_target) == 0).sum())

    def path_of(self, position: int) -> Path:
        """Return the image file at a position."""
        return self.images_dir / self.file_names[position]

    def targets_of(self, position: int) -> slice:
        """Return the rows of ``boxes_xyxy_px`` and ``category_ids`` of an image."""
        return slice(int(self.first_target[position]), int(self.first_target[position + 1]))

    def count_by_class(self) -> dict[str, int]:
        """Return the number of targets by class name, in the order of the category ids.

        Where several classes have one name, their ids are added to it.
        """
        ids, counts = np.unique(self.category_ids, return_counts=True)
        count_of = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        shared = self.shared_names()
        return {
            f"{each.name} (id {each.id})" if each.name in shared else each.name: count_of.get(
                each.id, 0
            )
            for each in self.categories
        }

    def shared_names(self) -> list[str]:
        """Return the names that several classes have."""
        times = Counter(category.name for category in self.categories)
        return [name for name, count in times.items() if count > 1]

    def limit(self, num_images: int) -> CocoIndex:
        """Return an index of the first images only; the counts of left-out ones stay."""
        num_targets = self.first_target[min(num_images, len(self))]
        return replace(
            self,
            image_ids=self.image_ids[:num_images],
            file_names=self.file_names.first(num_images),
            image_hw=self.image_hw[:num_images],
            first_target=self.first_target[: num_images + 1],
            boxes_xyxy_px=self.boxes_xyxy_px[:num_targets],
            category_ids=self.category_ids[:num_targets],
            annotation_ids=self.annotation_ids[:num_targets],
        )


def locate_split(
    split: str,
    *,
    root: Path | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
) -> CocoSplit:
    """Find the image folder and the annotation file of a split.

    Args:
        split: "train" or "val".
        root: Folder with ``train2017/``, ``val2017/`` and ``annotations/``.
        images: Image folder instead of the one in ``root``; relative paths start at ``root``.
        annotations: Annotation file instead of the one in ``root``, likewise.

    Raises:
        DataError: If neither ``root`` nor both paths are given, or one does not exist.
    """
    if root is None and (images is None or annotations is None):
        raise DataError(
            "data",
            f"no data set given: set data.root, or data.{split}.images and "
            f"data.{split}.annotations",
        )
    if root is not None and not root.is_dir():
        raise DataError(
            str(root),
            "the data root does not exist; data.root must name a folder with train2017/, "
            "val2017/ and annotations/",
        )
    base = root or Path()
    folder = SPLIT_FOLDERS[split]
    found = CocoSplit(
        base / (images or folder),
        base / (annotations or f"annotations/instances_{folder}.json"),
    )
    _require_images_dir(found.images_dir)
    if not found.annotations_file.is_file():
        raise DataError(str(found.annotations_file), "the annotation file does not exist")
    return found


def read_coco(images_dir: Path, annotations_file: Path) -> CocoIndex:
    """Read and check an annotation file, and index what is trained on.

    Raises:
        DataError: If a path is missing or the file is not valid COCO JSON.
    """
    _require_images_dir(images_dir)
    file = parse_annotations(annotations_file)
    file.require_consistent()
    return index_annotations(file, images_dir)


def index_annotations(file: AnnotationFile, images_dir: Path) -> CocoIndex:
    """Index an annotation file with consistent ids."""
    content = file.content
    images = sorted(content["images"], key=lambda image: int(image["id"]))
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    names = [image["file_name"] for image in images]
    meant = [find_meant_name(name, images_dir) for name in names]
    image_hw = np.array([(image["height"], image["width"]) for image in images], dtype=np.int64)
    annotations = content["annotations"]
    owners = np.array([entry["image_id"] for entry in annotations], dtype=np.int64)
    position = np.searchsorted(image_ids, owners)
    owner_hw = image_hw[position]
    boxes = _clipped_boxes(annotations, owner_hw)
    is_crowd = np.array([entry["iscrowd"] for entry in annotations], dtype=bool)
    has_area: NDArray[np.bool_] = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    kept = np.flatnonzero(~is_crowd & has_area)
    kept = kept[np.argsort(position[kept], kind="stable")]
    categories = (Category(entry["id"], entry["name"]) for entry in content["categories"])
    return CocoIndex(
        images_dir=images_dir,
        annotations_file=file.path,
        categories=tuple(sorted(categories, key=lambda category: category.id)),
        image_ids=image_ids,
        file_names=FileNames(meant),
        image_hw=image_hw,
        first_target=np.searchsorted(position[kept], np.arange(len(images) + 1)).astype(np.int64),
        boxes_xyxy_px=boxes[kept],
        category_ids=np.array([e["category_id"] for e in annotations], dtype=np.int64)[kept],
        annotation_ids=np.array([e["id"] for e in annotations], dtype=np.int64)[kept],
        num_crowd=int(is_crowd.sum()),
        num_without_area=int((~is_crowd & ~has_area).sum()),
        annotations_sha256=file.sha256,
        findings=(
            *file.readings,
            *check_spellings(names, meant),
            *check_annotations(content, has_area, owner_hw),
        ),
    )


def _clipped_boxes(
    annotations: Sequence[Mapping[str, Any]], image_hw: NDArray[np.int64]
) -> NDArray[np.float32]:
    boxes = np.array([entry["bbox"] for entry in annotations], dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    limit = np.concatenate([image_hw[:, ::-1]] * 2, axis=1)
    clipped: NDArray[np.float32] = np.clip(corners, 0, limit).astype(np.float32)
    return clipped


def _require_images_dir(images_dir: Path) -> None:
    if not images_dir.is_dir():
        raise DataError(str(images_dir), "the image folder does not exist")
