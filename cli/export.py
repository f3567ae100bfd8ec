"""`msdetr export`: write a checkpoint as a file that runs without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from msdetr.errors import UsageError

from .options import JsonOption, OverridesOption, examples

EXAMPLES = examples(
    "msdetr export --ckpt runs/shapes_tiny --output model.onnx",
    "msdetr export --ckpt runs/mine --output fixed.onnx --static 640x640 --precision fp16",
    "msdetr export --ckpt runs/mine --format torch-export --output model.pt2 --verify 32",
)


def export(
    *,
    checkpoint: Annotated[
        Path, typer.Option("--ckpt", metavar="PATH", help="Checkpoint or run directory.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write: *.onnx, *.pt2 or *.pth.")
    ],
    file_format: Annotated[
        Literal["onnx", "torch-export", "official"],
        typer.Option("--format", help="Format; official is a .pth file for the published code."),
    ] = "onnx",
    static: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Fix height and width in pixels; the file then has no padding mask.",
            show_default="any size, with a padding mask",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Images per call of a file with --static.")
    ] = 1,
    raw: Annotated[
        bool, typer.Option("--raw", help="Yield logits and boxes of all queries.")
    ] = False,
    detections: Annotated[
        int | None,
        typer.Option(metavar="N", help="Detections per image.", show_default="the recipe's"),
    ] = None,
    op: Annotated[
        Literal["gather", "grid_sample"],
        typer.Option(help="What deformable attention becomes; docs/export.md compares."),
    ] = "gather",
    precision: Annotated[
        Literal["fp32", "fp16"], typer.Option(help="fp16 keeps coordinates and scores in fp32.")
    ] = "fp32",
    verify: Annotated[
        int,
        typer.Option(metavar="N", help="Compare the file with the model on N images; 0: do not."),
    ] = 8,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT|IMAGES,JSON",
            help="Images to verify on: COCO-layout root, or image folder and annotation file.",
            show_default="the recipe's validation split, else generated shapes",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Recipe of a published .pth file.")
    ] = None,
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as ONNX or torch.export file, and compare the file with the model."""
    from msdetr.api.checkpoints.official import export_official, open_checkpoint
    from msdetr.api.export import ExportSettings, export_checkpoint, parse_size

    if file_format == "official":
        given = {"--static": static, "--raw": raw, "--detections": detections, "--data": data}
        given |= {"--batch": batch > 1, "--op": op != "gather", "--precision": precision != "fp32"}
        _refuse([option for option, value in given.items() if value])
        loaded = open_checkpoint(
            checkpoint, recipe=recipe, overrides=overrides or (), with_extra_groups=True
        )
        export_official(loaded, output, force=force)
        typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, read back and compared")
        return
    settings = ExportSettings(
        format=file_format,
        static_hw=None if static is None else parse_size(static),
        batch=batch,
        raw=raw,
        op=op,
        precision=precision,
    )
    report = export_checkpoint(
        checkpoint,
        output,
        settings,
        detections=detections,
        verified_images=verify,
        data=data,
        force=force,
        recipe=recipe,
        overrides=overrides or (),
    )
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        typer.echo("\n".join(report.lines()))


def _refuse(options: list[str]) -> None:
    if options:
        raise UsageError(options[0], "does not go with --format official, which keeps all weights")
