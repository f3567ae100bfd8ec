"""How far a training run is, by its last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msdetr.files import older_of

LAST_CHECKPOINT = Path("checkpoints", "last")
CHECKPOINT_FILE = "checkpoint.json"


def read_last_checkpoint(run: Path) -> dict[str, Any] | None:
    """Read what the last checkpoint of a run says of itself.

    Args:
        run: Run directory.

    Returns:
        The content of ``checkpoint.json``; None where there is no readable one.
    """
    last = run / LAST_CHECKPOINT
    for place in (last, older_of(last)):
        try:
            info: Any = json.loads((place / CHECKPOINT_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return info if isinstance(info, dict) else None
    return None


def is_over(info: dict[str, Any]) -> bool:
    """Whether the last epoch is trained, evaluated and saved, or the run's time was spent.

    Args:
        info: See :func:`read_last_checkpoint`.
    """
    return epochs_of(info) >= _epochs_to_do(info) or _has_spent_its_time(info)


def epochs_of(info: dict[str, Any]) -> int:
    """Finished epochs of the checkpoint; 0 where it does not say."""
    try:
        return int(info["run_state"]["epoch"])
    except (KeyError, TypeError, ValueError):
        return 0


def _epochs_to_do(info: dict[str, Any]) -> float:
    try:
        return int(info["recipe"]["train"]["epochs"])
    except (KeyError, TypeError, ValueError):
        return float("inf")


def _has_spent_its_time(info: dict[str, Any]) -> bool:
    """Tell whether the run ended at ``train.max_seconds``, after its last evaluation."""
    try:
        limit, spent = info["recipe"]["train"]["max_seconds"], info["costs"]["train_seconds"]
        is_evaluated = info["run_state"]["step_in_epoch"] == 0
    except (KeyError, TypeError):
        return False
    return limit is not None and is_evaluated and float(spent) >= float(limit)
