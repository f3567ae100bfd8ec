"""The ``analysis`` of a cell: what was computed with its model after the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.errors import StudyError
from msdetr.files import parse_json, require_version
from msdetr.inspection.positives import TargetPositives, read_positives

FORMAT_VERSION = 1
ANALYSIS_FILE = "analysis.json"
POSITIVES_FILE = "positives.csv"


@dataclass(frozen=True)
class StoredAnalysis:
    """Content of the folder.

    Attributes:
        branches: Metrics by decoder layer, from the first, by name of the branch; without those
            that the model does not have.
        positives: Of every target of the traced images, in every layer.
        num_traced: Images that were traced.
        has_one_to_many: Whether the model has a one-to-many branch. If not, ``positives`` are
            what the default assignment would give.
        one_to_many: The assigner and its settings in one line.
    """

    branches: Mapping[str, Sequence[Mapping[str, float | None]]]
    positives: tuple[TargetPositives, ...]
    num_traced: int
    has_one_to_many: bool
    one_to_many: str


def read_analysis(folder: Path) -> StoredAnalysis:
    """Read the analysis of a cell.

    Raises:
        StudyError: It is incomplete or damaged, or of a later version.
        DataError: So is its table.
    """
    file = folder / ANALYSIS_FILE
    try:
        document: Any = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(str(file), f"cannot be read: {error}") from error
    content = require_version(document, file, FORMAT_VERSION, StudyError)
    positives = read_positives(folder / POSITIVES_FILE)
    try:
        return StoredAnalysis(
            branches=_layers(content["branches"]),
            positives=tuple(positives),
            num_traced=int(content["num_traced"]),
            has_one_to_many=bool(content["has_one_to_many"]),
            one_to_many=str(content["one_to_many"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(str(file), f"is damaged: {error!r}") from error


def _layers(branches: Mapping[str, Any]) -> dict[str, list[dict[str, float | None]]]:
    return {
        name: [{key: _number(value) for key, value in layer.items()} for layer in layers]
        for name in ("one_to_one", "one_to_many")
        if (layers := branches[name]) is not None
    }


def _number(value: Any) -> float | None:  # noqa: ANN401 - JSON values
    return None if value is None else float(value)
