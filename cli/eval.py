"""``msdetr eval``: evaluate a checkpoint or a results file on COCO-format data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msdetr.errors import UsageError

from .options import (
    DataOption,
    DeviceOption,
    JsonOption,
    OverridesOption,
    ProcessesOption,
    PublishedRecipeOption,
    ReplaceResultsOption,
    examples,
)
from .processes import run_in_processes
from .say import say_json

EXAMPLES = examples(
    "msdetr eval --ckpt runs/shapes_tiny --per-branch --output results",
    "msdetr eval --from-predictions results.json --data instances_val2017.json --errors",
    "msdetr eval --ckpt ms_ddetr_300q.pth --recipe ddetr_300q --data /data/coco --json",
)

EvaluatedCheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--ckpt", metavar="PATH", help="Checkpoint or run directory, or a published .pth file."
    ),
]


def evaluate(
    context: typer.Context,
    *,
    checkpoint: EvaluatedCheckpointOption = None,
    recipe: PublishedRecipeOption = None,
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write metrics.json and predictions.json there."),
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also evaluate every decoder layer.")
    ] = False,
    per_branch: Annotated[
        bool,
        typer.Option(
            "--per-branch", help="Also evaluate the one-to-one and one-to-many branch by layer."
        ),
    ] = False,
    nms_sweep: Annotated[
        bool, typer.Option("--nms-sweep", help="Also evaluate after NMS at 0.5 to 0.9.")
    ] = False,
    errors: Annotated[
        bool, typer.Option("--errors", help="Also tell kinds of errors apart, as TIDE does.")
    ] = False,
    from_predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Score this COCO results file, of any detector if without --ckpt."
        ),
    ] = None,
    force: ReplaceResultsOption = False,
    device: DeviceOption = "auto",
    processes: ProcessesOption = None,
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a checkpoint or a results file.

    Shows the twelve COCO numbers, AP by IoU and AP by class.
    """
    if processes is not None and from_predictions is not None:
        raise UsageError("--processes", "cannot be combined with --from-predictions")
    if run_in_processes(context, processes, device):
        return
    from msdetr.api.evaluate import evaluate as run_evaluation
    from msdetr.api.evaluate import layer_table, suppressor_table
    from msdetr.terminal import LiteralConsole

    report = run_evaluation(
        checkpoint,
        recipe=recipe,
        data=data,
        output=output,
        device=device,
        per_layer=per_layer,
        per_branch=per_branch,
        nms_sweep=nms_sweep,
        errors=errors,
        from_predictions=from_predictions,
        overrides=overrides or (),
        force=force,
    )
    if report is None:
        return
    if as_json:
        say_json(report.to_dict())
        return
    console = LiteralConsole()
    console.print(report.metrics)
    if report.per_layer:
        console.print(layer_table(report))
        compared = suppressor_table(report)
        if compared is not None:
            console.print(compared)
    for analysis in (report.per_branch, report.nms_sweep, report.errors):
        if analysis is not None:
            console.print(analysis)
