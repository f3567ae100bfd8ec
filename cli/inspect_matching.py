"""`msdetr inspect-matching`: see which queries both assignments give to the targets, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from msdetr.errors import UsageError

from .options import (
    DataOption,
    DeviceOption,
    JsonOption,
    NumImagesOption,
    OverridesOption,
    PublishedRecipeOption,
    examples,
)

EXAMPLES = examples(
    "msdetr inspect-matching --ckpt runs/shapes_tiny --num-images 20 --output matching",
    "msdetr inspect-matching --trace matching/trace --image-ids 1000001 --output one_image",
    "msdetr inspect-matching --from-scratch shapes_tiny --layers 0,2 --output untrained",
)


def inspect_matching(
    *,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Write trace, assignments.csv, summary.json, pictures and matching.html there.",
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--ckpt",
            metavar="PATH",
            help="Checkpoint or run directory, or a published .pth file. Beside --trace: what "
            "the trace must have been made of.",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Stored trace: runs no model, needs no GPU."),
    ] = None,
    from_scratch: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE", help="Trace an untrained model of this recipe: random weights."
        ),
    ] = None,
    recipe: PublishedRecipeOption = None,
    data: DataOption = None,
    num_images: NumImagesOption = 200,
    image_ids: Annotated[
        str | None,
        typer.Option(
            "--image-ids", "--images", metavar="IDS", help="These images instead, as in 139,285."
        ),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Decoder layers, as in 0,5; the sheets of targets show the last of them.",
        ),
    ] = "all",
    top: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Best queries per target to list beside the assigned ones."
        ),
    ] = 20,
    pictures: Annotated[
        int, typer.Option(min=0, metavar="N", help="Draw the first N images with targets.")
    ] = 20,
    device: DeviceOption = "auto",
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one-to-one and one-to-many assignments, and why queries were turned down.

    One forward pass in evaluation mode makes a match trace; everything shown is computed from it.
    """
    from rich.console import Console

    from msdetr.api.inspect_matching import InspectionOptions, TraceSource
    from msdetr.api.inspect_matching import inspect_matching as run_inspection
    from msdetr.api.traces.make_trace import ProbeSet

    source = TraceSource(
        checkpoint=checkpoint,
        trace=trace,
        from_scratch=from_scratch,
        recipe=recipe,
        data=data,
        probe=ProbeSet(num_images, _parse_ids(image_ids)),
        device=device,
        overrides=tuple(overrides or ()),
    )
    options = InspectionOptions(layers=layers, top=top, num_pictures=pictures)
    report = run_inspection(source, output, options)
    if as_json:
        typer.echo(json.dumps(report.summary.to_dict(), indent=2))
        return
    Console().print(report.table())
    typer.echo("\n".join(str(file) for file in report.files))


def _parse_ids(text: str | None) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            "--image-ids", f"expected numbers separated by commas, got {text!r}"
        ) from None
