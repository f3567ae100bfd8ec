"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="Path of a recipe, or the name of a packaged one."),
]

OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a field, as in --set train.lr=1e-4; YAML value; may be repeated.",
    ),
]

DeviceOption = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N; auto prefers a GPU.")
]

CheckpointOption = Annotated[
    Path,
    typer.Option(
        "--ckpt", metavar="PATH", help="Checkpoint or run directory, or a published .pth file."
    ),
]

PublishedRecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe", metavar="RECIPE", help="Recipe of a published .pth file, which has none inside."
    ),
]

DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROOT|IMAGES,JSON",
        help="COCO-layout root, or image folder and annotation file.",
        show_default="the recipe's validation split",
    ),
]

NumImagesOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="The first N images, by id.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def examples(*lines: str) -> str:
    """Epilog of a command's help: runnable examples, one per line.

    Args:
        lines: Command lines, without a prompt.
    """
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
