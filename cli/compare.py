"""``msdetr compare``: two checkpoints on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, examples
from .say import say_json

EXAMPLES = examples(
    "msdetr compare runs/mixed --with runs/one_to_one --output comparison",
    "msdetr compare results/a --with results/b --json",
    "msdetr compare ours.json --with theirs.json --data instances_val2017.json",
)


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_PREDICTIONS",
            help="Run, directory of `msdetr eval --output`, or COCO results file.",
        ),
    ],
    *,
    second: Annotated[
        Path, typer.Option("--with", metavar="RUN_OR_PREDICTIONS", help="The other, likewise.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT|IMAGES,JSON|JSON",
            help="Ground truth of both.",
            show_default="the annotations of the runs",
        ),
    ] = None,
    num_resamples: Annotated[
        int, typer.Option("--resamples", min=100, metavar="N", help="Resamples of the images.")
    ] = 1000,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write comparison.json, comparison.html and pictures there."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two checkpoints on the same images.

    Compares metrics, duplicates, kinds of errors and the targets found.
    """
    from msdetr.api.compare import compare as run_comparison
    from msdetr.terminal import LiteralConsole

    report = run_comparison(first, second, data=data, num_resamples=num_resamples, output=output)
    if as_json:
        say_json(report.to_dict())
        return
    LiteralConsole().print(report)
