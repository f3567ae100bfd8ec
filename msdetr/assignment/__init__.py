"""One-to-one and one-to-many assignment of queries to targets."""

from __future__ import annotations

from msdetr.assignment.hungarian import HungarianAssigner, assign_together
from msdetr.assignment.one_to_many import OneToManyAssigner, OneToManySteps
from msdetr.assignment.repeated_hungarian import RepeatedHungarianAssigner

__all__ = [
    "HungarianAssigner",
    "OneToManyAssigner",
    "OneToManySteps",
    "RepeatedHungarianAssigner",
    "assign_together",
]
