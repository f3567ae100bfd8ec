"""Numbers of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Numbers of a training run.

    Attributes:
        epochs: Epochs of the run.
        steps_per_epoch: Optimizer steps of an epoch.
        micro_batches_per_step: Forward passes of a step, over all processes.
        seed: Seed of everything random.
        max_seconds: Training time after which the run evaluates and ends, in seconds, counted over
            resumed runs; None for no limit.
        clip_norm: Maximum norm of the gradient; None for no clipping.
        log_every_steps: Steps between rows of the metrics file.
        evaluate_every_epochs: Epochs between evaluations; the last epoch is always evaluated.
        keep_every_epochs: Epochs between checkpoints that are kept; None for none.
        score: Key of the evaluation's result that decides which checkpoint is best.
        compile_model: Compile the model's forward.
    """

    epochs: int
    steps_per_epoch: int
    micro_batches_per_step: int
    seed: int
    max_seconds: float | None = None
    clip_norm: float | None = None
    log_every_steps: int = 50
    evaluate_every_epochs: int = 1
    keep_every_epochs: int | None = None
    score: str = "ap"
    compile_model: bool = False
