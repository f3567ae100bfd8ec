"""``msdetr data``: check data before training on them, and convert those of other layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from msdetr.errors import DataError
from msdetr.recipe import load_recipe

from .groups import CommandGroup
from .options import JsonOption, OverridesOption, RecipeArgument, examples
from .say import say, say_json

app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="Check data, or convert those of other layouts."
)


@app.command(
    epilog=examples(
        "msdetr data check shapes_tiny",
        "msdetr data check ddetr_300q --set data.root=/data/coco",
        "msdetr data check my_recipe.yaml --json",
    ),
)
def check(
    recipe: RecipeArgument, overrides: OverridesOption = None, as_json: JsonOption = False
) -> None:
    """Check annotations and every image of a recipe's data.

    Exit code 2 if there are errors.
    """
    loaded = load_recipe(recipe, overrides or ())
    from msdetr.api.data_check import check_data
    from msdetr.terminal import LiteralConsole

    report = check_data(loaded)
    if as_json:
        say_json(report.to_dict())
    else:
        LiteralConsole().print(report)
    if report.num_errors:
        raise typer.Exit(DataError.exit_code)


@app.command(
    epilog=examples(
        "msdetr data convert yolo cells/data.yaml --output cells_coco",
        "msdetr data convert yolo downloads/cells --output cells_coco",
        "msdetr data convert voc VOCdevkit/VOC2012 --output voc_coco",
    ),
)
def convert(
    layout: Annotated[
        Literal["yolo", "voc"],
        typer.Argument(metavar="yolo|voc", help="Layout of the source.", show_default=False),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="YAML file or its folder (yolo), or the folder (voc)."
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Root of the new data set.")],
) -> None:
    """Copy a data set into COCO's layout.

    Exit code 2 and a line for each thing that is wrong with it.
    """
    from msdetr.api.data_convert import convert_data

    converted = convert_data(layout, source, output)
    for line in converted.lines():
        say(line, err=True)
    say(str(converted.output))
    advice = f"next: msdetr data check small_pretrained --set data.root={output}"
    say(advice, err=True)
