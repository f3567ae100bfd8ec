"""What goes into ``training_state.pt``: optimizer, loss scaler, seed.

There are no generator states: before every micro-batch the generators are seeded from (seed,
step, micro-batch), on every process, so that the seed says all about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from msdetr.engine.optimizer_state import restore_moments, restore_scaler
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
        CheckpointError: It belongs to other parameter groups, precision or seed, or its tensors
            do not fit the parameters.
    """
    missing = {"optimizer", "scaler", "seed"} - set(state)
    if missing:
        raise CheckpointError(source, f"training state lacks {', '.join(sorted(missing))}")
    if state["seed"] != seed:
        raise CheckpointError(source, f"was trained with seed {state['seed']}, not {seed}")
    if (state["scaler"] is None) != (scaler is None):
        raise CheckpointError(source, "was trained with another precision")
    restore_moments(state["optimizer"], optimizer, source=source)
    if scaler is not None:
        restore_scaler(state["scaler"], scaler, source=source)
