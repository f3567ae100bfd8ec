"""Evaluation of a checkpoint or of a results file: the workflow behind ``msdetr eval``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.checkpoints.official import open_checkpoint
from msdetr.api.datasets import EvaluationData, load_evaluation_data, say_readings
from msdetr.api.detection.checkpoint_detections import detect_branches, detect_layers
from msdetr.api.detection.dataset_detector import BranchResults, Results
from msdetr.api.detection.operations import OperationCounts
from msdetr.api.evaluate_predictions import evaluate_predictions, refuse_without_checkpoint
from msdetr.api.evaluation_report import FILES, Analyses, EvaluationReport
from msdetr.api.output import check_results
from msdetr.engine.environment import collect_environment, peak_memory_mib
from msdetr.errors import UsageError
from msdetr.evaluation.branch_metrics import BranchMetrics, measure_branches
from msdetr.evaluation.results import read_results
from msdetr.ops import default_backend
from msdetr.recipe import recipe_to_dict
from msdetr.terminal import LiteralConsole


def evaluate(
    checkpoint: Path | None,
    *,
    recipe: str | None = None,
    data: str | None = None,
    output: Path | None = None,
    device: str = "auto",
    per_layer: bool = False,
    per_branch: bool = False,
    nms_sweep: bool = False,
    errors: bool = False,
    from_predictions: Path | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> EvaluationReport | None:
    """Evaluate a checkpoint on COCO-format data. Draws no random numbers.

    Args:
        checkpoint: Checkpoint or run directory; averaged weights where the run kept them. Or a
            published ``.pth`` file. None to score the results file of any detector.
        recipe: Name or path of a published file's recipe.
        data: A root in COCO's layout, or "IMAGES,ANNOTATIONS.json"; the recipe's validation
            split by default. Without ``checkpoint`` needed, and an annotation file suffices.
        output: Directory for ``metrics.json`` and ``predictions.json``; none are written
            without it. Must not hold them yet, unless with ``force``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        per_layer: Also evaluate every decoder layer.
        per_branch: Also evaluate every decoder layer of the one-to-one and of the one-to-many
            branch, without suppression and with it.
        nms_sweep: Also evaluate after class-wise suppression at several thresholds.
        errors: Also tell kinds of errors apart; needs hotcoco.
        from_predictions: Score this results file instead of running the model.
        overrides: Recipe fields to change, ``key=value``.
        force: Replace the files of an earlier evaluation.

    Returns:
        The report; None on all processes but the main one.

    Raises:
        InvalidInputError: Checkpoint, data, results or output cannot be used as asked.
    """
    if from_predictions is not None:
        _refuse_without_model(per_layer=per_layer, per_branch=per_branch)
    analyses = Analyses(nms_sweep=nms_sweep, errors=errors)
    if checkpoint is None:
        refuse_without_checkpoint(recipe=recipe, overrides=overrides)
        return evaluate_predictions(
            from_predictions, data, output=output, analyses=analyses, force=force
        )
    analyses.check()
    if output is not None:
        check_results(output, files=FILES, of="an evaluation", force=force)
    loaded = open_checkpoint(checkpoint, recipe=recipe, overrides=overrides)
    images = load_evaluation_data(loaded.recipe, loaded.label_space, data)
    started = time.perf_counter()
    found = _obtain(
        loaded,
        images,
        from_predictions,
        device=device,
        per_layer=per_layer,
        per_branch=per_branch,
    )
    if found is None:
        return None
    report = analyses.report(
        images.ground_truth,
        found.layers if per_layer else found.layers[-1:],
        images.image_ids,
        setting=_setting(loaded, images, from_predictions),
        per_layer=per_layer,
        branches=found.branches,
        has_suppressor=loaded.recipe.model.suppressor is not None,
    )
    if from_predictions is None:
        cost = _measure_cost(loaded, images, time.perf_counter() - started)
        report = replace(report, cost=cost)
    if output is not None:
        report.write(output, found.layers[-1])
    say_readings(images)
    if nms_sweep and from_predictions is None:
        _say_what_is_swept(loaded.recipe.evaluation.nms_threshold)
    return report


def evaluate_branches(
    loaded: LoadedCheckpoint, images: EvaluationData, *, device: str = "auto"
) -> BranchMetrics | None:
    """Evaluate every decoder layer of both branches of a loaded checkpoint.

    Args:
        loaded: The model; moved to the device.
        images: What to evaluate on; see ``load_evaluation_data``.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The metrics; None on all processes but the main one.
    """
    branches = detect_branches(loaded, images, device=device)
    if branches is None:
        return None
    return measure_branches(images.ground_truth, branches, image_ids=images.image_ids)


def layer_table(report: EvaluationReport) -> Table:
    """Return a table with one row per decoder layer, for the terminal."""
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    table = Table(title="by decoder layer")
    for title in ("layer", *keys):
        table.add_column(title, justify="right")
    names = [str(layer) for layer in range(len(report.per_layer))]
    if report.setting["recipe"]["model"].get("suppressor") is not None:
        names[-1] = "suppressor"
    for name, metrics in zip(names, report.per_layer, strict=True):
        values = [metrics.summary()[key] for key in keys]
        table.add_row(name, *("-" if v is None else f"{100 * v:.1f}" for v in values))
    return table


def suppressor_table(report: EvaluationReport) -> Table | None:
    """Return what the suppressor changes, for the terminal; None where it was not asked for."""
    before = report.before_suppressor
    if before is None:
        return None
    table = Table(title="before and after the suppressor")
    table.add_column("")
    for title in ("before", "after"):
        table.add_column(title, justify="right")
    rows = {"AP": [layer.ap for layer in report.per_layer[-2:]]}
    if before.nms_sweep is not None and report.nms_sweep is not None:
        rows["AP gained by the best NMS"] = [before.nms_sweep.gain, report.nms_sweep.gain]
    if before.errors is not None and report.errors is not None:
        both = (before.errors, report.errors)
        rows["duplicates (TIDE), in points of AP50"] = [e.kinds["duplicate"].ap50 for e in both]
    for name, values in rows.items():
        table.add_row(name, *("-" if value is None else f"{100 * value:.1f}" for value in values))
    return table


@dataclass(frozen=True)
class _Detected:
    """Results by decoder layer, and of both branches where asked for."""

    layers: list[Results]
    branches: BranchResults | None = None


def _refuse_without_model(**asked: bool) -> None:
    for name, is_asked in asked.items():
        if is_asked:
            raise UsageError(f"`{name}`", "needs the model; it cannot go with `from_predictions`")


def _obtain(
    loaded: LoadedCheckpoint,
    images: EvaluationData,
    from_predictions: Path | None,
    *,
    device: str,
    per_layer: bool,
    per_branch: bool,
) -> _Detected | None:
    """Read the results file if there is one, else detect."""
    if from_predictions is not None:
        return _Detected([read_results(from_predictions, images.ground_truth)])
    if per_branch:
        branches = detect_branches(loaded, images, device=device)
        if branches is None:
            return None
        # The layers before a suppressor are those of the one-to-many branch.
        before = branches["one_to_many"] if loaded.recipe.model.suppressor is not None else []
        return _Detected([*before, *branches["one_to_one"]], branches)
    layers = detect_layers(loaded, images, device=device, every_layer=per_layer)
    return None if layers is None else _Detected(layers)


def _measure_cost(
    loaded: LoadedCheckpoint, images: EvaluationData, seconds: float
) -> dict[str, Any]:
    """Collect what the evaluation cost, as JSON values; memory is that of the main process."""
    device = next(loaded.model.parameters()).device
    operations = OperationCounts(loaded.model)
    return {
        "evaluation_seconds": seconds,
        "peak_memory_mib": peak_memory_mib(device),
        "image_flops": operations.of_images(images.dataset, loaded.collator),
    }


def _say_what_is_swept(threshold: float | None) -> None:
    if threshold is not None:
        LiteralConsole(stderr=True).say(
            f"note: the sweep begins with detections that the recipe has suppressed at IoU "
            f"{threshold:g}; evaluation.nms_threshold=null sweeps what the model yields"
        )


def _setting(
    loaded: LoadedCheckpoint, images: EvaluationData, from_predictions: Path | None
) -> dict[str, Any]:
    recipe = loaded.recipe
    return {
        "checkpoint": str(loaded.path),
        "imported_from": loaded.info.get("imported_from"),
        "predictions": None if from_predictions is None else str(from_predictions),
        "annotations": str(images.dataset.index.annotations_file),
        "num_images": len(images.image_ids),
        "detections_per_image": recipe.evaluation.detections_per_image,
        "image_size": [recipe.data.eval_size, recipe.data.eval_max_size],
        "seed": recipe.train.seed,
        "op_backend": default_backend(next(loaded.model.parameters()).device.type),
        "environment": collect_environment(),
        "recipe": recipe_to_dict(recipe),
    }
