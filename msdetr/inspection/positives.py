"""How many positives every target has in the one-to-many assignment of a trace."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch

from msdetr.csv_files import CsvWriter
from msdetr.errors import DataError, Problem
from msdetr.inspection.rematch import ImageMatching, rematch
from msdetr.inspection.trace import MatchTrace, TracedImage


@dataclass(frozen=True)
class TargetPositives:
    """One target in one decoder layer.

    Attributes:
        image_id: Id in the annotation file.
        annotation_id: Id in the annotation file.
        layer: Decoder layer, from 0.
        candidates: Queries that would be its positives without a cap on those of the image; for
            assigners other than MS-DETR's the positives.
        kept: Those of them that the cap leaves.
        positives: Queries that are paired with it, which are never more than k.
    """

    image_id: int
    annotation_id: int
    layer: int
    candidates: int
    kept: int
    positives: int


_COLUMNS = tuple(field.name for field in fields(TargetPositives))


def count_positives(trace: MatchTrace) -> Iterator[TargetPositives]:
    """Count the positives of every target of a trace, by image, layer and target."""
    for image in trace.images:
        if image.num_targets:
            yield from _of_image(image, rematch(image, trace.info.one_to_many))


def write_positives(path: Path, rows: Iterable[TargetPositives]) -> None:
    """Write a CSV file with one row per target and layer."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.write(_COLUMNS)
        writer.write_all(astuple(row) for row in rows)


def read_positives(path: Path) -> list[TargetPositives]:
    """Read what :func:`write_positives` wrote.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(str(path), f"cannot be read: {error}") from error
    if not lines or tuple(lines[0]) != _COLUMNS:
        expected = ",".join(_COLUMNS)
        raise DataError(str(path), [Problem("line 1", f"expected the columns {expected}")])
    return [_parse(path, number, line) for number, line in enumerate(lines[1:], start=2)]


def _parse(path: Path, number: int, line: list[str]) -> TargetPositives:
    try:
        image, annotation, layer, candidates, kept, positives = map(int, line)
    except ValueError:
        problem = Problem(f"line {number}", f"expected six integers, got {','.join(line)[:40]!r}")
        raise DataError(str(path), [problem]) from None
    return TargetPositives(image, annotation, layer, candidates, kept, positives)


def _of_image(image: TracedImage, matching: ImageMatching) -> Iterator[TargetPositives]:
    # N lists of T lists of three.
    counts = torch.stack(_counts(matching), dim=-1).tolist()
    annotation_ids = image.annotation_ids.tolist()
    for layer, targets in enumerate(counts):
        for annotation_id, values in zip(annotation_ids, targets, strict=True):
            yield TargetPositives(image.image_id, annotation_id, layer, *values)


def _counts(matching: ImageMatching) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count candidates, kept ones and pairs, [N, T] each."""
    positives = matching.one_to_many.sum(dim=2)
    explanation = matching.explanation
    columns = explanation.query_columns
    if explanation.capped is None or "candidate" not in columns:
        return positives, positives, positives
    targets = torch.arange(positives.shape[1])[:, None]
    chosen = columns["candidate"][:, None, :] == targets
    is_positive = (columns["above_threshold"] | columns["forced"])[:, None, :]
    candidates = (chosen & is_positive).sum(dim=2)
    kept = (chosen & is_positive & ~explanation.capped[:, None, :]).sum(dim=2)
    return candidates, kept, positives
