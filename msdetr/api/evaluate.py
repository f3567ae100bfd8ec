"""Evaluation of a checkpoint or of a results file: the workflow behind ``msdetr eval``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.checkpoints.official import open_checkpoint
from msdetr.api.datasets import EvaluationData, load_evaluation_data
from msdetr.api.detection.dataset_detector import DatasetDetector, Results, merge_shares
from msdetr.api.evaluate_predictions import evaluate_predictions, refuse_without_checkpoint
from msdetr.api.evaluation_report import FILES, Analyses, EvaluationReport
from msdetr.api.output import check_output
from msdetr.build import build_loader
from msdetr.engine.environment import collect_environment
from msdetr.engine.processes import Processes, create_accelerator
from msdetr.errors import UsageError
from msdetr.evaluation.results import read_results
from msdetr.ops import default_backend
from msdetr.recipe import recipe_to_dict


def evaluate(
    checkpoint: Path | None,
    *,
    recipe: str | None = None,
    data: str | None = None,
    output: Path | None = None,
    device: str = "auto",
    per_layer: bool = False,
    nms_sweep: bool = False,
    errors: bool = False,
    from_predictions: Path | None = None,
    overrides: Sequence[str] = (),
) -> EvaluationReport | None:
    """Evaluate a checkpoint on COCO-format data. Draws no random numbers.

    Args:
        checkpoint: Checkpoint or run directory; averaged weights where the run kept them. Or a
            published ``.pth`` file. None to score the results file of any detector.
        recipe: Name or path of a published file's recipe.
        data: A root in COCO's layout, or "IMAGES,ANNOTATIONS.json"; the recipe's validation
            split by default. Without ``checkpoint`` needed, and an annotation file suffices.
        output: Directory for ``metrics.json`` and ``predictions.json``; none are written
            without it. Must not hold them yet.
        device: "auto", "cpu", "cuda" or "cuda:N".
        per_layer: Also evaluate every decoder layer.
        nms_sweep: Also evaluate after class-wise suppression at several thresholds.
        errors: Also tell kinds of errors apart; needs hotcoco.
        from_predictions: Score this results file instead of running the model.
        overrides: Recipe fields to change, ``key=value``.

    Returns:
        The report; None on all processes but the main one.

    Raises:
        InvalidInputError: Checkpoint, data, results or output cannot be used as asked.
    """
    if per_layer and from_predictions is not None:
        raise UsageError("`per_layer`", "needs the model; it cannot go with `from_predictions`")
    analyses = Analyses(nms_sweep=nms_sweep, errors=errors)
    if checkpoint is None:
        refuse_without_checkpoint(recipe=recipe, overrides=overrides)
        return evaluate_predictions(from_predictions, data, output=output, analyses=analyses)
    analyses.check()
    if output is not None:
        check_output(output, FILES)
    loaded = open_checkpoint(checkpoint, recipe=recipe, overrides=overrides)
    images = load_evaluation_data(loaded.recipe, loaded.label_space, data)
    layers = _obtain(loaded, images, from_predictions, device=device, per_layer=per_layer)
    if layers is None:
        return None
    report = analyses.report(
        images.ground_truth,
        layers,
        images.image_ids,
        setting=_setting(loaded, images, from_predictions),
        per_layer=per_layer,
        has_suppressor=loaded.recipe.model.suppressor is not None,
    )
    if output is not None:
        report.write(output, layers[-1])
    return report


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


def _obtain(
    loaded: LoadedCheckpoint,
    images: EvaluationData,
    from_predictions: Path | None,
    *,
    device: str,
    per_layer: bool,
) -> list[Results] | None:
    """Read the results file if there is one, else detect."""
    if from_predictions is not None:
        return [read_results(from_predictions, images.ground_truth)]
    return _detect(loaded, images, device=device, per_layer=per_layer)


def _detect(
    loaded: LoadedCheckpoint, images: EvaluationData, *, device: str, per_layer: bool
) -> list[Results] | None:
    accelerator = create_accelerator(device=device)
    processes = Processes(accelerator)
    detector = DatasetDetector(
        images.dataset,
        build_loader(loaded.recipe.data, images.dataset, loaded.collator),
        loaded.detection_settings,
        rank=processes.rank,
        num_processes=processes.num_processes,
    )
    model = loaded.model.to(accelerator.device)
    shares = processes.gather(detector.detect(model, every_layer=per_layer))
    if not processes.is_main:
        return None
    # A process without images knows of no layers.
    num_layers = max(len(share) for share in shares)
    return [
        merge_shares(share[layer] for share in shares if layer < len(share))
        for layer in range(num_layers)
    ]


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
