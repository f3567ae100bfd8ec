"""`msdetr eval`: evaluate a checkpoint on COCO-format data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    CheckpointOption,
    DataOption,
    DeviceOption,
    JsonOption,
    OverridesOption,
    PublishedRecipeOption,
    examples,
)

EXAMPLES = examples(
    "msdetr eval --ckpt runs/shapes_tiny",
    "msdetr eval --ckpt runs/ddetr_pp_900q --data /data/coco --output results",
    "msdetr eval --ckpt ms_ddetr_300q.pth --recipe ddetr_300q --data /data/coco --json",
)


def evaluate(
    *,
    checkpoint: CheckpointOption,
    recipe: PublishedRecipeOption = None,
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write metrics.json and predictions.json there."),
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also evaluate every decoder layer.")
    ] = False,
    from_predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score this COCO results file; do not run the model."),
    ] = None,
    device: DeviceOption = "auto",
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a checkpoint: the twelve COCO numbers, AP by IoU and by class."""
    from rich.console import Console

    from msdetr.api.evaluate import evaluate as run_evaluation
    from msdetr.api.evaluate import layer_table

    report = run_evaluation(
        checkpoint,
        recipe=recipe,
        data=data,
        output=output,
        device=device,
        per_layer=per_layer,
        from_predictions=from_predictions,
        overrides=overrides or (),
    )
    if report is None:
        return
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
        return
    console = Console()
    console.print(report.metrics)
    if report.per_layer:
        console.print(layer_table(report))
