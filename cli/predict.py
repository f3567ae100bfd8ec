"""``msdetr predict``: detect objects in image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msdetr.errors import MsdetrError, counted

from .options import (
    DeviceOption,
    JsonOption,
    MaxPixelsOption,
    OverridesOption,
    PredictingOption,
    PublishedRecipeOption,
    ReplaceResultsOption,
    examples,
)
from .say import say_json

EXAMPLES = examples(
    "msdetr predict --ckpt runs/shapes_tiny photo.jpg",
    "msdetr predict --ckpt runs/mine photos 'more/**/*.png' --output found --threshold 0.5",
    "msdetr predict --ckpt ddetr_300q.pth --recipe ddetr_300q street.jpg --json",
)


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Image files, folders, patterns.")
    ],
    *,
    checkpoint: PredictingOption,
    recipe: PublishedRecipeOption = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write drawings/, predictions.json and images.json."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum score of a detection.")
    ] = 0.3,
    max_pixels: MaxPixelsOption = None,
    force: ReplaceResultsOption = False,
    device: DeviceOption = "auto",
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Detect objects in images. Gives a table, drawings and COCO results."""
    from msdetr.api.predict import predict as run_prediction
    from msdetr.terminal import LiteralConsole

    limit = [] if max_pixels is None else [f"data.max_image_pixels={max_pixels}"]
    report = run_prediction(
        checkpoint,
        inputs,
        recipe=recipe,
        output=output,
        threshold=threshold,
        device=device,
        overrides=[*(overrides or ()), *limit],
        force=force,
    )
    if as_json:
        say_json(report.to_dict())
    else:
        LiteralConsole().print(report.table())
    if report.unreadable:
        count = len(report.unreadable)
        raise MsdetrError(
            f"{count} of {counted(count + len(report.files), 'file')} could not be read"
        )
