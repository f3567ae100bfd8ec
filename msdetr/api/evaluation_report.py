"""What an evaluation found, of a checkpoint or of a results file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.api.detection.dataset_detector import BranchResults, Results
from msdetr.api.output import writing
from msdetr.evaluation.branch_metrics import BranchMetrics, measure_branches
from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.matching import describe_library
from msdetr.evaluation.metrics import CocoMetrics
from msdetr.evaluation.nms_sweep import NmsSweep, sweep_nms
from msdetr.evaluation.results import write_results
from msdetr.evaluation.tide_errors import TideErrors, measure_errors, require_tide
from msdetr.files import replace_text

FILES = ("metrics.json", "predictions.json")


@dataclass(frozen=True)
class Analyzed:
    """What else was found out of the detections of one layer.

    Attributes:
        nms_sweep: Metrics after suppression; None unless asked for.
        errors: Kinds of errors; None unless asked for.
    """

    nms_sweep: NmsSweep | None = None
    errors: TideErrors | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what was asked for, as JSON values."""
        asked = {"nms_sweep": self.nms_sweep, "errors": self.errors}
        return {name: found.to_dict() for name, found in asked.items() if found is not None}


@dataclass(frozen=True)
class EvaluationReport:
    """Result of an evaluation.

    Attributes:
        metrics: Of the last decoder layer, which makes the detections.
        per_layer: Of every decoder layer, from the first; empty unless asked for.
        setting: What was evaluated and how, as JSON values.
        nms_sweep: Metrics after suppression; None unless asked for.
        errors: Kinds of errors; None unless asked for.
        per_branch: Metrics of both branches by decoder layer; None unless asked for.
        cost: Seconds, memory and operations, as JSON values; None where no model ran.
        before_suppressor: Both of the last layer before a suppressor; None without one, or
            unless every layer was asked for.
    """

    metrics: CocoMetrics
    per_layer: tuple[CocoMetrics, ...]
    setting: dict[str, Any]
    nms_sweep: NmsSweep | None = None
    errors: TideErrors | None = None
    per_branch: BranchMetrics | None = None
    cost: dict[str, Any] | None = None
    before_suppressor: Analyzed | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, the twelve numbers at the top level."""
        layers = [metrics.summary() for metrics in self.per_layer]
        before = self.before_suppressor
        branches = self.per_branch
        return {
            **self.metrics.to_dict(),
            "per_layer": layers,
            **({} if branches is None else {"per_branch": branches.to_dict()}),
            **Analyzed(self.nms_sweep, self.errors).to_dict(),
            **({} if before is None else {"before_suppressor": before.to_dict()}),
            **({} if self.cost is None else {"cost": self.cost}),
            "setting": self.setting,
        }

    def write(self, output: Path, results: Results) -> None:
        """Write ``metrics.json`` and ``predictions.json``.

        Args:
            output: Their directory; made if there is none.
            results: Detections that the metrics are of.

        Raises:
            UsageError: It cannot be written to.
        """
        with writing(output) as aside:
            replace_text(aside / FILES[0], json.dumps(self.to_dict(), indent=2) + "\n")
            write_results(aside / FILES[1], results)


@dataclass(frozen=True)
class Analyses:
    """What else to find out of detections.

    Attributes:
        nms_sweep: Metrics after suppression.
        errors: Kinds of errors.
    """

    nms_sweep: bool = False
    errors: bool = False

    def check(self) -> None:
        """Refuse what cannot be computed here; called before any work.

        Raises:
            UsageError: A package is missing.
        """
        if self.errors:
            require_tide()

    def report(
        self,
        ground_truth: Mapping[str, Any],
        layers: Sequence[Results],
        image_ids: Sequence[int],
        *,
        setting: dict[str, Any],
        per_layer: bool = False,
        branches: BranchResults | None = None,
        has_suppressor: bool = False,
    ) -> EvaluationReport:
        """Score the results of one or more layers; the analyses are of the last.

        Args:
            ground_truth: Content of the annotation file.
            layers: Results by layer.
            image_ids: Images to evaluate.
            setting: What is evaluated and how, as JSON values.
            per_layer: Keep the metrics of every layer.
            branches: Results of both branches by layer, where they are to be told apart.
            has_suppressor: Whether the last layer is a suppressor; with ``per_layer`` the
                analyses then are of the layer before it, too.
        """
        scored = [evaluate_boxes(ground_truth, each, image_ids=image_ids) for each in layers]
        last = self._analyze(ground_truth, layers[-1], image_ids)
        compared = has_suppressor and per_layer
        return EvaluationReport(
            metrics=scored[-1],
            per_layer=tuple(scored) if per_layer else (),
            setting={**setting, "evaluator": describe_library()},
            nms_sweep=last.nms_sweep,
            errors=last.errors,
            before_suppressor=self._analyze(ground_truth, layers[-2], image_ids)
            if compared
            else None,
            per_branch=measure_branches(ground_truth, branches, image_ids=image_ids)
            if branches is not None
            else None,
        )

    def _analyze(
        self, ground_truth: Mapping[str, Any], results: Results, image_ids: Sequence[int]
    ) -> Analyzed:
        truth, images = ground_truth, image_ids
        return Analyzed(
            sweep_nms(truth, results, image_ids=images) if self.nms_sweep else None,
            measure_errors(truth, results, image_ids=images) if self.errors else None,
        )
