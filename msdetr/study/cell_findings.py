"""What a finished cell comes to, computed from its stored detections and its logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.found_targets import FoundTargets, find_targets
from msdetr.evaluation.image_matches import match_images
from msdetr.evaluation.matching import Result, fastest_library
from msdetr.evaluation.nms_sweep import NmsSweep, suppress_results, sweep_nms
from msdetr.evaluation.tide_errors import TideErrors, measure_errors
from msdetr.study.image_bootstrap import NUM_RESAMPLES, Resampled, resample
from msdetr.study.positive_counts import summarize_positives
from msdetr.study.seed_means import Values
from msdetr.study.stored_analysis import StoredAnalysis

FAMILIES = ("metrics", "nms", "errors", "branches", "branches_nms", "positives", "costs")
COSTS = (
    *("train_seconds", "evaluation_seconds", "images_seen"),
    *("peak_memory_mib", "step_flops", "image_flops"),
)


@dataclass(frozen=True, kw_only=True)
class StoredCell:
    """What the files of a finished cell say, but for its detections.

    Attributes:
        arm: Name of the arm.
        seed: Its seed.
        metrics: The twelve numbers of its last evaluation.
        curve: Finished epochs, and the study's metric after them.
        costs: What the training cost, by the names in ``COSTS``; None where that is not told.
        analysis: None if the cell has not been analysed.
        machine: Kind of machine it ran on; None where it is not told.
    """

    arm: str
    seed: int
    metrics: Values
    curve: tuple[tuple[int, float], ...]
    costs: Values
    analysis: StoredAnalysis | None
    machine: str | None


@dataclass(frozen=True, kw_only=True)
class CellFindings:
    """A cell with everything that was computed of it.

    Attributes:
        stored: What its files say; the twelve numbers are those of the detections that the study
            compares.
        resampled: The study's metric on resampled images.
        nms: Metrics of all detections, without suppression and with it.
        errors: Kinds of errors; None without hotcoco.
        targets: Targets that it finds.
    """

    stored: StoredCell
    resampled: Resampled
    nms: NmsSweep
    errors: TideErrors | None
    targets: FoundTargets

    def measures(self) -> dict[str, Values]:
        """Return numbers by family of ``FAMILIES``; none where they are not known."""
        kinds = {} if self.errors is None else self.errors.kinds
        analysis = self.stored.analysis
        return {
            "metrics": self.stored.metrics,
            "nms": {_threshold(row.threshold): row.ap for row in self.nms.rows},
            "errors": {kind: cost.ap50 for kind, cost in kinds.items()},
            "branches": self._layers("ap"),
            "branches_nms": self._layers("ap_after_nms"),
            "positives": {} if analysis is None else summarize_positives(analysis.positives),
            "costs": _costs(self.stored.costs),
        }

    def _layers(self, key: str) -> Values:
        analysis = self.stored.analysis
        if analysis is None:
            return {}
        return {
            f"{branch}/{number}": layer[key]
            for branch, layers in analysis.branches.items()
            for number, layer in enumerate(layers)
            if key in layer
        }


def examine_cell(
    stored: StoredCell,
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int],
    metric: str,
    nms_threshold: float | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> CellFindings:
    """Compute what a cell's detections come to.

    Args:
        stored: What else is known of the cell.
        ground_truth: Content of the annotation file.
        results: Its detections in COCO's results format.
        image_ids: Images that it was evaluated on.
        metric: Decides the study; one of the twelve keys.
        nms_threshold: IoU of the class-wise suppression that comes before everything but the
            sweep of thresholds; None for none.
        num_resamples: Resamples of the images.
    """
    sweep = sweep_nms(ground_truth, results, image_ids=image_ids)
    if nms_threshold is not None:
        results = suppress_results(results, nms_threshold)
        metrics = evaluate_boxes(ground_truth, results, image_ids=image_ids).summary()
        stored = replace(stored, metrics=metrics)
    matches = match_images(ground_truth, results, image_ids=image_ids)
    errors = None
    if fastest_library() == "hotcoco":
        errors = measure_errors(ground_truth, results, image_ids=image_ids)
    return CellFindings(
        stored=stored,
        resampled=resample(matches, metric, num_resamples=num_resamples),
        nms=sweep,
        errors=errors,
        targets=find_targets(ground_truth, results, image_ids=image_ids),
    )


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _costs(told: Values) -> Values:
    costs = {key: value for key, value in told.items() if value is not None}
    seconds, images = costs.get("train_seconds"), costs.get("images_seen")
    if seconds and images:
        costs["images_per_second"] = images / seconds
    return costs
