"""``msdetr plot``: curves of one or several training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import examples
from .say import say

EXAMPLES = examples(
    "msdetr plot runs/shapes_tiny",
    "msdetr plot runs/shapes_tiny runs/shapes_tiny_baseline --output comparison",
    "msdetr plot runs/mine published/log.txt --layer 0 --output layer0",
)


def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run directories or logs: metrics.jsonl, or published log.txt. At most eight.",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the pictures.", show_default="plots in the run"
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Decoder layer of the losses, from 0.", show_default="the last"
        ),
    ] = None,
) -> None:
    """Draw losses, AP and learning rate of training runs.

    Writes PNG and SVG; the losses are one-to-one. Solid lines are runs with mixed supervision,
    dashed ones without.
    """
    from msdetr.api.plot import plot_runs

    result = plot_runs(runs, output=output, layer=-1 if layer is None else layer)
    for note in result.notes:
        say(note, err=True)
    for file in result.files:
        say(f"{file}")
