"""Reading what the finished cells of a study left in their run directories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.api.evaluate_predictions import find_annotations
from msdetr.data.coco_file import load_annotations
from msdetr.engine.checkpoint import INFO_FILE, find_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import StudyError
from msdetr.evaluation.matching import Result
from msdetr.evaluation.metrics import SUMMARY_KEYS
from msdetr.evaluation.results import read_results
from msdetr.files import digest_file
from msdetr.study.cell import Cell
from msdetr.study.cell_findings import COSTS, CellFindings, StoredCell, examine_cell
from msdetr.study.design import StudyDesign
from msdetr.study.stored_analysis import read_analysis

# Of the numbers in metrics.json and those computed again; both come from the same detections.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class GroundTruth:
    """What all cells of a study were scored against.

    Attributes:
        content: Of the annotation file.
        image_ids: Images that the cells were evaluated on, ascending.
    """

    content: Mapping[str, Any]
    image_ids: tuple[int, ...]

    @property
    def num_targets(self) -> int:
        """Targets of these images, crowd not counted."""
        known = set(self.image_ids)
        return sum(
            entry["image_id"] in known and not entry.get("iscrowd")
            for entry in self.content["annotations"]
        )


def read_ground_truth(cells: Sequence[Cell], data: str | None) -> GroundTruth:
    """Read the annotation file that the cells were scored against.

    Args:
        cells: Finished cells, at least one.
        data: Where the file is now: a root in COCO's layout, "IMAGES,ANNOTATIONS.json", or the
            file; by default where it was.

    Raises:
        StudyError: The file is gone or has changed, or the cells had different ones.
        DataError: It is no annotation file.
    """
    splits = [_read_split(cell) for cell in cells]
    for cell, split in zip(cells, splits, strict=True):
        if (split.sha256, split.limit) != (splits[0].sha256, splits[0].limit):
            message = f"was evaluated on other images than {cells[0].name}"
            raise StudyError(str(cell.path), message)
    first = splits[0]
    file = Path(first.annotations) if data is None else find_annotations(data)
    if not file.is_file():
        raise StudyError(str(file), "is gone; say where it is now as `data`")
    if digest_file(file) != first.sha256:
        raise StudyError(
            str(file), f"is not the annotation file that {cells[0].name} was scored on"
        )
    content = load_annotations(file)
    ids = sorted(int(image["id"]) for image in content["images"])
    return GroundTruth(content, tuple(ids[: first.limit]))


def examine(cell: Cell, truth: GroundTruth, design: StudyDesign) -> CellFindings:
    """Read a finished cell and compute what its detections come to.

    Args:
        cell: A finished cell.
        truth: What it was scored against.
        design: Of the study.

    Raises:
        StudyError: A file is missing or damaged, or does not belong to the others.
        DataError: So are the detections.
    """
    stored = _read_cell(cell, design.metric)
    found = examine_cell(
        stored,
        truth.content,
        read_detections(cell, truth),
        image_ids=truth.image_ids,
        metric=design.metric,
        nms_threshold=design.nms_threshold,
    )
    stated, computed = stored.metrics["ap"], found.nms.rows[0].ap
    if stated is not None and not (computed is not None and abs(stated - computed) <= _TOLERANCE):
        here = "undefined" if computed is None else f"{computed:.6f}"
        raise StudyError(
            str(_predictions_of(cell)),
            f"is not what metrics.json beside it was computed from: ap is {here} "
            f"here and {stated:.6f} there",
        )
    return found


def read_detections(cell: Cell, truth: GroundTruth) -> list[Result]:
    """Read the detections of a finished cell.

    Raises:
        DataError: The file is missing or damaged.
    """
    return list(read_results(_predictions_of(cell), truth.content))


def _predictions_of(cell: Cell) -> Path:
    return RunDirectory(cell.path).evaluation / "predictions.json"


@dataclass(frozen=True)
class _Split:
    annotations: str
    sha256: str
    limit: int | None


def _read_split(cell: Cell) -> _Split:
    checkpoint = find_checkpoint(RunDirectory(cell.path).last)
    assert checkpoint is not None  # finished cells have one
    file = checkpoint / INFO_FILE
    info = _read_object(file)
    try:
        split = info["data"]["val"]
        limit = info["recipe"]["data"]["val"]["limit"]
        return _Split(str(split["annotations"]), str(split["annotations_sha256"]), limit)
    except (KeyError, TypeError) as error:
        raise StudyError(str(file), f"is damaged: lacks {error}") from error


def _read_cell(cell: Cell, metric: str) -> StoredCell:
    run = RunDirectory(cell.path)
    file = run.evaluation / "metrics.json"
    metrics = _read_object(file)
    if metric not in metrics:
        raise StudyError(str(file), f"lacks {metric!r}")
    rows = cell.epoch_rows()
    logged = rows[-1].get("cost") if rows else None
    costs = {**(metrics.get("cost") or {}), **(logged or {})}
    return StoredCell(
        arm=cell.arm,
        seed=cell.seed,
        metrics=_numbers(file, metrics, SUMMARY_KEYS),
        curve=tuple(_curve(run.metrics_file, rows, metric)),
        costs=_numbers(run.metrics_file, costs, COSTS),
        analysis=read_analysis(cell.analysis) if cell.is_analysed else None,
        machine=_read_machine(run.environment_file),
    )


def _curve(
    file: Path, rows: Sequence[Mapping[str, Any]], metric: str
) -> Iterator[tuple[int, float]]:
    for row in rows:
        values = _numbers(file, row, ("epoch", metric))
        epoch, value = values["epoch"], values[metric]
        if epoch is not None and value is not None:
            yield int(epoch) + 1, value


def _numbers(
    file: Path, content: Mapping[str, Any], keys: Sequence[str]
) -> dict[str, float | None]:
    """Take the values of some keys; None for those that are missing."""
    for key in keys:
        value = content.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise StudyError(str(file), f"{key}: expected a number, got {value!r:.40}")
    return {key: None if content.get(key) is None else float(content[key]) for key in keys}


def _read_machine(file: Path) -> str | None:
    """Name the kind of machine: what decides the last bits of a training run."""
    try:
        environment: Any = json.loads(file.read_text(encoding="utf-8"))
        parts = [*environment["gpus"]] or [
            environment.get("cpu") or "processor not known",
            environment.get("cpu_capability") or "",
            f"{environment['torch_threads']} thread(s)",
        ]
        return ", ".join([*filter(None, parts), f"torch {environment['packages']['torch']}"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(str(file), f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StudyError(str(file), f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise StudyError(str(file), f"expected a JSON object, got a {type(content).__name__}")
    return content
