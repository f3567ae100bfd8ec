"""How category ids of an annotation file map to the label indices of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from msdetr.errors import DataError, Problem, on_one_line

COCO91_CLASSES = 91


@dataclass(frozen=True)
class Category:
    """A class of an annotation file.

    Attributes:
        id: Its id in the file.
        name: Its name.
    """

    id: int
    name: str


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a model.

    With as many classes as categories the labels are the positions in ``category_ids``
    (contiguous); otherwise a label is the category id itself (coco91).

    Attributes:
        category_ids: Ids of the annotation file, ascending.
        names: Names of these categories.
        num_classes: K, the number of class logits.

    Raises:
        ValueError: If ids are not ascending, the names differ in number, or ids exceed the classes.
    """

    category_ids: tuple[int, ...]
    names: tuple[str, ...]
    num_classes: int

    def __post_init__(self) -> None:
        """Check that the fields fit together; escape control characters in names."""
        object.__setattr__(self, "names", tuple(map(on_one_line, self.names)))
        if list(self.category_ids) != sorted(set(self.category_ids)):
            raise ValueError("category_ids must be ascending and distinct")
        if len(self.names) != len(self.category_ids):
            raise ValueError(f"{len(self.category_ids)} category ids but {len(self.names)} names")
        if not all(0 <= label < self.num_classes for label in self.labels):
            raise ValueError(f"category ids must lie in 0..{self.num_classes - 1}")

    @classmethod
    def contiguous(cls, categories: Iterable[Category]) -> Self:
        """Map ascending category ids to 0..K-1."""
        ordered = sorted(categories, key=lambda category: category.id)
        names = tuple(category.name for category in ordered)
        return cls(tuple(category.id for category in ordered), names, len(names))

    @classmethod
    def coco91(cls, categories: Iterable[Category], source: str = "categories") -> Self:
        """Use raw ids 1..90 as labels among 91 classes, as the published models do.

        Args:
            categories: The classes of the annotation file.
            source: Name of that file, for messages.

        Raises:
            DataError: If an id lies outside 1..90.
        """
        ordered = sorted(categories, key=lambda category: category.id)
        problems = [
            Problem(
                f"category {category.name!r}",
                f"id {category.id} lies outside 1..{COCO91_CLASSES - 1} of label space coco91; "
                "set data.label_space: contiguous",
            )
            for category in ordered
            if not 1 <= category.id < COCO91_CLASSES
        ]
        if problems:
            raise DataError(source, problems)
        names = tuple(category.name for category in ordered)
        return cls(tuple(category.id for category in ordered), names, COCO91_CLASSES)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Label of each entry of ``category_ids``."""
        is_contiguous = len(self.category_ids) == self.num_classes
        return tuple(range(self.num_classes)) if is_contiguous else self.category_ids

    @cached_property
    def category_id_by_label(self) -> tuple[int, ...]:
        """K category ids; a label that no category uses stands for itself."""
        known = dict(zip(self.labels, self.category_ids, strict=True))
        return tuple(known.get(label, label) for label in range(self.num_classes))

    @cached_property
    def names_by_label(self) -> tuple[str, ...]:
        """K names; ``unused_<label>`` where no category has the label."""
        known = dict(zip(self.labels, self.names, strict=True))
        return tuple(known.get(label, f"unused_{label}") for label in range(self.num_classes))

    def labels_of(
        self, category_ids: Sequence[int] | NDArray[np.int64], source: str = "annotations"
    ) -> NDArray[np.int64]:
        """Return the labels [A] of category ids [A].

        Args:
            category_ids: Ids of annotations.
            source: Name of the annotation file, for messages.

        Raises:
            DataError: If an id is not in this label space.
        """
        ids = np.asarray(category_ids, dtype=np.int64)
        unknown = np.setdiff1d(ids, self.category_ids)
        if unknown.size:
            listed = ", ".join(str(value) for value in unknown[:5])
            raise DataError(
                source, f"category ids {listed} are not among the model's {len(self.names)} classes"
            )
        labels = np.asarray(self.labels, dtype=np.int64)
        return labels[np.searchsorted(np.asarray(self.category_ids, dtype=np.int64), ids)]
