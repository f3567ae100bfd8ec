"""One-to-many assignment by repetition: every target takes part in one matching several times."""

from __future__ import annotations

from dataclasses import dataclass

from msdetr.assignment.hungarian import HungarianAssigner


@dataclass(frozen=True)
class RepeatedHungarianAssigner(HungarianAssigner):
    """Pairs every target with ``copies`` queries, at least total cost per layer and image.

    All copies of all targets compete in one Hungarian matching, so that no query serves two
    targets. Where there are fewer queries than copies, every query has a target.

    Attributes:
        copies: How often every target enters the matching, at least 1.

    Source: Jia et al., DETRs with Hybrid Matching, CVPR 2023, section 3.2 (hybrid branch scheme).
    """

    copies: int = 6

    @property
    def num_copies(self) -> int:
        """How often every target enters the matching."""
        return self.copies

    def describe(self) -> str:
        """Return the settings in one line."""
        return f"{self.copies} copies of every target, {super().describe()}"
