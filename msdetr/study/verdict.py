"""What a comparison comes to, in one of four words and one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from msdetr.study.interval import LEVEL, Interval, signed
from msdetr.study.paired import PairedComparison
from msdetr.study.power import MAX_SEEDS, assumed_difference, seeds_still_needed


class Outcome(StrEnum):
    """The four things that can be said of two methods."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference worth having"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the seeds say of an arm and the baseline; prints itself as a sentence.

    Attributes:
        arm: Name of the arm.
        baseline: Name of the baseline.
        outcome: One of four.
        mean: Mean difference, arm minus baseline.
        spread: Standard deviation of the differences.
        interval: Paired t interval of it.
        num_seeds: Seeds that both have.
        smallest_effect: Smaller differences are of no interest.
        seeds_needed: Seeds to add for a chance of 80% to decide; None where it is decided, or
            where more than 1000 would be needed.
    """

    arm: str
    baseline: str
    outcome: Outcome
    mean: float
    spread: float
    interval: Interval
    num_seeds: int
    smallest_effect: float
    seeds_needed: int | None

    def __str__(self) -> str:
        """Say it in one sentence."""
        found = f"{signed(self.mean)}, 95% interval {self.interval}, {self.num_seeds} seeds"
        match self.outcome:
            case Outcome.BETTER | Outcome.WORSE:
                return f"{self.arm} is {self.outcome} than {self.baseline} ({found})."
            case Outcome.NO_DIFFERENCE:
                bound = f"the interval lies within ±{self.smallest_effect:g}"
                return f"{self.arm} and {self.baseline}: {self.outcome} ({found}; {bound})."
            case Outcome.UNDECIDED:
                return f"{self.arm} and {self.baseline}: undecided ({found}); {self._way_out()}."

    def _way_out(self) -> str:
        if self.seeds_needed is None:
            seeds = f"more than {MAX_SEEDS} seeds"
        else:
            seeds = "1 more seed" if self.seeds_needed == 1 else f"{self.seeds_needed} more seeds"
        assumed = assumed_difference(self.mean, self.smallest_effect)
        return (
            f"it would take {seeds} to decide with 80% power, were the true difference "
            f"{assumed:.3f} and the spread {self.spread:.3f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, with the sentence."""
        return {
            "outcome": str(self.outcome),
            "sentence": str(self),
            "mean": self.mean,
            "spread": self.spread,
            "interval": self.interval.to_dict(),
            "num_seeds": self.num_seeds,
            "smallest_effect": self.smallest_effect,
            "seeds_needed": self.seeds_needed,
        }


@dataclass(frozen=True)
class NoVerdict:
    """Said in place of a verdict where an arm and the baseline share fewer than two seeds.

    Attributes:
        arm: Name of the arm.
        baseline: Name of the baseline.
        num_seeds: Seeds that both have: 0 or 1.
    """

    arm: str
    baseline: str
    num_seeds: int

    def __str__(self) -> str:
        """Say it in one sentence."""
        seeds = "1 seed" if self.num_seeds == 1 else "no seed"
        return (
            f"{self.arm} and {self.baseline}: no verdict on methods, which takes at least two "
            f"seeds that both have; there is {seeds}."
        )


def decide(comparison: PairedComparison, smallest_effect: float) -> Verdict:
    """Draw the conclusion from the paired t interval.

    "better" and "worse" moreover need a t test that stays below 0.05 once corrected for the
    number of arms; with a single arm that is the same as an interval without 0.

    Args:
        comparison: Of an arm with the baseline.
        smallest_effect: Smaller differences are of no interest, whatever their certainty.
    """
    outcome = _conclude(comparison, smallest_effect)
    needed = None
    if outcome is Outcome.UNDECIDED:
        needed = seeds_still_needed(
            comparison.mean, comparison.spread, comparison.num_seeds, smallest_effect
        )
    return Verdict(
        arm=comparison.arm,
        baseline=comparison.baseline,
        outcome=outcome,
        mean=comparison.mean,
        spread=comparison.spread,
        interval=comparison.paired,
        num_seeds=comparison.num_seeds,
        smallest_effect=smallest_effect,
        seeds_needed=needed,
    )


def _conclude(comparison: PairedComparison, smallest_effect: float) -> Outcome:
    if comparison.paired.is_within(smallest_effect):
        return Outcome.NO_DIFFERENCE
    if comparison.holm_t_p >= 1 - LEVEL:
        return Outcome.UNDECIDED
    return Outcome.BETTER if comparison.mean > 0 else Outcome.WORSE
