"""Everything that the report of a study says, as numbers and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msdetr.study.arm_findings import ArmFindings
from msdetr.study.cell import CellState
from msdetr.study.seed_means import Values

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One cell as a row of the tables.

    Attributes:
        arm: Name of the arm.
        seed: Its seed.
        state: How far it is.
        error: Why it failed; empty if it did not.
        is_analysed: Whether it was looked at with its model.
        machine: Kind of machine it ran on; None where that is not known.
        measures: Numbers by family and name; empty unless it is finished.
    """

    arm: str
    seed: int
    state: CellState
    error: str
    is_analysed: bool
    machine: str | None
    measures: Mapping[str, Values]

    @property
    def name(self) -> str:
        """The cell in messages."""
        return f"{self.arm}/seed_{self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether its numbers are part of the study's."""
        return self.state == "finished"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return vars(self).copy()


@dataclass(frozen=True, kw_only=True)
class StudyFindings:
    """A study, finished or not.

    Attributes:
        description: What it is about; may be empty.
        metric: Decides.
        smallest_effect: Smaller differences are of no interest.
        nms_threshold: IoU of the class-wise suppression after which arms are compared; None for
            none.
        budget: What is equal for all cells: "epochs", or the seconds of training.
        baseline: Name of the arm that the others are compared with.
        seeds: Of the design.
        added_arms: Arms that were added after results had been seen.
        added_seeds: Seeds likewise.
        arms: In the design's order.
        cells: By arm and seed.
        settings: Recipe fields that differ between arms: values by arm, by dotted key; arms
            whose recipes lack the field are left out.
        num_images: Images that the cells were evaluated on.
        num_targets: Their targets.
        num_traced: Images whose positives were counted; None if no cell was analysed.
        evaluator: What computed the metrics.
    """

    description: str
    metric: str
    smallest_effect: float
    nms_threshold: float | None
    budget: str
    baseline: str
    seeds: tuple[int, ...]
    added_arms: tuple[str, ...]
    added_seeds: tuple[int, ...]
    arms: tuple[ArmFindings, ...]
    cells: tuple[CellRow, ...]
    settings: Mapping[str, Mapping[str, Any]]
    num_images: int
    num_targets: int
    num_traced: int | None
    evaluator: str

    @property
    def machines(self) -> dict[str, list[str]]:
        """Finished cells by the kind of machine they ran on."""
        found: dict[str, list[str]] = {}
        for cell in self.cells:
            if cell.is_finished:
                found.setdefault(cell.machine or "not known", []).append(cell.name)
        return found

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the verdicts."""
        return list(self._notes())

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "description": self.description,
            "metric": self.metric,
            "smallest_effect": self.smallest_effect,
            "nms_threshold": self.nms_threshold,
            "budget": self.budget,
            "baseline": self.baseline,
            "seeds": list(self.seeds),
            "added_after_results": {
                "arms": list(self.added_arms),
                "seeds": list(self.added_seeds),
            },
            "notes": self.notes,
            "num_images": self.num_images,
            "num_targets": self.num_targets,
            "num_traced": self.num_traced,
            "evaluator": self.evaluator,
            "settings": self.settings,
            "arms": [arm.to_dict() for arm in self.arms],
            "cells": [cell.to_dict() for cell in self.cells],
        }

    def _notes(self) -> Iterator[str]:
        missing = [cell for cell in self.cells if not cell.is_finished]
        if missing:
            count = f"{len(missing)} of {len(self.cells)} cells are not finished"
            yield f"{count}: {', '.join(map(_lack, missing))}."
        yield from self._additions()
        values = [value for arm in self.arms for value in arm.values.values()]
        if values and max(values) <= self.smallest_effect:
            yield (
                f"No cell has learned to detect anything: {self.metric} is {max(values):.3f} at "
                "most. That methods do not differ in this says nothing of them."
            )
        if len(self.machines) > 1:
            yield (
                f"The cells ran on {len(self.machines)} kinds of machine, whose sums differ in "
                "their last bits: with the same seed they end in other weights. Compare within "
                "one kind, or see that every seed ran on one for all arms."
            )
        if any(cell.is_finished and not cell.is_analysed for cell in self.cells):
            names = [c.name for c in self.cells if c.is_finished and not c.is_analysed]
            yield f"Not analysed with their models yet: {', '.join(names)}."
        if not any(arm.measures["errors"] for arm in self.arms):
            yield "TIDE errors are left out: they need hotcoco (pip install 'msdetr[fast]')."

    def _additions(self) -> Iterator[str]:
        added = [f"arm {name}" for name in self.added_arms]
        added += [f"seed {seed}" for seed in self.added_seeds]
        if added:
            were = "was" if len(added) == 1 else "were"
            yield (
                f"{', '.join(added)} {were} added after results had been seen. Adding until a "
                "difference shows makes one show more often than the intervals say."
            )


def _lack(cell: CellRow) -> str:
    return f"{cell.name} {cell.state}" + (f" ({cell.error})" if cell.error else "")
