"""Two checkpoints on the same images: by how much they differ, and in what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from msdetr.evaluation.found_targets import MIN_SCORE, FoundTargets, find_targets
from msdetr.evaluation.image_matches import match_images
from msdetr.evaluation.matching import Result, fastest_library
from msdetr.evaluation.metrics import SUMMARY_KEYS
from msdetr.evaluation.nms_sweep import NmsSweep, sweep_nms
from msdetr.evaluation.tide_errors import TideErrors, measure_errors
from msdetr.study.image_bootstrap import NUM_RESAMPLES, ImageDifference, bootstrap_images

METRICS = SUMMARY_KEYS[:6]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint's detections come to.

    Attributes:
        name: As the user gave it.
        nms_sweep: Metrics after suppression.
        errors: Kinds of errors; None without hotcoco.
        targets: Targets that it finds.
    """

    name: str
    nms_sweep: NmsSweep
    errors: TideErrors | None
    targets: FoundTargets


@dataclass(frozen=True)
class CheckpointComparison:
    """Two checkpoints on the same images, first minus second; prints itself with rich.

    Attributes:
        first: One of them.
        second: The other.
        differences: Of AP, AP50, AP75 and AP by size, where defined.
        num_images: Images that both were scored on.
    """

    first: Checkpoint
    second: Checkpoint
    differences: tuple[ImageDifference, ...]
    num_images: int

    @property
    def caveat(self) -> str:
        """What this cannot tell."""
        return (
            f"These intervals say how the difference of two checkpoints depends on the "
            f"{self.num_images} images. They cannot tell whether one method is better than "
            "another: other seeds give other checkpoints, and it takes several of each."
        )

    @property
    def num_won(self) -> int:
        """Targets that only the first finds."""
        return len(self.first.targets.found - self.second.targets.found)

    @property
    def num_lost(self) -> int:
        """Targets that only the second finds."""
        return len(self.second.targets.found - self.first.targets.found)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        both = (self.first, self.second)
        return {
            "names": [each.name for each in both],
            "num_images": self.num_images,
            "differences": [each.to_dict() for each in self.differences],
            "errors": [None if each.errors is None else each.errors.to_dict() for each in both],
            "nms_sweep": [each.nms_sweep.to_dict() for each in both],
            "targets": {
                "min_score": MIN_SCORE,
                "all": self.first.targets.num_targets,
                "found": [len(each.targets.found) for each in both],
                "won": self.num_won,
                "lost": self.num_lost,
            },
            "caveat": self.caveat,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the tables, the targets and the caveat."""
        yield self._difference_table()
        yield self._nms_table()
        if self.first.errors is not None and self.second.errors is not None:
            yield _error_table(self.first.errors, self.second.errors)
        yield self._targets()
        yield self.caveat

    def _difference_table(self) -> Table:
        table = Table(title=f"{self.first.name} minus {self.second.name}")
        for title in ("metric", "difference", "95% interval over images"):
            table.add_column(title, justify="right")
        for each in self.differences:
            table.add_row(each.metric, _points(each.difference), _ends(each))
        return table

    def _nms_table(self) -> Table:
        table = Table(title="AP after class-wise NMS")
        for title in ("IoU", "first", "second", "difference"):
            table.add_column(title, justify="right")
        for ours, theirs in zip(self.first.nms_sweep.rows, self.second.nms_sweep.rows, strict=True):
            name = "none" if ours.threshold is None else f"{ours.threshold:g}"
            if ours.ap is not None and theirs.ap is not None:
                values = (f"{100 * ours.ap:.1f}", f"{100 * theirs.ap:.1f}")
                table.add_row(name, *values, _points(ours.ap - theirs.ap))
        return table

    def _targets(self) -> str:
        return (
            f"Of {self.first.targets.num_targets} targets, {self.num_won} are found by the first "
            f"only and {self.num_lost} by the second only (IoU 0.5, score {MIN_SCORE:g} or more)."
        )


def compare_checkpoints(
    ground_truth: Mapping[str, Any],
    results: Mapping[str, Sequence[Result]],
    *,
    image_ids: Sequence[int] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> CheckpointComparison:
    """Compare the detections of two checkpoints.

    Args:
        ground_truth: Content of an annotation file.
        results: Detections in COCO's results format, by name: two entries.
        image_ids: Images to compare on; all by default.
        num_resamples: Resamples of the images.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    first, second = (
        _look_at(name, ground_truth, found, image_ids) for name, found in results.items()
    )
    pair = [match_images(ground_truth, found, image_ids=image_ids) for found in results.values()]
    differences = (
        bootstrap_images(pair[0], pair[1], metric, num_resamples=num_resamples)
        for metric in METRICS
    )
    return CheckpointComparison(
        first=first,
        second=second,
        differences=tuple(each for each in differences if each is not None),
        num_images=len(pair[0].image_ids),
    )


def _look_at(
    name: str,
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    image_ids: Sequence[int] | None,
) -> Checkpoint:
    errors = None
    if fastest_library() == "hotcoco":
        errors = measure_errors(ground_truth, results, image_ids=image_ids)
    return Checkpoint(
        name=name,
        nms_sweep=sweep_nms(ground_truth, results, image_ids=image_ids),
        errors=errors,
        targets=find_targets(ground_truth, results, image_ids=image_ids),
    )


def _error_table(first: TideErrors, second: TideErrors) -> Table:
    table = Table(title="TIDE errors, in points of AP50")
    for title in ("error", "first", "second", "difference"):
        table.add_column(title, justify="right")
    for row in _error_rows(first, second):
        table.add_row(*row)
    return table


def _error_rows(first: TideErrors, second: TideErrors) -> Iterator[tuple[str, ...]]:
    for name, ours in first.kinds.items():
        theirs = second.kinds[name]
        values = (f"{100 * ours.ap50:.1f}", f"{100 * theirs.ap50:.1f}")
        yield name, *values, _points(ours.ap50 - theirs.ap50)


def _ends(difference: ImageDifference) -> str:
    return f"{_points(difference.interval.low)} to {_points(difference.interval.high)}"


def _points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"
