"""Data sets of other layouts -> COCO's: the workflow behind ``msdetr data convert``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msdetr.api.progress import counting
from msdetr.data.coco_writing import write_coco
from msdetr.data.foreign import ForeignData
from msdetr.data.voc_layout import read_voc
from msdetr.data.yolo_layout import read_yolo
from msdetr.errors import DataError, MsdetrError, Problem, UsageError, counted
from msdetr.files import providing_directory

Layout = Literal["yolo", "voc"]

_MAX_PROBLEMS = 20
_MAX_UNUSED = 5


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        output: Root of the new data set.
        data: What was read.
    """

    output: Path
    data: ForeignData

    def lines(self) -> list[str]:
        """Return the numbers of each split, the classes, and the files that belong to nothing."""
        counts = [
            f"{split}: {counted(len(images), 'image')} "
            f"({sum(not i.objects for i in images)} without objects), "
            f"{counted(sum(len(i.objects) for i in images), 'box')}"
            for split, images in self.data.splits.items()
        ]
        unused = self.data.unused
        more = f" and {len(unused) - _MAX_UNUSED} more" if len(unused) > _MAX_UNUSED else ""
        left_out = [f"left out, as they belong to nothing: {', '.join(unused[:_MAX_UNUSED])}{more}"]
        classes = f"classes: {', '.join(self.data.class_names)}"
        return [*counts, classes, *(left_out if unused else [])]


def convert_data(layout: Layout, source: Path, output: Path) -> Conversion:
    """Write a data set of another layout as one of COCO's.

    Args:
        layout: "yolo" or "voc".
        source: YAML file or folder (yolo), or the folder of the data set (voc).
        output: Root of the new data set, which must not exist.

    Raises:
        DataError: The source is missing or malformed; nothing is written then.
        UsageError: The output exists.
        MsdetrError: It cannot be written.
    """
    if output.exists():
        raise UsageError(str(output), "exists already; give another `output`")
    try:
        data = read_yolo(source) if layout == "yolo" else read_voc(source)
    except DataError as error:
        raise _shortened(error) from error
    _require_content(data, source)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with counting("copying images") as progress, providing_directory(output) as aside:
            write_coco(data, aside, progress)
    except OSError as error:
        raise MsdetrError(f"{output}: cannot be written: {error}") from error
    return Conversion(output, data)


def _require_content(data: ForeignData, source: Path) -> None:
    if not data.class_names:
        raise DataError(str(source), "holds no object, so that there are no classes")
    empty = [Problem(split, "has no images") for split, images in data.splits.items() if not images]
    if empty:
        raise DataError(str(source), empty)


def _shortened(error: DataError) -> DataError:
    rest = len(error.problems) - _MAX_PROBLEMS
    if rest <= 0:
        return error
    return DataError(error.source, [*error.problems[:_MAX_PROBLEMS], f"and {rest} more"])
