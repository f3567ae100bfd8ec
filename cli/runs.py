"""``msdetr runs``: what training runs reached, what they cost, how their recipes differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .completion import complete_recipe
from .groups import CommandGroup
from .options import JsonOption, examples
from .say import say, say_json

app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="List, show and compare training runs."
)

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder with run directories, at any depth.")
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE|RUN",
        help="Recipe to compare with: name, file or run directory.",
        autocompletion=complete_recipe,
        show_default="the first run by name",
    ),
]


@app.command(
    "list",
    epilog=examples(
        "msdetr runs list runs",
        "msdetr runs list runs --sort time --reference shapes_tiny",
        "msdetr runs list runs/my_study/cells --json",
    ),
)
def list_runs(
    folder: FolderArgument,
    *,
    reference: ReferenceOption = None,
    order: Annotated[
        Literal["ap", "name", "time", "epochs"],
        typer.Option("--sort", help="Order of the runs: highest first, or by name."),
    ] = "ap",
    as_json: JsonOption = False,
) -> None:
    """List runs with AP, epochs, time and recipe differences.

    Damaged runs are listed, too, and named on stderr.
    """
    from msdetr.api import runs

    _print(runs.list_runs(folder, reference=reference, order=order), as_json=as_json)


@app.command(
    epilog=examples(
        "msdetr runs show runs/shapes_tiny",
        "msdetr runs show runs/shapes_tiny --reference shapes_tiny_baseline",
        "msdetr runs show runs/shapes_tiny --json",
    ),
)
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    *,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE|RUN",
            help="Compare the recipe with this name, file or run directory.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: state, costs and every evaluation."""
    from msdetr.api import runs

    _print(runs.show_run(run, reference=reference), as_json=as_json)


@app.command(
    epilog=examples(
        "msdetr runs diff runs",
        "msdetr runs diff runs/my_study/cells",
        "msdetr runs diff runs --json",
    ),
)
def diff(folder: FolderArgument, *, as_json: JsonOption = False) -> None:
    """Show the recipe fields in which runs differ."""
    from msdetr.api import runs

    _print(runs.diff_runs(folder), as_json=as_json)


def _print(report: Any, *, as_json: bool) -> None:  # noqa: ANN401 - a report with a table
    from msdetr.terminal import LiteralConsole

    if as_json:
        say_json(report.to_dict())
    else:
        LiteralConsole().print(report.table())
    for problem in report.problems:
        say(f"damaged: {problem}", err=True)
