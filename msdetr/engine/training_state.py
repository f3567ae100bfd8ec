"""What goes into ``training_state.pt``: optimizer, loss scaler, seed.

There are no generator states: before every micro-batch the generators are seeded from (seed,
step, micro-batch), on every process, so that the seed says all about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from msdetr.errors import CheckpointError


def collect_training_state(
    *,
    optimizer: Optimizer,
    scaler: Any,  # noqa: ANN401 - torch.amp.GradScaler or None
    seed: int,
) -> dict[str, Any]:
    """Gather tensors and plain containers that ``restore_training_state`` takes."""
    return {
        "optimizer": optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "seed": seed,
    }


def restore_training_state(
    state: Mapping[str, Any],
    *,
    optimizer: Optimizer,
    scaler: Any,  # noqa: ANN401 - torch.amp.GradScaler or None
    seed: int,
    source: str,
) -> None:
    """Put a collected state back.

    Raises:
        CheckpointError: It belongs to other parameter groups, precision or seed.
    """
    missing = {"optimizer", "scaler", "seed"} - set(state)
    if missing:
        raise CheckpointError(source, f"training state lacks {', '.join(sorted(missing))}")
    if state["seed"] != seed:
        raise CheckpointError(source, f"was trained with seed {state['seed']}, not {seed}")
    if (state["scaler"] is None) != (scaler is None):
        raise CheckpointError(source, "was trained with another precision")
    if _names(state["optimizer"]) != _names(optimizer.state_dict()):
        raise CheckpointError(source, "was trained with other parameter groups")
    try:
        optimizer.load_state_dict(state["optimizer"])
        if scaler is not None:
            scaler.load_state_dict(state["scaler"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(source, f"its optimizer state does not fit: {error}") from error


def _names(optimizer_state: Any) -> list[Any] | None:  # noqa: ANN401 - content of a file
    try:
        return [(g["name"], g.get("param_names")) for g in optimizer_state["param_groups"]]
    except (KeyError, TypeError):
        return None
