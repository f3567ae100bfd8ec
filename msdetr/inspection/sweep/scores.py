"""The part of a sweep that all settings with one IoU weight share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msdetr.assignment import OneToManyAssigner
from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.inspection.rematch import iou_of, score_steps
from msdetr.inspection.trace import MatchTrace, TracedImage

DUPLICATE_IOU = 0.9
# Bounds the memory of a chunk: so many pairs of queries and targets, over all layers.
_PAIRS_PER_CHUNK = 20_000_000


@dataclass(frozen=True, eq=False)
class TraceChunk:
    """Some images of a trace, those with targets, their targets one after the other.

    Letters: I images, R targets of all of them.

    Attributes:
        images: [I] images.
        iou: [N, R, Q] float32, of the one-to-many branch's boxes.
        probability: [N, R, Q] float32.
        image_of: [R] int64, image of every target.
        u_order: [N, I, Q] int64, queries by ascending u, then lowest query.
    """

    images: tuple[TracedImage, ...]
    iou: Tensor
    probability: Tensor
    image_of: Tensor
    u_order: Tensor

    @classmethod
    def of(cls, images: tuple[TracedImage, ...]) -> TraceChunk:
        """Lay out images, each with at least one target."""
        counts = torch.tensor([image.num_targets for image in images])
        u = torch.stack([image.u for image in images], dim=1)
        return cls(
            images=images,
            iou=torch.cat([iou_of(image) for image in images], dim=1),
            probability=torch.cat([image.one_to_many.probabilities for image in images], dim=1),
            image_of=torch.repeat_interleave(torch.arange(len(images)), counts),
            u_order=u.sort(dim=-1, stable=True).indices,
        )

    @property
    def num_queries(self) -> int:
        """Q."""
        return self.iou.shape[-1]

    def repeats(self, queries: Tensor) -> Tensor:
        """Find boxes that nearly repeat one of a better query of the same target.

        Args:
            queries: [N, R, J] int64, by descending score.

        Returns:
            [N, R, J] bool, True where the IoU with an earlier box is at least 0.9.
        """
        all_boxes = [image.one_to_many.boxes_cxcywh for image in self.images]
        boxes = cxcywh_to_xyxy(torch.stack(all_boxes, dim=1))
        layers = torch.arange(len(boxes))[:, None, None]
        chosen = boxes[layers, self.image_of[None, :, None], queries]
        iou, _ = iou_and_giou(chosen[..., :, None, :], chosen[..., None, :, :])
        return (iou >= DUPLICATE_IOU).tril(diagonal=-1).any(dim=-1)


def split_trace(trace: MatchTrace) -> Iterator[TraceChunk]:
    """Divide the images that have targets into chunks of bounded memory."""
    chunk: list[TracedImage] = []
    pairs_per_target = trace.info.num_layers * trace.info.num_queries
    size = 0
    for image in trace.images:
        if image.num_targets == 0:
            continue
        added = image.num_targets * pairs_per_target
        if chunk and size + added > _PAIRS_PER_CHUNK:
            yield TraceChunk.of(tuple(chunk))
            chunk, size = [], 0
        chunk.append(image)
        size += added
    if chunk:
        yield TraceChunk.of(tuple(chunk))


@dataclass(frozen=True, eq=False)
class ChunkScores:
    """What follows from the scores alone, whatever k, threshold and cap.

    Attributes:
        candidate: [N, I, Q] int64, the target in 0..R-1 with the query's highest score.
        candidate_score: [N, I, Q] float32.
        forced: [N, I, Q] bool, True where the query is the best one of some target.
        best_queries: [N, R, J] int64, queries by descending score for the target.
        shared_group: [E] int64, for entries of ``best_queries`` whose query is among the best of
            several targets: which query of which layer that is, counted from 0.
        shared_entry: [E] int64, their positions in ``best_queries``, flattened.
        layer_of_group: [number of groups] int64.
    """

    candidate: Tensor
    candidate_score: Tensor
    forced: Tensor
    best_queries: Tensor
    shared_group: Tensor
    shared_entry: Tensor
    layer_of_group: Tensor

    @classmethod
    def of(cls, chunk: TraceChunk, rule: OneToManyAssigner) -> ChunkScores:
        """Score all pairs as ``rule`` says; its threshold and cap are ignored."""
        candidate, candidate_score, forced, best = [], [], [], []
        start, rule = 0, replace(rule, max_positive_fraction=None)
        for image in chunk.images:
            rows = slice(start, start + image.num_targets)
            steps = score_steps(image, rule, chunk.iou[:, rows])
            candidate.append(steps.candidate + start)
            candidate_score.append(steps.candidate_score)
            forced.append(steps.forced)
            best.append(steps.best_queries)
            start = rows.stop
        best_queries = torch.cat(best, dim=1)
        group, entry, layer = _shared_queries(best_queries, chunk)
        return cls(
            candidate=torch.stack(candidate, dim=1),
            candidate_score=torch.stack(candidate_score, dim=1),
            forced=torch.stack(forced, dim=1),
            best_queries=best_queries,
            shared_group=group,
            shared_entry=entry,
            layer_of_group=layer,
        )

    def count_by_candidate(self, positive: Tensor) -> Tensor:
        """Count positives [N, I, Q] per candidate target, as [N, R] int64."""
        num_layers, num_targets = self.best_queries.shape[:2]
        counts = torch.zeros(num_layers, num_targets, dtype=torch.int64)
        return counts.scatter_add_(1, self.candidate.flatten(1), positive.flatten(1).long())

    def count_conflicts(self, num_pairs: Tensor) -> Tensor:
        """Count queries that serve several targets, if target r has its ``num_pairs`` [N, R] best.

        Returns:
            [N] int64.
        """
        slots = self.best_queries.shape[-1]
        used = self.shared_entry % slots < num_pairs.flatten()[self.shared_entry // slots]
        users = torch.zeros_like(self.layer_of_group).scatter_add_(
            0, self.shared_group, used.long()
        )
        counts = torch.zeros(len(num_pairs), dtype=torch.int64)
        return counts.scatter_add_(0, self.layer_of_group, (users > 1).long())


def _shared_queries(best_queries: Tensor, chunk: TraceChunk) -> tuple[Tensor, Tensor, Tensor]:
    num_layers, num_images = len(best_queries), len(chunk.images)
    layers = torch.arange(num_layers)[:, None, None] * num_images
    keys = ((layers + chunk.image_of[None, :, None]) * chunk.num_queries + best_queries).flatten()
    distinct, group, users = torch.unique(keys, return_inverse=True, return_counts=True)
    entry = (users[group] > 1).nonzero()[:, 0]
    shared, renumbered = torch.unique(group[entry], return_inverse=True)
    return renumbered, entry, distinct[shared] // (num_images * chunk.num_queries)
