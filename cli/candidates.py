"""``msdetr candidates``: how well the best queries of every target fit, in one model or two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DataOption, DeviceOption, JsonOption, NumImagesOption, examples
from .parsing import parse_ids
from .say import say, say_json

EXAMPLES = examples(
    "msdetr candidates --ckpt runs/shapes_tiny --output candidates",
    "msdetr candidates --ckpt runs/shapes_tiny --ckpt runs/shapes_tiny_baseline --output figure1",
    "msdetr candidates --trace matching/trace --pictures 3 --output candidates --json",
)

CheckpointsOption = Annotated[
    list[Path] | None,
    typer.Option("--ckpt", metavar="PATH", help="Checkpoint or run directory; twice for A and B."),
]
TracesOption = Annotated[
    list[Path] | None,
    typer.Option("--trace", metavar="DIR", help="Stored trace instead; twice for A and B."),
]


def candidates(
    *,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Write candidates.csv, candidates.png, iou_density.png, summary.json there.",
        ),
    ],
    checkpoints: CheckpointsOption = None,
    traces: TracesOption = None,
    data: DataOption = None,
    num_images: NumImagesOption = 200,
    image_ids: Annotated[
        str | None,
        typer.Option(metavar="IDS", help="These images instead, as in 139,285."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, max=20, metavar="N", help="Targets in candidates.png.")
    ] = 6,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the top 20 queries of every target.

    Repeats the paper's Figure 1. Queries are ranked by the one-to-many score of A. With two
    models, A should be the one with mixed supervision and B the one without.
    """
    from msdetr.api.candidates import compare_candidates
    from msdetr.api.traces.make_trace import ProbeSet
    from msdetr.terminal import LiteralConsole

    report = compare_candidates(
        checkpoints or (),
        traces=traces or (),
        output=output,
        data=data,
        probe=ProbeSet(num_images, parse_ids("--image-ids", image_ids)),
        num_pictures=pictures,
        device=device,
    )
    if as_json:
        say_json(report.to_dict())
        return
    console = LiteralConsole()
    console.print(report.table())
    say("\n".join(str(file) for file in report.files))
