"""``msdetr replay``: repeat a diverged training step and say where it stops being finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, examples
from .say import say

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
    """Repeat a diverged step in float64 on the CPU; name the first tensor that is not finite."""
    from msdetr.api.replay import replay as repeat

    report = repeat(path)
    say(json.dumps(report.to_dict(), indent=2) if as_json else "\n".join(report.lines()))
