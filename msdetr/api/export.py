"""Export of a checkpoint and its verification: the workflow behind ``msdetr export``."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.checkpoints.official import open_checkpoint
from msdetr.api.exporting.metadata import describe_export
from msdetr.api.exporting.verification_images import (
    VerificationData,
    load_verification_data,
    score,
    verification_batches,
)
from msdetr.data.batching import count_cells
from msdetr.errors import UsageError, VerificationError, counted
from msdetr.export import ExportSettings, VerificationReport, build_program, verify
from msdetr.export.agreement import THRESHOLD
from msdetr.export.formats import SUFFIXES, extra_of, file_format, files_of, missing_packages
from msdetr.export.tracing import trace
from msdetr.files import replace_text, replacing_file
from msdetr.terminal import LiteralConsole

__all__ = ["ExportReport", "ExportSettings", "export_checkpoint", "export_loaded", "report_file"]

FEWEST_VERIFIED, MOST_VERIFIED = 8, 32
"""Images to verify on by default: the first number, or as many as have enough detections."""
# Above 64 px per side, so that no level of the traced example is a single cell.
_SMALLEST_EXAMPLE_PX = 160


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        path: The file.
        settings: Its form.
        size_bytes: Its size.
        verification: Comparison with the model; None if none was asked for.
        images: What images were compared.
        notices: What the user should know.
    """

    path: Path
    settings: ExportSettings
    size_bytes: int
    verification: VerificationReport | None
    images: str | None
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "file": str(self.path),
            "size_bytes": self.size_bytes,
            "settings": asdict(self.settings),
            "images": self.images,
            "notices": list(self.notices),
            "verification": None if self.verification is None else self.verification.to_dict(),
        }

    def lines(self) -> list[str]:
        """Say what a reader wants to know, in plain words."""
        settings, found = self.settings, self.verification
        shape = (
            "any size, with a padding mask"
            if settings.static_hw is None
            else f"{settings.batch} x 3 x {settings.static_hw[0]} x {settings.static_hw[1]}"
        )
        form = f"{settings.format}, {settings.op}, {settings.precision}, input of {shape}"
        lines = [f"{self.path}: {self.size_bytes / 1e6:.1f} MB, {form}"]
        if found is None:
            return lines
        counts = found.free
        return [
            *lines,
            f"verified on {counted(found.num_images, 'image')} of {self.images}",
            f"  queries of the same cells  {found.shared_cells:.2%}",
            f"  largest difference         logits {found.logit_difference:.1e} of "
            f"{found.logit_size:.1f}, boxes {found.box_difference:.1e}",
            f"  detections above {THRESHOLD}       model {counts.first}, file {counts.second}, "
            f"{counts.share:.2%} agree, {counts.label_flips} label flips",
            f"  AP                         model {_or_dash(found.ap)}, "
            f"file {_or_dash(found.exported_ap)}",
        ]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    settings: ExportSettings | None = None,
    *,
    detections: int | None = None,
    verified_images: int | None = None,
    data: str | None = None,
    force: bool = False,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
) -> ExportReport:
    """Export a checkpoint to a file that runs without this package, and verify the file.

    Args:
        checkpoint: Checkpoint or run directory, or a published ``.pth`` file.
        output: File to write: ``.onnx``, ``.pt2`` or ``.xml``.
        settings: Form of the file; ONNX for inputs of any size by default.
        detections: Detections per image; the recipe's by default.
        verified_images: Images to compare file and model on; 0 for no verification. By default
            8, and more, up to 32, until the model has found 50 objects on them.
        data: Images to verify on: a root in COCO's layout, or "IMAGES,ANNOTATIONS.json"; the
            recipe's validation split by default, generated shapes where there is none.
        force: Replace existing files.
        recipe: Recipe of a published ``.pth`` file.
        overrides: Recipe fields to change, ``key=value``.

    Returns:
        The report, which is also written beside the file, as ``report_file`` names it.

    Raises:
        InvalidInputError: Something given cannot be used; nothing was written.
        VerificationError: The file differs from the model; it is named ``*.unverified``.
    """
    settings = settings or ExportSettings()
    _check_request(output, settings, detections, verified_images=verified_images, force=force)
    loaded = open_checkpoint(checkpoint, recipe=recipe, overrides=overrides)
    return export_loaded(
        loaded,
        output,
        settings,
        detections=detections,
        verified_images=verified_images,
        data=data,
        force=force,
    )


def export_loaded(
    loaded: LoadedCheckpoint,
    output: Path,
    settings: ExportSettings,
    *,
    detections: int | None = None,
    verified_images: int | None = None,
    data: str | None = None,
    force: bool = False,
) -> ExportReport:
    """Export a model in memory, on the CPU; otherwise as :func:`export_checkpoint`."""
    _check_request(output, settings, detections, verified_images=verified_images, force=force)
    _check_static_size(loaded, settings)
    limit = detections or loaded.detection_settings.limit
    images = None if verified_images == 0 else load_verification_data(loaded, settings, data)
    LiteralConsole(stderr=True).say(f"tracing the model for {output.name}")
    with _writing(output), _replacing(settings, output) as (*_, aside):
        _write(loaded, aside, settings, limit)
        verification = (
            _verify(loaded, aside, settings, images, num_images=verified_images, limit=limit)
            if images
            else None
        )
        passed = verification is None or verification.passed
        report = ExportReport(
            path=output if passed else _unverified(output),
            settings=settings,
            size_bytes=sum(f.stat().st_size for f in files_of(settings.format, aside)),
            verification=verification,
            images=images.source if images else None,
            notices=(
                *_suppression_notices(loaded.detection_settings.nms_threshold),
                *_notices(images, verification, verified_images or MOST_VERIFIED),
            ),
        )
        if verification is not None and not verification.passed:
            with _replacing(settings, report.path) as kept:
                for file, place in zip(files_of(settings.format, aside), kept, strict=True):
                    file.replace(place)
            _write_report(output, report)
            reasons = "; ".join(verification.problems)
            raise VerificationError(f"{report.path}: {reasons}; see {report_file(output)}")
    for file in files_of(settings.format, _unverified(output)):
        file.unlink(missing_ok=True)
    _write_report(output, report)
    return report


def _check_request(
    output: Path,
    settings: ExportSettings,
    detections: int | None,
    *,
    verified_images: int | None,
    force: bool,
) -> None:
    if settings.raw and detections is not None:
        raise UsageError("`detections`", "cannot go with `raw=True`, which yields all queries")
    if detections is not None and detections < 1:
        raise UsageError("`detections`", f"must be at least 1, got {detections}")
    if settings.batch != 1 and settings.static_hw is None:
        raise UsageError("`batch`", "needs `static_hw`; other files take any batch size")
    if settings.batch < 1:
        raise UsageError("`batch`", f"must be at least 1, got {settings.batch}")
    if settings.format == "openvino" and settings.precision != "fp32":
        raise UsageError("`precision`", "must be fp32 in OpenVINO files, which compute in float32")
    if verified_images is not None and verified_images < 0:
        raise UsageError("`verified_images`", f"must be at least 0, got {verified_images}")
    missing = missing_packages(settings.format)
    if missing:
        raise UsageError(
            f"`format={settings.format!r}`",
            f"needs {' and '.join(missing)}: pip install 'msdetr[{extra_of(settings.format)}]'",
        )
    _check_output(output, settings, force=force)


def _check_output(output: Path, settings: ExportSettings, *, force: bool) -> None:
    suffix = SUFFIXES[settings.format]
    if output.suffix != suffix:
        raise UsageError(
            str(output), f"expected a name ending in {suffix} for `format={settings.format!r}`"
        )
    folder = next(parent for parent in output.parents if parent.exists())
    if not folder.is_dir():
        raise UsageError(str(output), f"cannot be written: {folder} is not a directory")
    try:
        # Permissions alone do not tell: a file system may be read-only, or full.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(str(output), f"cannot be written: {error.strerror or error}") from error
    files = (files_of(settings.format, path) for path in (output, _unverified(output)))
    written = (*chain.from_iterable(files), report_file(output))
    for path in written:
        if path.is_dir():
            raise UsageError(str(path), "is a directory")
        if path.exists() and not force:
            raise UsageError(str(path), "exists; add `force=True`, or write to another folder")


def _check_static_size(loaded: LoadedCheckpoint, settings: ExportSettings) -> None:
    if settings.static_hw is None:
        return
    collator = loaded.collator
    cells = count_cells(settings.static_hw, collator.strides)
    if cells < collator.min_cells:
        raise UsageError(
            f"`static_hw={settings.static_hw}`",
            f"has {cells} cells, but the model chooses {collator.min_cells} queries among them; "
            f"the smallest square is {_smallest_square(collator.strides, collator.min_cells)}",
        )


def _smallest_square(strides: Sequence[int], min_cells: int) -> str:
    side = math.ceil(math.sqrt(min_cells / sum(stride**-2 for stride in strides)))
    while count_cells((side - 1, side - 1), strides) >= min_cells:
        side -= 1
    while count_cells((side, side), strides) < min_cells:
        side += 1
    return f"{side}x{side}"


def _unverified(output: Path) -> Path:
    return output.with_name(f"{output.name}.unverified")


@contextmanager
def _replacing(settings: ExportSettings, path: Path) -> Iterator[list[Path]]:
    with ExitStack() as stack:
        files = files_of(settings.format, path)
        # Left in reverse order: the weights get their name last.
        yield [stack.enter_context(replacing_file(file)) for file in files]


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(str(output), f"cannot be written: {error.strerror or error}") from error


def report_file(output: Path) -> Path:
    """Name the report of an exported file: ``model.onnx.report.json``, beside it."""
    return output.with_name(f"{output.name}.report.json")


def _write_report(output: Path, report: ExportReport) -> None:
    document = json.dumps(report.to_dict(), indent=2) + "\n"
    replace_text(report_file(output), document)


def _write(loaded: LoadedCheckpoint, path: Path, settings: ExportSettings, limit: int) -> None:
    program = build_program(loaded.model, settings, detections=limit)
    traced = trace(program, settings, _example_hw(loaded))
    metadata = describe_export(loaded, settings, limit)
    file_format(settings.format).write(traced, path, settings, metadata)


def _example_hw(loaded: LoadedCheckpoint) -> tuple[int, int]:
    collator = loaded.collator
    side = _SMALLEST_EXAMPLE_PX
    while count_cells((side, side + 32), collator.strides) < 2 * collator.min_cells:
        side += 32
    return side, side + 32


def _verify(
    loaded: LoadedCheckpoint,
    path: Path,
    settings: ExportSettings,
    images: VerificationData,
    *,
    num_images: int | None,
    limit: int,
) -> VerificationReport:
    rounds = (FEWEST_VERIFIED, MOST_VERIFIED) if num_images is None else (num_images,)
    return verify(
        loaded.model,
        file_format(settings.format).load(path, settings),
        verification_batches(loaded, settings, images.data, rounds),
        partial(score, loaded, images),
        limit=limit,
        precision=settings.precision,
        enough_images=rounds[0],
    )


def _suppression_notices(threshold: float | None) -> Iterator[str]:
    if threshold is not None:
        yield (
            f"the file does not suppress duplicates; evaluation.nms_threshold={threshold:g} is up "
            "to what reads its detections, see docs/export.md"
        )


def _notices(
    images: VerificationData | None, verification: VerificationReport | None, asked: int
) -> Iterator[str]:
    if images is None or verification is None:
        yield "not verified; `verified_images=N` compares the file with the model on N images"
        return
    if images.notice is not None:
        yield images.notice
    if verification.is_weak:
        yield (
            f"the verification is weak: {verification.free.first} detections above 0.3 on "
            f"{counted(verification.num_images, 'image')}, expected at least 50; "
            f"try `verified_images={4 * asked}`"
        )
