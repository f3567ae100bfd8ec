"""Options, with their help: those that commands share first, then those of one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .completion import complete_override, complete_recipe

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Path of a recipe, or the name of a packaged one.",
        autocompletion=complete_recipe,
    ),
]

OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a field, as in --set train.lr=1e-4; a YAML value, or a path as it stands; "
        "may be repeated.",
        autocompletion=complete_override,
    ),
]

DeviceOption = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N; auto prefers a GPU.")
]

ProcessesOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Start N processes of this machine that share the work, on a GPU each or on cores; "
        "auto: one per GPU, or one on the CPU.",
        show_default="one, or those of a launcher",
    ),
]

CheckpointOption = Annotated[
    Path,
    typer.Option(
        "--ckpt", metavar="PATH", help="Checkpoint or run directory, or a published .pth file."
    ),
]

PublishedRecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="Recipe of a published .pth file, which has none inside.",
        autocompletion=complete_recipe,
    ),
]

DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROOT|IMAGES,JSON",
        help="COCO-layout root, or image folder and annotation file.",
        show_default="the recipe's validation split",
    ),
]

NumImagesOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="The first N images, by id.")
]

ImageIdsOption = Annotated[
    str | None,
    typer.Option(
        "--image-ids", "--images", metavar="IDS", help="These images instead, as in 139,285."
    ),
]

ReplaceResultsOption = Annotated[
    bool, typer.Option("--force", help="Replace earlier results in DIR.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

# predict

MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Pixels of the largest image that is decoded: data.max_image_pixels.",
        show_default="the recipe's",
    ),
]

# train

RunOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory of the run.", show_default="runs/RECIPE"),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue the run in the output directory, if any.")
]
ResumeFromOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Continue from a checkpoint or run, in a new directory."),
]
InitFromOption = Annotated[
    Path | None,
    typer.Option(
        metavar="CKPT", help="Start from the weights of a checkpoint, ours or a published .pth."
    ),
]
SeedOption = Annotated[
    int | None, typer.Option(help="Seed of everything random; train.seed of the recipe.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Build everything, estimate memory and time, and stop.")
]
OverfitOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Check that the model can overfit N images."),
]
LimitTrainOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Train on the first N images.")
]
LimitValOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Evaluate on the first N images.")
]

# predict

PredictingOption = Annotated[
    Path,
    typer.Option(
        "--ckpt",
        metavar="PATH",
        help="Checkpoint or run directory, a published .pth file, or an exported .onnx, .pt2 or "
        ".xml.",
    ),
]

# export

ExportedOption = Annotated[
    Path, typer.Option("--ckpt", metavar="PATH", help="Checkpoint or run directory.")
]
ExportFileOption = Annotated[
    Path, typer.Option(metavar="FILE", help="File to write: *.onnx, *.pt2, *.xml or *.pth.")
]
FormatOption = Annotated[
    Literal["onnx", "torch-export", "openvino", "official"],
    typer.Option("--format", help="Format; official is a .pth file for the published code."),
]
StaticOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Fix height and width in pixels; the file then has no padding mask.",
        show_default="any size, with a padding mask",
    ),
]
BatchOption = Annotated[
    int, typer.Option(metavar="N", help="Images per call of a file with --static.")
]
RawOption = Annotated[bool, typer.Option("--raw", help="Yield logits and boxes of all queries.")]
DetectionsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Detections per image.", show_default="the recipe's"),
]
OpOption = Annotated[
    Literal["gather", "grid_sample"],
    typer.Option(help="What deformable attention becomes; docs/export.md compares."),
]
PrecisionOption = Annotated[
    Literal["fp32", "fp16"], typer.Option(help="fp16 keeps coordinates and scores in fp32.")
]
VerifyOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Compare the file with the model on N images; 0: do not.",
        show_default="8, up to 32 until 50 objects are found",
    ),
]
VerificationDataOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROOT|IMAGES,JSON",
        help="Images to verify on: COCO-layout root, or image folder and annotation file.",
        show_default="the recipe's validation split, else generated shapes",
    ),
]
ReplaceFilesOption = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
ExportRecipeOption = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE",
        help="Recipe of a published .pth file.",
        autocompletion=complete_recipe,
    ),
]

# inspect-matching

MatchingOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Write trace, assignments.csv, summary.json, pictures and matching.html there.",
    ),
]
TracedCheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--ckpt",
        metavar="PATH",
        help="Checkpoint or run directory, or a published .pth file. Beside --trace: what "
        "the trace must have been made of.",
    ),
]
StoredTraceOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Stored trace: runs no model, needs no GPU."),
]
FromScratchOption = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE",
        help="Trace an untrained model of this recipe: random weights.",
        autocompletion=complete_recipe,
    ),
]
LayersOption = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Decoder layers, as in 0,5; the sheets of targets show the last of them.",
    ),
]
TopOption = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Best queries per target to list beside the assigned ones."
    ),
]
PicturesOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Draw the first N images with targets.")
]


def examples(*lines: str) -> str:
    """Return the epilog of a command's help: runnable examples, one per line.

    Args:
        lines: Command lines, without a prompt.
    """
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
