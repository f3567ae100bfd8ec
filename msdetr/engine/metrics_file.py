"""``metrics.jsonl``: one JSON object per line, for steps and epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msdetr.engine.run_state import RunState
from msdetr.files import finite_json, parse_json, replace_text


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row; numbers that are not finite become null."""
    line = json.dumps(finite_json(row), allow_nan=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(parse_json(line))
        except ValueError:
            break
    return rows


def rewind_rows(path: Path, state: RunState) -> None:
    """Drop rows of work that a run resuming from ``state`` does again."""
    kept = [row for row in read_rows(path) if _is_done(row, state)]
    replace_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def _is_done(row: Mapping[str, Any], state: RunState) -> bool:
    if row["kind"] == "epoch":
        return int(row["epoch"]) < state.epoch
    return int(row["step"]) <= state.step
