"""Report of ``msdetr data check``: numbers of the splits, classes, findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from msdetr.data.coco_index import CocoIndex
from msdetr.data.findings import Finding
from msdetr.errors import counted


@dataclass(frozen=True)
class SplitFacts:
    """Numbers of one split, as far as training uses it.

    Attributes:
        images: Folder of the images.
        annotations: Annotation file.
        annotations_sha256: Its hash.
        num_images: Images.
        num_images_without_targets: Those without a box to detect.
        num_targets: Boxes.
        num_crowd: Annotations of the file left out because they mark a crowd.
        num_without_area: Those left out because nothing of the box lies in the image.
        boxes_per_image: Mean, median, 95th percentile and maximum.
        boxes_by_class: Boxes by the name of their class, in the order of the category ids.
    """

    images: str
    annotations: str
    annotations_sha256: str
    num_images: int
    num_images_without_targets: int
    num_targets: int
    num_crowd: int
    num_without_area: int
    boxes_per_image: Mapping[str, float]
    boxes_by_class: Mapping[str, int]

    @classmethod
    def of(cls, index: CocoIndex) -> SplitFacts:
        """Count what an index holds."""
        per_image = np.diff(index.first_target)
        return cls(
            images=str(index.images_dir),
            annotations=str(index.annotations_file),
            annotations_sha256=index.annotations_sha256,
            num_images=len(index),
            num_images_without_targets=index.num_images_without_targets,
            num_targets=index.num_targets,
            num_crowd=index.num_crowd,
            num_without_area=index.num_without_area,
            boxes_per_image={
                "mean": float(per_image.mean()),
                "median": float(np.median(per_image)),
                "p95": float(np.percentile(per_image, 95)),
                "max": float(per_image.max()),
            },
            boxes_by_class=index.count_by_class(),
        )

    def rows(self) -> list[tuple[str, str]]:
        """Describe the numbers in plain words."""
        spread = self.boxes_per_image
        return [
            ("images", str(self.num_images)),
            ("images without boxes", str(self.num_images_without_targets)),
            ("boxes", str(self.num_targets)),
            ("left out: crowd", str(self.num_crowd)),
            ("left out: without area in the image", str(self.num_without_area)),
            ("boxes per image: mean", f"{spread['mean']:.1f}"),
            *((f"boxes per image: {key}", f"{spread[key]:g}") for key in ("median", "p95", "max")),
        ]


@dataclass(frozen=True)
class DataReport:
    """What a check of a recipe's data found.

    Attributes:
        splits: Numbers by split; a split that cannot be read is missing.
        num_queries: Q.
        max_positives: Maximum number of positive queries of an image in one-to-many supervision;
            None without it.
        findings: Findings by split; errors first.
        group_capacities: Boxes of an image that query groups beside the primary one can take in
            full, by kind of group.
    """

    splits: Mapping[str, SplitFacts]
    num_queries: int
    max_positives: int | None
    findings: Sequence[tuple[str, Finding]]
    group_capacities: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_errors(self) -> int:
        """Number of findings that forbid training."""
        return sum(finding.severity == "error" for _, finding in self.findings)

    @property
    def num_warnings(self) -> int:
        """Number of findings that do not."""
        return len(self.findings) - self.num_errors

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "num_errors": self.num_errors,
            "num_warnings": self.num_warnings,
            "num_queries": self.num_queries,
            "max_positives": self.max_positives,
            "group_capacities": dict(self.group_capacities),
            "findings": [{"split": split, **f.to_dict()} for split, f in self.findings],
            "splits": {split: asdict(facts) for split, facts in self.splits.items()},
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the numbers, the classes and the findings."""
        if self.splits:
            yield self._split_table()
            yield self._class_table()
        if self.findings:
            yield self._finding_table()
        yield f"{counted(self.num_errors, 'error')}, {counted(self.num_warnings, 'warning')}"

    def _split_table(self) -> Table:
        positives = "" if self.max_positives is None else f", at most {self.max_positives} positive"
        caption = f"queries of the model: {self.num_queries}{positives}"
        if self.group_capacities:
            numbers = (f"{name} {number}" for name, number in self.group_capacities.items())
            caption += f"\nboxes of an image that further groups can take: {', '.join(numbers)}"
        table = Table("", title="data", caption=caption)
        for split in self.splits:
            table.add_column(split, justify="right")
        columns = [facts.rows() for facts in self.splits.values()]
        for cells in zip(*columns, strict=True):
            table.add_row(cells[0][0], *(value for _, value in cells))
        return table

    def _class_table(self) -> Table:
        table = Table("class", title="boxes by class")
        names: dict[str, None] = {}
        for split, facts in self.splits.items():
            table.add_column(split, justify="right")
            names.update(dict.fromkeys(facts.boxes_by_class))
        for name in names:
            counts = [facts.boxes_by_class.get(name) for facts in self.splits.values()]
            table.add_row(name, *("-" if count is None else str(count) for count in counts))
        return table

    def _finding_table(self) -> Table:
        table = Table("", "split", "finding", title="findings", box=box.SIMPLE_HEAD)
        for split, finding in self.findings:
            table.add_row(finding.severity, split, finding.line())
        return table
