"""``msdetr stability``: how much assignments change between the epochs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, examples
from .say import say, say_json

EXAMPLES = examples(
    "msdetr stability runs/traced",
    "msdetr stability runs/traced --output stability",
    "msdetr stability runs/traced --output again --json",
)


def stability(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run trained with --set inspection.trace_every_epoch=true."
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write stability.csv and plots there.",
            show_default="stability in the run",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the assignments of a run's epochs and layers."""
    from msdetr.api.stability import measure_stability
    from msdetr.terminal import LiteralConsole

    report = measure_stability(run, output=output)
    if as_json:
        say_json([row.to_dict() for row in report.rows])
        return
    LiteralConsole().print(report.table())
    say("\n".join(str(file) for file in report.files))
