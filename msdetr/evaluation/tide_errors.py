"""What kinds of errors cost how much AP50, as TIDE tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from msdetr.errors import UsageError
from msdetr.evaluation.matching import Result, fastest_library, match_boxes, prepare_task

# What hotcoco calls them.
_NAMES = {
    "classification": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
_MEANINGS = {
    "classification": "right place, wrong class",
    "localisation": "right class, IoU 0.1 to 0.5",
    "both": "wrong class, IoU 0.1 to 0.5",
    "duplicate": "right, but the target is taken by a higher score",
    "background": "IoU below 0.1 with every target",
    "missed": "targets that no error above stands for",
}

ERROR_KINDS = tuple(_NAMES)


@dataclass(frozen=True)
class ErrorCost:
    """One kind of error.

    Attributes:
        ap50: AP50 in 0..1 that would be gained if there were no such errors.
        count: Number of such errors.
    """

    ap50: float
    count: int


@dataclass(frozen=True)
class TideErrors:
    """Result of the analysis; prints itself as a table with rich.

    The costs do not add up to what is missing from 1: mending one kind of error changes what
    another costs.

    Attributes:
        ap50: As it is, in 0..1; None without ground truth.
        kinds: Cost of every kind of ``ERROR_KINDS``.
    """

    ap50: float | None
    kinds: Mapping[str, ErrorCost]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {"ap50": self.ap50, **{name: asdict(cost) for name, cost in self.kinds.items()}}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print one row per kind."""
        table = Table(title="TIDE errors, in points of AP50")
        table.add_column("error")
        table.add_column("costs", justify="right")
        table.add_column("count", justify="right")
        table.add_column("meaning")
        for name, cost in self.kinds.items():
            table.add_row(name, f"{100 * cost.ap50:.1f}", str(cost.count), _MEANINGS[name])
        yield table


def require_tide() -> None:
    """Refuse where the errors cannot be computed; called before any work.

    Raises:
        UsageError: hotcoco is missing or too old.
    """
    if fastest_library() != "hotcoco":
        raise UsageError("TIDE errors", "need hotcoco 1.3 or later: pip install 'msdetr[fast]'")


def measure_errors(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
) -> TideErrors:
    """Tell errors apart and compute what each kind costs; arguments as of ``evaluate_boxes``.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
        UsageError: hotcoco is missing.

    Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV
    2020, section 2.
    """
    require_tide()
    task = prepare_task(ground_truth, results, image_ids=image_ids)
    # hotcoco's alone: the protocol of both libraries does not have it.
    evaluator: Any = match_boxes(task, "hotcoco")
    found = evaluator.tide_errors()
    has_truth = any(not entry["iscrowd"] for entry in task.annotations)
    return TideErrors(
        ap50=float(found["ap_base"]) if has_truth else None,
        kinds={
            name: ErrorCost(float(found["delta_ap"][theirs]), int(found["counts"][theirs]))
            for name, theirs in _NAMES.items()
        },
    )
