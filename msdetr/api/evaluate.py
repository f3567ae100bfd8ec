"""Evaluation of a checkpoint or of a results file: the workflow behind ``msdetr eval``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.checkpoints.official import open_checkpoint
from msdetr.api.datasets import EvaluationData, load_evaluation_data
from msdetr.api.detection.dataset_detector import DatasetDetector, Results, merge_shares
from msdetr.api.output import check_output, writing
from msdetr.build import build_loader
from msdetr.engine.environment import collect_environment
from msdetr.engine.processes import Processes, create_accelerator
from msdetr.errors import UsageError
from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.metrics import CocoMetrics
from msdetr.evaluation.results import read_results, write_results
from msdetr.files import replace_text
from msdetr.ops import default_backend
from msdetr.recipe import recipe_to_dict

_FILES = ("metrics.json", "predictions.json")


@dataclass(frozen=True)
class EvaluationReport:
    """Result of an evaluation.

    Attributes:
        metrics: Of the last decoder layer, which makes the detections.
        per_layer: Of every decoder layer, from the first; empty unless asked for.
        setting: What was evaluated and how, as JSON values.
    """

    metrics: CocoMetrics
    per_layer: tuple[CocoMetrics, ...]
    setting: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, the twelve numbers at the top level."""
        layers = [metrics.summary() for metrics in self.per_layer]
        return {**self.metrics.to_dict(), "per_layer": layers, "setting": self.setting}


def evaluate(
    checkpoint: Path,
    *,
    recipe: str | None = None,
    data: str | None = None,
    output: Path | None = None,
    device: str = "auto",
    per_layer: bool = False,
    from_predictions: Path | None = None,
    overrides: Sequence[str] = (),
) -> EvaluationReport | None:
    """Evaluate a checkpoint on COCO-format data. Draws no random numbers.

    Args:
        checkpoint: Checkpoint or run directory; averaged weights where the run kept them. Or a
            published ``.pth`` file.
        recipe: Name or path of a published file's recipe.
        data: A root in COCO's layout, or "IMAGES,ANNOTATIONS.json"; the recipe's validation
            split by default.
        output: Directory for ``metrics.json`` and ``predictions.json``; none are written
            without it. Must not hold them yet.
        device: "auto", "cpu", "cuda" or "cuda:N".
        per_layer: Also evaluate every decoder layer.
        from_predictions: Score this results file instead of running the model.
        overrides: Recipe fields to change, ``key=value``.

    Returns:
        The report; None on all processes but the main one.

    Raises:
        InvalidInputError: Checkpoint, data, results or output cannot be used as asked.
    """
    if per_layer and from_predictions is not None:
        raise UsageError("`per_layer`", "needs the model; it cannot go with `from_predictions`")
    if output is not None:
        check_output(output, _FILES)
    loaded = open_checkpoint(checkpoint, recipe=recipe, overrides=overrides)
    images = load_evaluation_data(loaded.recipe, loaded.label_space, data)
    if from_predictions is not None:
        layers = [read_results(from_predictions, images.ground_truth)]
    else:
        found = _detect(loaded, images, device=device, per_layer=per_layer)
        if found is None:
            return None
        layers = found
    scored = [
        evaluate_boxes(images.ground_truth, results, image_ids=images.image_ids)
        for results in layers
    ]
    report = EvaluationReport(
        metrics=scored[-1],
        per_layer=tuple(scored) if per_layer else (),
        setting=_setting(loaded, images, from_predictions),
    )
    if output is not None:
        _write(output, report, layers[-1])
    return report


def layer_table(report: EvaluationReport) -> Table:
    """One row per decoder layer, for the terminal."""
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    table = Table(title="by decoder layer")
    for title in ("layer", *keys):
        table.add_column(title, justify="right")
    for layer, metrics in enumerate(report.per_layer):
        values = [metrics.summary()[key] for key in keys]
        table.add_row(str(layer), *("-" if v is None else f"{100 * v:.1f}" for v in values))
    return table


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


def _write(output: Path, report: EvaluationReport, results: Results) -> None:
    with writing(output):
        replace_text(output / _FILES[0], json.dumps(report.to_dict(), indent=2) + "\n")
        write_results(output / _FILES[1], results)
