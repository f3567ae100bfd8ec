"""Metrics of the one-to-one and the one-to-many branch, by decoder layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.matching import Result
from msdetr.evaluation.metrics import CocoMetrics
from msdetr.evaluation.nms_sweep import NmsResult, score_with_nms

NMS_THRESHOLD = 0.6
_SHOWN = ("ap", "ap50", "ap75")


@dataclass(frozen=True)
class LayerMetrics:
    """Metrics of one decoder layer in one branch.

    Attributes:
        metrics: As it is.
        after_nms: After class-wise suppression at ``NMS_THRESHOLD``: where this is much higher,
            the boxes are found, but several times.
    """

    metrics: CocoMetrics
    after_nms: NmsResult

    def to_dict(self) -> dict[str, float | None]:
        """Return the twelve numbers, and two after suppression, as JSON values."""
        after = {"ap_after_nms": self.after_nms.ap, "ap50_after_nms": self.after_nms.ap50}
        return {**self.metrics.summary(), **after}


@dataclass(frozen=True)
class BranchMetrics:
    """Metrics of both branches; prints itself as a table with rich.

    Attributes:
        one_to_one: Of every decoder layer, from the first; the last makes the detections.
        one_to_many: Likewise; None if the model has no such branch.
    """

    one_to_one: tuple[LayerMetrics, ...]
    one_to_many: tuple[LayerMetrics, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        many = self.one_to_many
        return {
            "nms_threshold": NMS_THRESHOLD,
            "one_to_one": [layer.to_dict() for layer in self.one_to_one],
            "one_to_many": None if many is None else [layer.to_dict() for layer in many],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print one row per branch and layer."""
        table = Table(title=f"by branch and decoder layer; right: after NMS at {NMS_THRESHOLD:g}")
        table.add_column("branch")
        for title in ("layer", *_SHOWN, "ap, NMS", "ap50, NMS"):
            table.add_column(title, justify="right")
        for row in self._rows():
            table.add_row(*row)
        yield table
        if self.one_to_many is None:
            yield "The model was trained without a one-to-many branch: it has one-to-one rows only."

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, layers in (
            ("one-to-one", self.one_to_one),
            ("one-to-many", self.one_to_many or ()),
        ):
            for number, layer in enumerate(layers):
                plain = layer.metrics.summary()
                values = [*(plain[key] for key in _SHOWN), layer.after_nms.ap, layer.after_nms.ap50]
                yield name, str(number), *("-" if v is None else f"{100 * v:.1f}" for v in values)


def measure_branches(
    ground_truth: Mapping[str, Any],
    branches: Mapping[str, Sequence[Sequence[Result]]],
    *,
    image_ids: Sequence[int] | None = None,
) -> BranchMetrics:
    """Score the detections of every decoder layer of both branches.

    Args:
        ground_truth: Content of an annotation file.
        branches: Detections in COCO's results format by layer, of "one_to_one" and, where the
            model has the branch, of "one_to_many".
        image_ids: Images to evaluate; all by default.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    scored = {
        name: tuple(
            LayerMetrics(
                metrics=evaluate_boxes(ground_truth, results, image_ids=image_ids),
                after_nms=score_with_nms(ground_truth, results, NMS_THRESHOLD, image_ids=image_ids),
            )
            for results in layers
        )
        for name, layers in branches.items()
    }
    return BranchMetrics(scored["one_to_one"], scored.get("one_to_many"))
