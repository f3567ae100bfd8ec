"""The twelve COCO numbers and the tables below them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one category.

    Attributes:
        category_id: Id in the annotation file.
        name: Name in the annotation file.
        num_ground_truth: Boxes to detect, crowd not counted.
        ap: AP over IoU 0.50:0.95; None without ground truth.
        ap50: AP at IoU 0.50; None without ground truth.
    """

    category_id: int
    name: str
    num_ground_truth: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, kw_only=True)
class CocoMetrics:
    """Result of an evaluation, in 0..1; prints itself as tables with rich.

    A number is None where it is undefined because no ground truth falls under it (COCO's
    own tools say -1).

    Attributes:
        ap: Mean AP over IoU 0.50:0.05:0.95 and categories.
        ap50: The same at IoU 0.50 only.
        ap75: The same at IoU 0.75 only.
        ap_small: AP of boxes with an area below 32^2 px.
        ap_medium: AP of boxes from 32^2 to 96^2 px.
        ap_large: AP of boxes above 96^2 px.
        ar_1: Mean recall with the fewest detections per image (1).
        ar_10: Mean recall with 10 detections per image.
        ar_100: Mean recall with the maximum number of detections per image (100).
        ar_small: ``ar_100`` of small boxes.
        ar_medium: ``ar_100`` of medium boxes.
        ar_large: ``ar_100`` of large boxes.
        ap_by_iou: AP by IoU threshold ("0.50" to "0.95").
        per_class: Metrics of every category, in the order of the annotation file's ids.
        num_images: Images evaluated.
        num_ground_truth: Boxes to detect in them, crowd not counted.
        num_detections: Detections given for them.
        num_without_area: Boxes of the annotation file that were left out, as nothing can match
            them.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    ap_by_iou: Mapping[str, float | None]
    per_class: tuple[ClassMetrics, ...]
    num_images: int
    num_ground_truth: int
    num_detections: int
    num_without_area: int

    def summary(self) -> dict[str, float | None]:
        """Return the twelve numbers by key, ``ap`` first."""
        return {name: getattr(self, name) for name in SUMMARY_KEYS}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, the twelve numbers at the top level."""
        return asdict(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the summary, AP by IoU and the table of categories."""
        yield self.summary_table()
        yield _two_rows("AP by IoU", self.ap_by_iou)
        yield self.class_table()

    def summary_table(self) -> Table:
        """Lay the twelve numbers out in two rows of six."""
        table = _two_rows("COCO metrics", dict(list(self.summary().items())[:6]))
        rest = list(self.summary().items())[6:]
        table.add_section()
        table.add_row(*(key for key, _ in rest), style="bold")
        table.add_row(*(_percent(value) for _, value in rest))
        return table

    def class_table(self) -> Table:
        """Lay the categories out, one row each."""
        table = Table(title="by category")
        table.add_column("category")
        for title in ("boxes", "AP", "AP50"):
            table.add_column(title, justify="right")
        for entry in self.per_class:
            count = str(entry.num_ground_truth)
            table.add_row(entry.name, count, _percent(entry.ap), _percent(entry.ap50))
        return table


SUMMARY_KEYS = tuple(field.name for field in fields(CocoMetrics))[:12]


def _two_rows(title: str, numbers: Mapping[str, float | None]) -> Table:
    table = Table(title=title)
    for key in numbers:
        table.add_column(key, justify="right")
    table.add_row(*(_percent(value) for value in numbers.values()))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
