"""What users of an exported file need of it, whatever its format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from msdetr.structures import ImageBatch

Feeds = Mapping[str, Tensor]
"""Inputs of a file by name."""


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


class StoredProgram(Protocol):
    """A file loaded from disk by those who know only what it says of itself."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself: JSON values by name; nothing where it is not ours."""
        ...

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes of the inputs by name; None for a side of any length."""
        ...

    def run(self, feeds: Feeds) -> list[Tensor]:
        """Run the file on the CPU; all outputs in its order."""
        ...


class Runner(Protocol):
    """A file loaded from disk, ready to be compared with the model on the CPU."""

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        ...

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        ...


def feed(images: ImageBatch, names: Iterable[str]) -> dict[str, Tensor]:
    """Name what a file is given: ``pixels`` and, if it has that input, ``padding_mask``."""
    values = {"pixels": images.pixels, "padding_mask": images.padding_mask}
    return {name: values[name] for name in names}


def parse_metadata(texts: Mapping[str, str]) -> dict[str, Any]:
    """Read JSON texts by name; those of strangers that are not JSON are left out."""
    values = {}
    for name, text in texts.items():
        try:
            values[name] = json.loads(text)
        except ValueError:
            continue
    return values


def parse_document(text: str) -> dict[str, Any]:
    """Read one JSON object of values by name; nothing where there is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
