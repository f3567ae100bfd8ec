"""``msdetr recipes``: list, show, compare, copy and validate recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from msdetr.errors import RecipeError, UsageError
from msdetr.recipe import load_recipe, packaged_recipes, recipe_to_commented_yaml, recipe_to_yaml
from msdetr.recipe.differences import find_settings_that_differ, load_compared
from msdetr.terminal import LiteralConsole

from .completion import complete_recipe
from .flags import in_flags
from .groups import CommandGroup
from .options import JsonOption, OverridesOption, RecipeArgument, examples
from .say import say, say_json

app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="List, show, compare, copy and validate recipes."
)


_COMPARED = "Name of a packaged recipe, a file, or a run directory."
FirstArgument = Annotated[
    str, typer.Argument(metavar="A", help=_COMPARED, autocompletion=complete_recipe)
]
SecondArgument = Annotated[
    str, typer.Argument(metavar="B", help=_COMPARED, autocompletion=complete_recipe)
]


@app.command(
    "list",
    epilog=examples(
        "msdetr recipes list",
        "msdetr recipes list --json",
        "msdetr recipes list --json | python -m json.tool",
    ),
)
def list_recipes(as_json: JsonOption = False) -> None:
    """List the packaged recipes with a summary of each."""
    found = packaged_recipes()
    if as_json:
        rows = [{"name": i.name, "summary": i.summary, "path": str(i.path)} for i in found]
        say_json(rows)
        return
    table = Table("name", "summary", box=box.SIMPLE_HEAD)
    for info in found:
        table.add_row(info.name, info.summary)
    LiteralConsole().print(table)


@app.command(
    epilog=examples(
        "msdetr recipes show ddetr_pp_900q",
        "msdetr recipes show shapes_tiny --set train.epochs=3",
        "msdetr recipes show ddetr_300q > resolved.yaml",
    ),
)
def show(recipe: RecipeArgument, overrides: OverridesOption = None) -> None:
    """Print a recipe as YAML. Has every field, inherited and default ones included."""
    say(recipe_to_yaml(load_recipe(recipe, overrides or ())).removesuffix("\n"))


@app.command(
    epilog=examples(
        "msdetr recipes diff ddetr_300q ddetr_pp_900q",
        "msdetr recipes diff shapes_tiny my_recipe.yaml",
        "msdetr recipes diff runs/first runs/second --json",
    ),
)
def diff(first: FirstArgument, second: SecondArgument, *, as_json: JsonOption = False) -> None:
    """Show the fields in which two recipes differ. Descriptions are not compared."""
    from msdetr.api.runs import difference_table

    found = find_settings_that_differ(load_compared(first), load_compared(second))
    if as_json:
        say_json({d.key: {"first": d.first, "second": d.second} for d in found})
    elif found:
        LiteralConsole().print(difference_table(found, first, second))
    else:
        say("the recipes do not differ", err=True)


@app.command(
    epilog=examples(
        "msdetr recipes copy ddetr_300q my_recipe.yaml",
        "msdetr recipes copy shapes_tiny fast.yaml --set train.epochs=3",
        "msdetr recipes copy small_from_scratch cells.yaml --set data.root=cells",
    ),
)
def copy(
    recipe: RecipeArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="YAML file to write.")],
    overrides: OverridesOption = None,
) -> None:
    """Write a recipe with every field to a new file. It is to be edited there."""
    text = recipe_to_commented_yaml(load_recipe(recipe, overrides or ()), recipe)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        message = "exists already and is left as it is; name another file or remove this one"
        raise UsageError(str(path), message) from error
    except OSError as error:
        path.unlink(missing_ok=True)  # half of it, on a full disk
        raise UsageError(str(path), f"cannot be written: {error.strerror}") from error
    say(f"wrote {path}; next: msdetr recipes validate {path}", err=True)


@app.command(
    epilog=examples(
        "msdetr recipes validate my_recipe.yaml",
        "msdetr recipes validate first.yaml second.yaml",
        "msdetr recipes validate ddetr_300q --set model.num_queries=100",
    ),
)
def validate(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE...",
            help="Paths of recipes, or names of packaged ones.",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: OverridesOption = None,
) -> None:
    """Check recipes without data and print every problem.

    Exit code 2 if there is one.
    """
    num_invalid = 0
    for name in recipes:
        try:
            load_recipe(name, overrides or ())
            say(f"{name}: valid")
        except RecipeError as error:
            num_invalid += 1
            say(error.text(in_flags), err=True)
    if num_invalid:
        raise typer.Exit(RecipeError.exit_code)
