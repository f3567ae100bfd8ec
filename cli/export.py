"""``msdetr export``: write a checkpoint as a file that runs without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msdetr.errors import UsageError

from .flags import in_flags
from .options import (
    BatchOption,
    DetectionsOption,
    ExportedOption,
    ExportFileOption,
    ExportRecipeOption,
    FormatOption,
    JsonOption,
    OpOption,
    OverridesOption,
    PrecisionOption,
    RawOption,
    ReplaceFilesOption,
    StaticOption,
    VerificationDataOption,
    VerifyOption,
    examples,
)
from .parsing import parse_size
from .say import say, say_json

EXAMPLES = examples(
    "msdetr export --ckpt runs/shapes_tiny --output model.onnx",
    "msdetr export --ckpt runs/mine --output fixed.onnx --static 640x640 --precision fp16",
    "msdetr export --ckpt runs/mine --format torch-export --output model.pt2 --verify 32",
)


def export(
    *,
    checkpoint: ExportedOption,
    output: ExportFileOption,
    file_format: FormatOption = "onnx",
    static: StaticOption = None,
    batch: BatchOption = 1,
    raw: RawOption = False,
    detections: DetectionsOption = None,
    op: OpOption = "gather",
    precision: PrecisionOption = "fp32",
    verify: VerifyOption = None,
    data: VerificationDataOption = None,
    force: ReplaceFilesOption = False,
    recipe: ExportRecipeOption = None,
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as ONNX, torch.export or OpenVINO.

    Compares what the file detects with what the model detects.
    """
    from msdetr.api.export import ExportSettings, export_checkpoint

    if file_format == "official":
        given = {"--static": static, "--raw": raw, "--detections": detections, "--data": data}
        given |= {"--batch": batch > 1, "--op": op != "gather", "--precision": precision != "fp32"}
        _refuse([option for option, value in given.items() if value])
        _export_official(checkpoint, output, recipe, overrides or (), force=force)
        _say_size(output, as_json=as_json)
        return
    settings = ExportSettings(
        format=file_format,
        static_hw=parse_size("--static", static),
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
        say(f"note: {in_flags(notice)}", err=True)
    if as_json:
        say_json(report.to_dict())
    else:
        say("\n".join(report.lines()))


def _export_official(
    checkpoint: Path, output: Path, recipe: str | None, overrides: Sequence[str], *, force: bool
) -> None:
    from msdetr.api.checkpoints.official import export_official, open_checkpoint

    loaded = open_checkpoint(checkpoint, recipe=recipe, overrides=overrides, with_extra_groups=True)
    export_official(loaded, output, force=force)


def _say_size(output: Path, *, as_json: bool) -> None:
    size = output.stat().st_size
    if as_json:
        say_json({"file": str(output), "size_bytes": size})
    else:
        say(f"{output}: {size / 1e6:.1f} MB, read back and compared")


def _refuse(options: list[str]) -> None:
    if options:
        raise UsageError(options[0], "does not go with --format official, which keeps all weights")
