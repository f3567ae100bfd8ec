"""How far a run has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from msdetr.errors import CheckpointError


@dataclass
class RunState:
    """The only mutable state of a run besides weights, their average and the optimizer.

    Attributes:
        epoch: Epoch under way, counted from 0; equals the number of finished epochs.
        step: Finished optimizer steps since the start of the run.
        step_in_epoch: Finished optimizer steps of the epoch under way. It equals the steps
            per epoch while an epoch is trained but not yet evaluated.
        loss_sum: Sum of the losses of the finished steps of the epoch under way.
        term_sums: The same for every unweighted loss term.
        scores: Result of the last evaluation.
        best_score: Highest score so far, or None before the first evaluation.
        best_epoch: Epoch (counted from 0) of the highest score.
        skipped_images: Images skipped since the start of the run, as often as they were.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    term_sums: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float | None] = field(default_factory=dict)
    best_score: float | None = None
    best_epoch: int | None = None
    skipped_images: int = 0

    def finish_step(self, loss: float, terms: Mapping[str, float], skipped_images: int = 0) -> None:
        """Count one optimizer step."""
        self.skipped_images += skipped_images
        self.step += 1
        self.step_in_epoch += 1
        self.loss_sum += loss
        for key, value in terms.items():
            self.term_sums[key] = self.term_sums.get(key, 0.0) + value

    def mean_losses(self) -> tuple[float | None, dict[str, float]]:
        """Return the mean loss and mean terms over the finished steps of the epoch under way."""
        count = self.step_in_epoch
        if count == 0:
            return None, {}
        return self.loss_sum / count, {k: v / count for k, v in self.term_sums.items()}

    def finish_epoch(self) -> None:
        """Move on to the next epoch."""
        self.epoch += 1
        self.step_in_epoch = 0
        self.loss_sum = 0.0
        self.term_sums = {}

    def record_scores(self, scores: Mapping[str, float | None], key: str) -> bool:
        """Keep the scores of an evaluation; tell whether ``key`` is the best so far."""
        self.scores = dict(scores)
        score = scores.get(key)
        if score is None or (self.best_score is not None and score <= self.best_score):
            return False
        self.best_score, self.best_epoch = score, self.epoch
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Rebuild a state from ``to_dict``.

        Raises:
            CheckpointError: Fields are missing or unknown, or values are no amounts.
        """
        expected = {f.name for f in fields(cls)}
        if set(values) != expected:
            odd = ", ".join(sorted(set(values) ^ expected))
            raise CheckpointError(source, f"run state has missing or unknown fields: {odd}")
        misfits = [key for key, value in values.items() if not _fits(key, value)]
        if misfits:
            raise CheckpointError(source, f"run state has odd values: {', '.join(misfits)}")
        return cls(**values)


_COUNTS = {"epoch", "step", "step_in_epoch", "skipped_images"}
_BY_NAME = {"term_sums", "scores"}


def _fits(key: str, value: object) -> bool:
    if key in _COUNTS:
        return _is_count(value)
    if key in _BY_NAME:
        return isinstance(value, dict) and all(map(_is_number_or_none, value.values()))
    if key == "best_epoch":
        return value is None or _is_count(value)
    return _is_number_or_none(value) and (value is not None or key != "loss_sum")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number_or_none(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
