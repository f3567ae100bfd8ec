"""What the cells of one arm come to, beside those of the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdetr.evaluation.found_targets import ImageTargets, list_won_and_lost
from msdetr.study.cell_findings import FAMILIES, CellFindings
from msdetr.study.headline import Headline, headline_of
from msdetr.study.image_bootstrap import ImageDifference, image_difference
from msdetr.study.paired import PairedComparison, compare_arms
from msdetr.study.positive_counts import (
    CountedTargets,
    PositivesGroup,
    group_by_positives,
    last_layer,
)
from msdetr.study.seed_means import SeedMean, mean_over_seeds
from msdetr.study.verdict import NoVerdict, Verdict, decide

Cells = Mapping[int, CellFindings]
"""Cells of one arm by seed."""


@dataclass(frozen=True)
class TargetChanges:
    """Targets that one of two checkpoints of the same seed finds and the other does not.

    Attributes:
        images: Those that have such targets, most first; won by the arm, lost to the baseline.
        num_targets: All targets that there are.
    """

    images: tuple[ImageTargets, ...]
    num_targets: int

    @property
    def num_won(self) -> int:
        """Targets that only the arm finds."""
        return sum(len(image.won) for image in self.images)

    @property
    def num_lost(self) -> int:
        """Targets that only the baseline finds."""
        return sum(len(image.lost) for image in self.images)

    def to_dict(self) -> dict[str, int]:
        """Their counts as JSON values."""
        return {"won": self.num_won, "lost": self.num_lost, "targets": self.num_targets}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is said of an arm and the baseline.

    Attributes:
        verdict: In one of four words, or why there is none.
        comparison: Statistics over the seeds that both have; None with fewer than two.
        over_images: Difference of the checkpoints of every such seed, with its interval over
            images: of checkpoints, not of methods.
        headline: Mean difference, with its interval over seeds and images.
    """

    verdict: Verdict | NoVerdict
    comparison: PairedComparison | None
    over_images: Mapping[int, ImageDifference]
    headline: Headline | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        verdict = self.verdict
        return {
            "verdict": verdict.to_dict()
            if isinstance(verdict, Verdict)
            else {"outcome": None, "sentence": str(verdict), "num_seeds": verdict.num_seeds},
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "over_images": {str(seed): each.to_dict() for seed, each in self.over_images.items()},
            "headline": None if self.headline is None else self.headline.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class ArmFindings:
    """One arm.

    Attributes:
        name: Of the arm.
        values: The study's metric by seed, of the finished cells.
        curve: Epochs with the mean and the lowest and highest metric of the cells that have been
            evaluated after them.
        measures: Means over seeds by family of ``FAMILIES`` and name.
        decision: Of the arm and the baseline; None of the baseline itself.
        targets: Targets won and lost, by seed.
        by_positives: Targets by the number of positives they had; empty for an arm without a
            one-to-many branch.
        has_one_to_many: Whether the arm's models have a one-to-many branch; None if no cell has
            been analysed.
        one_to_many: Its assigner in one line; None likewise.
    """

    name: str
    values: Mapping[int, float]
    curve: tuple[tuple[int, float, float, float], ...]
    measures: Mapping[str, Mapping[str, SeedMean]]
    decision: Decision | None
    targets: Mapping[int, TargetChanges]
    by_positives: tuple[PositivesGroup, ...]
    has_one_to_many: bool | None
    one_to_many: str | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "name": self.name,
            "values": {str(seed): value for seed, value in self.values.items()},
            "curve": [list(point) for point in self.curve],
            "has_one_to_many": self.has_one_to_many,
            "one_to_many": self.one_to_many,
            **({} if self.decision is None else self.decision.to_dict()),
            "measures": {
                family: {name: mean.to_dict() for name, mean in means.items()}
                for family, means in self.measures.items()
            },
            "targets": {str(seed): each.to_dict() for seed, each in self.targets.items()},
            "by_positives": [group.to_dict() for group in self.by_positives],
        }


def find_out(
    cells: Mapping[str, Cells],
    baseline: str,
    *,
    metric: str,
    smallest_effect: float,
    numbers: Mapping[int, int],
) -> list[ArmFindings]:
    """Compare the arms of a study with its baseline.

    Args:
        cells: Finished cells by arm and seed; an arm may have none.
        baseline: Name of the arm that the others are compared with.
        metric: Decides.
        smallest_effect: Smaller differences of it are of no interest.
        numbers: Numbers of the targets by annotation id.
    """
    values = {name: _values(own, metric) for name, own in cells.items()}
    comparisons = {each.arm: each for each in compare_arms(values, baseline)}
    return [
        ArmFindings(
            name=name,
            values=values[name],
            curve=_mean_curve(own),
            measures=_measures(own, None if name == baseline else cells[baseline]),
            decision=None
            if name == baseline
            else _decide(
                _Pair(name, own, baseline, cells[baseline]),
                comparisons.get(name),
                smallest_effect,
            ),
            targets={} if name == baseline else _changes(own, cells[baseline]),
            by_positives=()
            if name == baseline
            else group_by_positives(_counted(own, cells[baseline], numbers)),
            **_scheme(own),
        )
        for name, own in cells.items()
    ]


@dataclass(frozen=True)
class _Pair:
    arm: str
    cells: Cells
    baseline: str
    base: Cells

    @property
    def seeds(self) -> list[int]:
        """Seeds that both have a value of."""
        return [
            seed
            for seed in sorted(self.cells.keys() & self.base.keys())
            if not any(np.isnan(arm[seed].resampled.values[0]) for arm in (self.cells, self.base))
        ]


def _values(cells: Cells, metric: str) -> dict[int, float]:
    found = {seed: cell.stored.metrics.get(metric) for seed, cell in cells.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _measures(cells: Cells, baseline: Cells | None) -> dict[str, dict[str, SeedMean]]:
    ours = {seed: cell.measures() for seed, cell in cells.items()}
    theirs = {seed: cell.measures() for seed, cell in (baseline or {}).items()}
    return {
        family: mean_over_seeds(
            {seed: each[family] for seed, each in ours.items()},
            None if baseline is None else {seed: each[family] for seed, each in theirs.items()},
        )
        for family in FAMILIES
    }


def _decide(pair: _Pair, comparison: PairedComparison | None, smallest_effect: float) -> Decision:
    verdict: Verdict | NoVerdict = NoVerdict(pair.arm, pair.baseline, len(pair.seeds))
    if comparison is not None:
        verdict = decide(comparison, smallest_effect)
    ours, theirs = (
        {seed: cells[seed].resampled for seed in pair.seeds} for cells in (pair.cells, pair.base)
    )
    differences = {seed: image_difference(ours[seed], theirs[seed]) for seed in pair.seeds}
    return Decision(
        verdict=verdict,
        comparison=comparison,
        over_images={seed: each for seed, each in differences.items() if each is not None},
        headline=headline_of(ours, theirs) if pair.seeds else None,
    )


def _changes(cells: Cells, baseline: Cells) -> dict[int, TargetChanges]:
    return {
        seed: TargetChanges(
            images=tuple(list_won_and_lost(cell.targets, baseline[seed].targets)),
            num_targets=cell.targets.num_targets,
        )
        for seed, cell in cells.items()
        if seed in baseline
    }


def _counted(cells: Cells, baseline: Cells, numbers: Mapping[int, int]) -> Iterator[CountedTargets]:
    for seed, cell in cells.items():
        analysis = cell.stored.analysis
        if analysis is not None and analysis.has_one_to_many and seed in baseline:
            yield CountedTargets(
                last_layer(analysis.positives),
                numbers,
                cell.targets.found,
                baseline[seed].targets.found,
            )


def _mean_curve(cells: Cells) -> tuple[tuple[int, float, float, float], ...]:
    """Average the curves where all cells have a value."""
    curves = [dict(cell.stored.curve) for cell in cells.values()]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return tuple(_point(epoch, [curve[epoch] for curve in curves]) for epoch in epochs)


def _point(epoch: int, values: Sequence[float]) -> tuple[int, float, float, float]:
    return epoch, float(np.mean(values)), min(values), max(values)


def _scheme(cells: Cells) -> dict[str, Any]:
    analyses = [cell.stored.analysis for cell in cells.values()]
    known = [analysis for analysis in analyses if analysis is not None]
    return {
        "has_one_to_many": known[0].has_one_to_many if known else None,
        "one_to_many": known[0].one_to_many if known else None,
    }
