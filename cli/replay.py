"""``msdetr replay``: repeat a diverged training step and say where it stops being finite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, examples
from .say import say, say_json

EXAMPLES = examples(
    "msdetr replay runs/mine/diverged",
    "msdetr replay runs/mine --json",
    "msdetr replay runs/mine/diverged/checkpoint.json",
)


def replay(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What the run left: RUN/diverged, or the run."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Repeat a diverged step and find what is not finite.

    The step runs in float64 on the CPU; the first tensor that is not finite is named.
    """
    from msdetr.api.replay import replay as repeat

    report = repeat(path)
    if as_json:
        say_json(report.to_dict())
    else:
        say("\n".join(report.lines()))
