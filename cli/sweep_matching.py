"""``msdetr sweep-matching``: what other settings would do to a model's one-to-many supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, examples
from .parsing import parse_numbers, parse_share, parse_whole_numbers
from .say import say, say_json

EXAMPLES = examples(
    "msdetr sweep-matching --trace trace --k 1,2,4,6,8,10 --output sweep",
    "msdetr sweep-matching --trace trace --threshold 0.2:0.6:0.1 --iou-weight 0:1:0.1 --output map",
    "msdetr sweep-matching --trace trace --k 2:10:2 --cap none --output uncapped --json",
)

_OWN = "the trace's own"


def sweep_matching(
    *,
    trace: Annotated[Path, typer.Option(metavar="DIR", help="Match trace of a model.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Write sweep.csv and heat maps there.")
    ],
    k: Annotated[
        str | None,
        typer.Option("--k", metavar="LIST", help="Maximum queries per target.", show_default=_OWN),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Minimum score of a positive query.", show_default=_OWN),
    ] = None,
    iou_weight: Annotated[
        str | None,
        typer.Option(
            "--iou-weight",
            "--alpha",
            metavar="LIST",
            help="Weight of the IoU in the score; the class weighs 1 less it.",
            show_default=_OWN,
        ),
    ] = None,
    cap: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the queries that may be positive, or none.",
            show_default=_OWN,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Repeat a trace's assignment with many settings.

    It is the one-to-many assignment. A LIST is 1,2,4 or a range start:end:step with both ends.
    Only matching is repeated: the result predicts the supervision that a setting gives to this
    model's queries, not the AP of a training run.
    """
    from msdetr.api.sweep_matching import SweepOptions
    from msdetr.api.sweep_matching import sweep_matching as run_sweep
    from msdetr.terminal import LiteralConsole

    options = SweepOptions(
        ks=parse_whole_numbers("--k", k),
        thresholds=parse_numbers("--threshold", threshold),
        iou_weights=parse_numbers("--iou-weight", iou_weight),
        max_positive_fraction="own" if cap is None else parse_share("--cap", cap),
    )
    report = run_sweep(trace, options, output=output)
    if as_json:
        say_json(report.rows)
        return
    LiteralConsole().print(report.table())
    say("\n".join(str(file) for file in report.files))
