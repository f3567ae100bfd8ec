"""Detections in image files: the workflow behind ``msdetr predict``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from msdetr.api.detection.image_detections import ImageDetections
from msdetr.api.detection.image_detector import DEFAULT_THRESHOLD, ImageDetector
from msdetr.api.detection.image_files import find_images, unique_stems
from msdetr.api.detection.image_inputs import to_image
from msdetr.api.detector import Detector
from msdetr.api.exported_detector import ExportedDetector
from msdetr.api.output import check_results, writing
from msdetr.api.progress import show_progress
from msdetr.data.image_folders import DRAWINGS_DIR, DRAWINGS_LIST, find_drawings
from msdetr.engine.device import resolve_device
from msdetr.errors import DataError, UsageError
from msdetr.evaluation.results import write_results
from msdetr.export.formats import format_of
from msdetr.terminal import LiteralConsole

RESULTS, IMAGES, DRAWINGS = "predictions.json", DRAWINGS_LIST, DRAWINGS_DIR
_JPEG_QUALITY = 92
# Full resolution of the colors: otherwise lines and captions fray.
_FULL_CHROMA = 0


@dataclass(frozen=True)
class PredictedFile:
    """Detections in one file.

    Attributes:
        image_id: Its number, from 1; also in the results file.
        path: The file.
        detections: What is in it.
    """

    image_id: int
    path: Path
    detections: ImageDetections

    def rows(self) -> list[tuple[str, ...]]:
        """Return class, score and corners of every detection as text."""
        found = self.detections
        boxes, scores = found.boxes_xyxy_px.tolist(), found.scores.tolist()
        return [
            (name, f"{score:.2f}", *(f"{value:.0f}" for value in box_px))
            for name, score, box_px in zip(found.class_names, scores, boxes, strict=True)
        ]

    def results(self) -> list[dict[str, Any]]:
        """Return entries of COCO's results format."""
        keys = ("category_id", "bbox", "score")
        return [
            {"image_id": self.image_id, **{key: entry[key] for key in keys}}
            for entry in self.detections.to_list()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the file and its detections as JSON values."""
        height, width = self.detections.image_hw
        size = {"width": width, "height": height}
        entries = self.detections.to_list()
        return {
            "image_id": self.image_id,
            "file_name": str(self.path),
            **size,
            "detections": entries,
        }


@dataclass(frozen=True)
class PredictReport:
    """Result of a prediction.

    Attributes:
        files: Files that were read, in the order of the inputs.
        unreadable: Files that were skipped, with the reason.
        categories: Classes of the model: id and name.
    """

    files: tuple[PredictedFile, ...]
    unreadable: tuple[tuple[Path, str], ...]
    categories: tuple[tuple[int, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        skipped = [{"file_name": str(path), "reason": why} for path, why in self.unreadable]
        return {"images": [file.to_dict() for file in self.files], "unreadable": skipped}

    def table(self) -> Table:
        """Return one row per detection, for the terminal; boxes as corners in pixels."""
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("file", overflow="fold")
        table.add_column("class", overflow="fold")
        for title in ("score", "x0", "y0", "x1", "y1"):
            table.add_column(title, justify="right")
        for file in self.files:
            rows = file.rows()
            table.add_row(str(file.path), *(rows[0] if rows else ("-",)))
            for row in rows[1:]:
                table.add_row("", *row)
        return table


def predict(
    checkpoint: Path,
    inputs: Sequence[str],
    *,
    recipe: str | None = None,
    output: Path | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    device: str = "auto",
    overrides: Sequence[str] = (),
    force: bool = False,
) -> PredictReport:
    """Detect objects in image files.

    Args:
        checkpoint: Checkpoint or run directory, a published ``.pth`` file, or a file that
            ``export_checkpoint`` has written.
        inputs: Files, folders and patterns.
        recipe: Name or path of a published file's recipe.
        output: Directory for drawings and results; nothing is written without it. Must not hold
            any yet, unless with ``force``.
        threshold: Minimum score of the detections to keep, in 0..1.
        device: "auto", "cpu", "cuda" or "cuda:N"; exported files run on the CPU.
        overrides: Recipe fields to change, ``key=value``.
        force: Replace the results and the drawings of an earlier prediction.

    Returns:
        The detections, and the files that could not be read.

    Raises:
        InvalidInputError: Checkpoint, inputs or output cannot be used as asked.
    """
    if output is not None:
        check_results(
            output,
            files=(RESULTS, IMAGES),
            folders=(DRAWINGS,),
            of="a prediction",
            force=force,
        )
    paths = find_images(inputs, output)
    detector = _open(checkpoint, recipe, device, overrides)
    if output is None:
        return _predict(detector, paths, threshold)
    with writing(output) as aside:
        drawings = [f"{DRAWINGS}/{stem}.jpg" for stem in unique_stems(paths)]
        (aside / DRAWINGS).mkdir()
        report = _predict(
            detector,
            paths,
            threshold,
            lambda file: _draw(
                file, aside / drawings[file.image_id - 1], detector.reading.max_pixels
            ),
        )
        _write(report, aside, drawings)
        _remove_drawings(output)
    return report


def _open(
    checkpoint: Path, recipe: str | None, device: str, overrides: Sequence[str]
) -> ImageDetector:
    if format_of(checkpoint) is None or checkpoint.is_dir():
        return Detector.from_checkpoint(
            checkpoint, recipe=recipe, overrides=overrides, device=resolve_device(device)
        )
    if recipe is not None:
        raise UsageError("`recipe`", f"is for published .pth files; {checkpoint} has its own")
    if resolve_device(device).type != "cpu" and device != "auto":
        raise UsageError(f"`device={device!r}`", "exported files run on the CPU")
    return ExportedDetector.from_file(checkpoint, overrides)


def _predict(
    detector: ImageDetector,
    paths: Sequence[Path],
    threshold: float,
    draw: Callable[[PredictedFile], None] | None = None,
) -> PredictReport:
    unreadable: list[tuple[Path, str]] = []
    files: list[PredictedFile] = []
    for file in _detect(detector, paths, threshold, unreadable):
        files.append(file)
        if draw is not None:
            draw(file)
    space = detector.label_space
    categories = tuple(zip(space.category_ids, space.names, strict=True))
    return PredictReport(tuple(files), tuple(unreadable), categories)


def _remove_drawings(output: Path) -> None:
    """Remove the drawings of an earlier prediction: pictures of other inputs would mislead."""
    for path in find_drawings(output):
        path.unlink(missing_ok=True)


def _detect(
    detector: ImageDetector,
    paths: Sequence[Path],
    threshold: float,
    unreadable: list[tuple[Path, str]],
) -> Iterator[PredictedFile]:
    console = LiteralConsole(stderr=True)

    def skip(position: int, error: DataError) -> None:
        unreadable.append((paths[position], error.problems[0].message))
        console.say(f"skipped {error}")

    stream = detector.stream(paths, threshold=threshold, on_unreadable=skip)
    for position, found in enumerate(show_progress(stream, len(paths), "predicting")):
        if found is not None:
            yield PredictedFile(position + 1, paths[position], found)


def _draw(file: PredictedFile, path: Path, max_pixels: int) -> None:
    # Decoded again rather than kept: many photographs do not fit into memory at once.
    picture = file.detections.draw(to_image(file.path, max_pixels))
    picture.save(path, quality=_JPEG_QUALITY, subsampling=_FULL_CHROMA)


def _write(report: PredictReport, output: Path, drawings: Sequence[str]) -> None:
    images = []
    for file in report.files:
        entry = file.to_dict()
        kept = {key: entry[key] for key in ("file_name", "width", "height")}
        drawing = drawings[file.image_id - 1]
        images.append({"id": file.image_id, **kept, "drawing": drawing})
    listed = {
        "images": images,
        "categories": [{"id": id_, "name": name} for id_, name in report.categories],
    }
    write_results(output / RESULTS, [entry for f in report.files for entry in f.results()])
    (output / IMAGES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
