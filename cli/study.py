"""``msdetr study``: compare supervision schemes over several seeds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from msdetr.errors import UsageError

from .flags import in_flags
from .groups import CommandGroup
from .options import DeviceOption, JsonOption, examples
from .parsing import parse_settings
from .say import say, say_json

app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="Compare supervision schemes over several seeds."
)

_SECONDS_BETWEEN_TABLES = 2.0

StudyArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a study that was begun.")
]


@app.command(
    epilog=examples(
        "msdetr study run studies/shapes_cap.yaml --output runs/shapes_cap",
        "msdetr study run my_study.yaml --output runs/mine --workers 2 --dry-run",
        "msdetr study run my_study.yaml --output runs/mine --executor slurm --slurm time=600",
    ),
)
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Design of the study, in YAML.")],
    *,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the study, to begin or to go on with.")
    ],
    num_workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Cells at the same time at most.",
            show_default="one per --processes GPUs, or the cores / (threads x processes)",
        ),
    ] = None,
    executor: Annotated[
        Literal["local", "slurm"], typer.Option(help="Where cells run: here, or as SLURM jobs.")
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of the SLURM jobs, as in partition=gpu, time=600 (minutes), mem=16GB, "
            "gpus_per_node=1; may be repeated.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Threads of each process on the CPU.")
    ] = 1,
    processes: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Processes that train each cell, on a GPU each or on --threads cores each; "
            "auto: one, since cells side by side need not wait for each other.",
        ),
    ] = "auto",
    device: DeviceOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the study, estimate time and memory, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train every cell (arm and seed) of a study.

    The same command goes on where it stopped.
    """
    settings = parse_settings("--slurm", slurm or ())
    if settings and executor != "slurm":
        raise UsageError("--slurm", "needs --executor slurm")
    from msdetr.api.launch import parse_processes
    from msdetr.api.study.run import Workers, run_study

    number = 1 if processes == "auto" else parse_processes(processes) or 1
    workers = Workers(num_workers, executor, settings, threads, device, processes=number)
    if dry_run:
        from msdetr.api.study.estimate import estimate_study

        _print(estimate_study(file, output=output, workers=workers), as_json=as_json)
        return
    result = run_study(file, output=output, workers=workers)
    if as_json:
        say_json(result.to_dict())
    else:
        say(f"{result.output}")
    for name, error in result.failed.items():
        say(f"error: {name}: {in_flags(error)}", err=True)
    if result.failed:
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "msdetr study status runs/shapes_cap",
        "msdetr study status runs/shapes_cap --watch",
        "msdetr study status runs/shapes_cap --json",
    ),
)
def status(
    directory: StudyArgument,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the table anew until the study is over.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far every cell of a study is. Shows its metric so far."""
    if watch and as_json:
        raise UsageError("--watch", "cannot be combined with --json")
    from msdetr.api.study.status import study_status

    found = study_status(directory)
    if not watch:
        _print(found, as_json=as_json)
        return
    from rich.live import Live

    with Live(found) as live:
        while not found.is_over:
            time.sleep(_SECONDS_BETWEEN_TABLES)
            found = study_status(directory)
            live.update(found)


@app.command(
    epilog=examples(
        "msdetr study report runs/shapes_cap",
        "msdetr study report runs/shapes_cap --output reports/shapes_cap",
        "msdetr study report runs/shapes_cap --json",
    ),
)
def report(
    directory: StudyArgument,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write report.html, report.md, table.tex, cells.csv, study.json, figures there.",
            show_default="the study's folder",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT|IMAGES,JSON|JSON",
            help="Where the validation annotations are now.",
            show_default="where they were",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the arms of a study, finished or not.

    Gives verdicts, statistics and reasons.
    """
    from msdetr.api.study.report import report_study

    _print(report_study(directory, output=output, data=data), as_json=as_json)


def _print(report: Any, *, as_json: bool) -> None:  # noqa: ANN401 - prints itself, has to_dict
    from msdetr.terminal import LiteralConsole

    if as_json:
        say_json(report.to_dict())
    else:
        LiteralConsole().print(report)
