"""``msdetr data``: check data before training on them."""

from __future__ import annotations

import json

import typer

from msdetr.errors import DataError
from msdetr.recipe import load_recipe

from .options import JsonOption, OverridesOption, RecipeArgument, examples
from .say import say

app = typer.Typer(no_args_is_help=True, help="Check data before training on them.")


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
    """Check annotations and every image of a recipe's data; exit code 2 if there are errors."""
    loaded = load_recipe(recipe, overrides or ())
    from msdetr.api.data_check import check_data
    from msdetr.terminal import LiteralConsole

    report = check_data(loaded)
    if as_json:
        say(json.dumps(report.to_dict(), indent=2))
    else:
        LiteralConsole().print(report)
    if report.num_errors:
        raise typer.Exit(DataError.exit_code)
