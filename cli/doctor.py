"""``msdetr doctor``: what is installed, and whether its results are correct."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import JsonOption, examples
from .say import say, say_json

EXAMPLES = examples(
    "msdetr doctor",
    "msdetr doctor --build",
    "msdetr doctor --json > doctor.json",
)


def doctor(
    *,
    rebuild: Annotated[
        bool, typer.Option("--build", help="Recompile the native kernels first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show versions and devices, and test the operator.

    Also shows backends and caches; the test compares with float64. Prints a block to paste into
    a bug report. Exit code 1 if the test fails.
    """
    from msdetr.api import doctor as workflow

    if rebuild:
        workflow.rebuild()
    diagnosis = workflow.diagnose()
    if as_json:
        say_json(diagnosis.to_dict())
    else:
        say("\n".join(["```text", *diagnosis.lines(), "```"]))
    if not diagnosis.passed:
        raise typer.Exit(1)
