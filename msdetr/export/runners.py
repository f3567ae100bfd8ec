"""What verification needs of an exported file, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from msdetr.structures import ImageBatch


@dataclass(frozen=True)
class ExportedOutput:
    """What a file computes on the way to its outputs.

    Attributes:
        logits: [B, Q, K] float32.
        boxes_cxcywh: [B, Q, 4] float32 in 0..1 of the unpadded image.
        cells: [B, Q] int64, the cell that each query comes from; None for learned queries.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    cells: Tensor | None


class Runner(Protocol):
    """A file loaded from disk, ready to be run on the CPU."""

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        ...

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        ...
