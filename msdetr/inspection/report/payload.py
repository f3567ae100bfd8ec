"""What the report stores of a traced image: 16-bit numbers in one deflated block.

The block is a sequence of arrays of uint16, in the order of :data:`PARTS`; all their high bytes
come first, then all their low bytes. Boxes and probabilities are multiples of 1/65535, and each
decoder layer but the first holds zigzag-coded differences from the layer before (queries move
little between layers). Of the cap's random numbers only the order matters, so only that is kept.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msdetr.assignment import OneToManyAssigner
from msdetr.inspection.rematch import iou_of, score_steps
from msdetr.inspection.trace import TracedImage

STEPS = 65535
NO_QUERY = 65535
PARTS = ("boxes", "probabilities", "order", "pick_queries", "pick_boxes", "pick_probabilities")
_DIFFERENCES = ("boxes", "probabilities")

Words = NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class StoredImage:
    """The numbers of an image as the report stores them.

    Attributes:
        boxes: [N, 4, Q] of the one-to-many branch, planes of (cx, cy, w, h).
        probabilities: [N, K', Q] of that branch, K' the image's classes in order of appearance.
        order: [N, Q] queries by ascending u.
        pick_queries: [N, T] one-to-one query of every target, or :data:`NO_QUERY`.
        pick_boxes: [N, 4, T] their boxes in the one-to-one branch.
        pick_probabilities: [N, T] their probabilities of the target's class in that branch.
    """

    boxes: Words
    probabilities: Words
    order: Words
    pick_queries: Words
    pick_boxes: Words
    pick_probabilities: Words

    def encode(self) -> str:
        """Return the block, deflated (zlib format), as base64."""
        words = [self._coded(name).ravel() for name in PARTS]
        planes = np.concatenate(words).astype(">u2").view(np.uint8).reshape(-1, 2).T
        return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")

    def _coded(self, name: str) -> Words:
        values: Words = getattr(self, name)
        return _differences(values) if name in _DIFFERENCES else values


def store(image: TracedImage) -> StoredImage:
    """Round what the report stores of an image."""
    columns = class_columns(image.labels)
    picks = image.one_to_one_queries
    at_picks = picks.clamp(min=0)
    boxes = image.one_to_one.boxes_cxcywh.gather(1, at_picks[..., None].expand(-1, -1, 4))
    probabilities = image.one_to_one.probabilities.gather(2, at_picks[..., None])[..., 0]
    return StoredImage(
        boxes=_round(image.one_to_many.boxes_cxcywh.transpose(1, 2)),
        probabilities=_round(image.one_to_many.probabilities[:, list(columns.values())]),
        order=_words(image.u.sort(dim=-1, stable=True).indices),
        pick_queries=_words(torch.where(picks < 0, NO_QUERY, picks)),
        pick_boxes=_round(boxes.transpose(1, 2)),
        pick_probabilities=_round(probabilities),
    )


def class_columns(labels: Tensor) -> dict[int, int]:
    """Find the first target of every label among ``labels`` [T], labels in order of appearance."""
    columns: dict[int, int] = {}
    for target, label in enumerate(labels.tolist()):
        columns.setdefault(label, target)
    return columns


def rounded(image: TracedImage, stored: StoredImage) -> TracedImage:
    """Return the image with the numbers that the report stores of its one-to-many branch."""
    places = {label: place for place, label in enumerate(class_columns(image.labels))}
    rows = [places[label] for label in image.labels.tolist()]
    branch = replace(
        image.one_to_many,
        boxes_cxcywh=_floats(stored.boxes).transpose(1, 2).contiguous(),
        probabilities=_floats(stored.probabilities)[:, rows],
    )
    order = torch.from_numpy(stored.order.astype(np.int64))
    num_queries = order.shape[-1]
    places_in_order = torch.arange(num_queries, dtype=torch.float32).expand_as(order)
    u = torch.empty(order.shape).scatter_(1, order, places_in_order / num_queries)
    return replace(image, one_to_many=branch, u=u)


def pairs_kept(
    image: TracedImage, stored: StoredImage, assigner: OneToManyAssigner
) -> tuple[int, int]:
    """Count the trace's one-to-many pairs: those that rounding keeps, and all."""
    other = rounded(image, stored)
    steps = score_steps(other, assigner, iou_of(other))
    slots = torch.arange(steps.best_queries.shape[-1])
    found = torch.where(slots < steps.num_positives[..., None], steps.best_queries, -1)
    exact = image.one_to_many_queries
    in_both = (exact[..., :, None] == found[..., None, :]).any(dim=-1) & (exact >= 0)
    return int(in_both.sum()), int((exact >= 0).sum())


def _round(values: Tensor) -> Words:
    return _words((values.double().clamp(0, 1) * STEPS).round())


def _words(values: Tensor) -> Words:
    return values.contiguous().numpy().astype(np.uint16)


def _floats(words: Words) -> Tensor:
    return torch.from_numpy(words.astype(np.float32)) / STEPS


def _differences(values: Words) -> Words:
    change = np.diff(values, axis=0).view(np.int16)
    zigzag = ((change << 1) ^ (change >> 15)).view(np.uint16)
    return np.concatenate([values[:1], zigzag])
