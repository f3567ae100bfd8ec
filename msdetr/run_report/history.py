"""What a training run logged, read from ``metrics.jsonl`` or from the published ``log.txt``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.errors import DataError, Problem
from msdetr.files import parse_json

METRICS_FILE = "metrics.jsonl"
PUBLISHED_FILE = "log.txt"

_PUBLISHED_TERM = re.compile(
    r"train_loss_(?P<name>ce|bbox|giou)(_(?P<layer>\d+))?(?P<branch>_o2m|_enc)?(?P<raw>_unscaled)?"
)
_TERM_NAMES = {"ce": "class", "bbox": "box", "giou": "giou"}
_BRANCHES = {None: "one_to_one", "_o2m": "one_to_many", "_enc": "proposals"}
# Branches of the primary group, and those beside the one-to-one branch of another group.
_OF_PRIMARY_OR_PART = re.compile(r"one_to_one|(.+_)?(one_to_many|proposals)")
_COCO_KEYS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """Values logged at one time.

    Attributes:
        epoch: Epoch under way, counted from 0.
        step: Finished optimizer steps; None where the log does not say.
        lr: Learning rate of the first group, or None.
        terms: Unweighted losses by key, such as ``one_to_one/class/5``.
        scores: COCO numbers in 0..1 by key, such as ``ap``; empty without an evaluation.
    """

    epoch: int
    step: int | None
    lr: float | None
    terms: Mapping[str, float]
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """What one training run logged.

    Attributes:
        path: The file.
        epochs: One row per finished epoch; losses are means over the epoch.
        steps: Rows of single optimizer steps; none in a published log.
        notes: What a reader should know of the values.
    """

    path: Path
    epochs: tuple[HistoryRow, ...]
    steps: tuple[HistoryRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def mixed_supervision(self) -> bool:
        """Whether one-to-many losses were logged."""
        rows = (*self.epochs, *self.steps)
        return any(key.startswith("one_to_many/") for row in rows for key in row.terms)

    @property
    def query_groups(self) -> dict[str, tuple[str, ...]]:
        """Branches of the query groups beside the primary one, by what they are called together.

        Independent groups differ in their numbers only and are one entry.
        """
        rows = (*self.epochs, *self.steps)
        branches = dict.fromkeys(key.partition("/")[0] for row in rows for key in row.terms)
        others = [name for name in branches if not _OF_PRIMARY_OR_PART.fullmatch(name)]
        independent = tuple(name for name in others if re.fullmatch(r"group_\d+", name))
        number = len(independent)
        name = "1 further group" if number == 1 else f"mean of {number} further groups"
        found = {name: independent} if independent else {}
        return found | {name: (name,) for name in others if name not in independent}

    @property
    def num_layers(self) -> int:
        """Decoder layers with one-to-one losses."""
        rows = (*self.epochs, *self.steps)
        layers = {
            int(key.rpartition("/")[2])
            for row in rows
            for key in row.terms
            if key.startswith("one_to_one/class/")
        }
        return max(layers, default=-1) + 1

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimizer steps of an epoch; None where the log does not tell."""
        for row in self.epochs:
            if row.step:
                return row.step / (row.epoch + 1)
        return None


def locate_log(path: Path) -> Path:
    """Find the log of a run.

    Args:
        path: Run directory with ``metrics.jsonl`` or ``log.txt``, or such a file.

    Raises:
        DataError: There is none.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise DataError(str(path), "does not exist; expected a run directory or its log")
    found = [path / name for name in (METRICS_FILE, PUBLISHED_FILE) if (path / name).is_file()]
    if not found:
        raise DataError(str(path), f"holds neither {METRICS_FILE} nor {PUBLISHED_FILE}")
    return found[0]


def read_history(path: Path) -> RunHistory:
    """Read a run's log in either format; a last line that a crash cut short is left out.

    Args:
        path: See ``locate_log``.

    Raises:
        DataError: The log is missing, empty, or has malformed lines.
    """
    file = locate_log(path)
    rows = _read_lines(file)
    if not rows:
        raise DataError(str(file), "holds no rows yet; the training run has logged nothing")
    try:
        if "kind" in rows[0]:
            return _from_metrics(file, rows)
        return _from_published(file, rows)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            str(file),
            f"is neither a {METRICS_FILE} nor a published {PUBLISHED_FILE}: {error!r:.80}",
        ) from error


def _read_lines(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(str(file), f"cannot be read: {error.strerror}") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines) or not rows:
            problem = f"expected a JSON object, got {line[:40]!r}"
            raise DataError(str(file), [Problem(f"line {number}", problem)])
    return rows


def _from_metrics(file: Path, rows: Iterable[Mapping[str, Any]]) -> RunHistory:
    read: dict[str, list[HistoryRow]] = {"epoch": [], "step": []}
    for row in rows:
        read[row["kind"]].append(
            HistoryRow(
                epoch=int(row["epoch"]),
                step=int(row["step"]),
                lr=_number(row.get("lr")),
                terms=_numbers(row["terms"]),
                scores=_numbers({key: row.get(key) for key in _COCO_KEYS}),
            )
        )
    return RunHistory(path=file, epochs=tuple(read["epoch"]), steps=tuple(read["step"]))


def _from_published(file: Path, rows: Sequence[Mapping[str, Any]]) -> RunHistory:
    epochs, weighted = [], False
    for row in rows:
        terms, was_weighted = _published_terms(row)
        weighted |= was_weighted
        scores = row.get("test_coco_eval_bbox") or ()
        epochs.append(
            HistoryRow(
                epoch=int(row["epoch"]),
                step=None,
                lr=_number(row.get("train_lr")),
                terms=terms,
                scores=_numbers(dict(zip(_COCO_KEYS, scores, strict=False))),
            )
        )
    if not any(row.terms or row.scores for row in epochs):
        raise ValueError("no train_loss_* and no test_coco_eval_bbox")
    note = "its losses are weighted; they are divided by the published weights"
    return RunHistory(path=file, epochs=tuple(epochs), steps=(), notes=(note,) if weighted else ())


def _published_terms(row: Mapping[str, Any]) -> tuple[dict[str, float], bool]:
    """Return a published row's losses under our keys, and whether weights were divided out."""
    matches = [match for match in map(_PUBLISHED_TERM.fullmatch, row) if match]
    last = _last_layers(matches)
    mixed = any(m["branch"] == "_o2m" for m in matches)
    unscaled = any(m["raw"] for m in matches)
    terms = {}
    for match in matches:
        value = _number(row[match.string])
        if value is None or bool(match["raw"]) != unscaled:
            continue
        branch, name = _BRANCHES[match["branch"]], _TERM_NAMES[match["name"]]
        layer = 0 if branch == "proposals" else int(match["layer"] or last[match["branch"]])
        weight = 1.0 if unscaled else _published_weight(branch, name, mixed=mixed)
        terms[f"{branch}/{name}/{layer}"] = value / weight
    return terms, bool(terms) and not unscaled


def _last_layers(matches: Iterable[re.Match[str]]) -> dict[str | None, int]:
    """Find the last layer of every branch, whose terms have no number."""
    last: dict[str | None, int] = {}
    for match in matches:
        above = -1 if match["layer"] is None else int(match["layer"])
        last[match["branch"]] = max(last.get(match["branch"], 0), 1 + above)
    return last


def _published_weight(branch: str, name: str, *, mixed: bool) -> float:
    if name == "class":
        return 1.0 if branch == "one_to_one" and mixed else 2.0
    return 5.0 if name == "box" else 2.0


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    read = {key: _number(value) for key, value in values.items()}
    return {key: value for key, value in read.items() if value is not None}


def _number(value: Any) -> float | None:  # noqa: ANN401 - JSON values
    """Return a finite number, not below 0 (COCO's tools write -1 for undefined), or None."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) and number >= 0 else None
