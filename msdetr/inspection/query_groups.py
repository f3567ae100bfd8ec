"""What query groups beside the primary one learn from: pairs per layer, and noise of denoising."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from msdetr.assignment.costs import pairwise_iou
from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.losses import Criterion, SupervisionBranch
from msdetr.structures import Assignment, ModelOutput, NoisedTargets, Targets

SAME_BOX_IOU = 0.9
"""Boxes of two queries that overlap this much count as the same prediction."""


@dataclass(frozen=True)
class TracedGroup:
    """What a query group was paired with in one image.

    Attributes:
        name: Of the group.
        num_queries: Its queries in this image, padding slots left out.
        serving: [N] queries that have a target; the others learn to be background.
        pairs: [N] pairs of a query and a target.
        also_one_to_many: [N] pairs for which the primary group's one-to-many assignment pairs
            the same target with a query whose box is the same (IoU of at least 0.9); None
            where there is no such assignment, or the group is one of denoising.
    """

    name: str
    num_queries: int
    serving: tuple[int, ...]
    pairs: tuple[int, ...]
    also_one_to_many: tuple[int, ...] | None


@dataclass(frozen=True)
class TracedNoise:
    """Denoising slots of one image, padding left out.

    Attributes:
        boxes_cxcywh: Per slot the noised box in 0..1.
        target: Index of the target that it was made of.
        positive: Whether it is to find the target.
        flipped: Whether its class is another than the target's.
        iou: IoU of the noised box with the target's.
    """

    boxes_cxcywh: tuple[tuple[float, ...], ...]
    target: tuple[int, ...]
    positive: tuple[bool, ...]
    flipped: tuple[bool, ...]
    iou: tuple[float, ...]


@dataclass(frozen=True)
class TracedGroups:
    """All groups of one image beside the primary one.

    Attributes:
        groups: In the order of the decoder.
        noise: Of the denoising group, if there is one.
    """

    groups: tuple[TracedGroup, ...] = ()
    noise: TracedNoise | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TracedGroups:
        """Read what ``to_dict`` made.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        groups = tuple(
            TracedGroup(
                name=str(entry["name"]),
                num_queries=int(entry["num_queries"]),
                serving=_integers(entry["serving"]),
                pairs=_integers(entry["pairs"]),
                also_one_to_many=None
                if entry["also_one_to_many"] is None
                else _integers(entry["also_one_to_many"]),
            )
            for entry in values["groups"]
        )
        noise = values["noise"]
        if noise is None:
            return cls(groups)
        return cls(
            groups,
            TracedNoise(
                boxes_cxcywh=tuple(tuple(map(float, box)) for box in noise["boxes_cxcywh"]),
                target=_integers(noise["target"]),
                positive=tuple(map(bool, noise["positive"])),
                flipped=tuple(map(bool, noise["flipped"])),
                iou=tuple(map(float, noise["iou"])),
            ),
        )


@torch.no_grad()
def trace_groups(
    criterion: Criterion, output: ModelOutput, targets: Targets, u: Tensor
) -> list[TracedGroups]:
    """Assign the queries of all groups as training does.

    Args:
        criterion: With the rules of the groups.
        output: Of B images, with the extra groups.
        targets: Of the same images.
        u: [N, B, Q] float in [0, 1), as for ``Supervision.branches``.

    Returns:
        One entry per image.
    """
    supervision = replace(criterion.supervision, proposals=None)
    branches = supervision.branches(output, targets, u)
    assigned = dict(zip([b.name for b in branches], supervision.assign(branches), strict=True))
    by_name = {branch.name: branch for branch in branches}
    found = []
    for image in range(len(targets.counts)):
        groups = tuple(
            _trace_group(group.name, group.noised, by_name, assigned, image)
            for group in output.extra_groups
            if group.name in assigned
        )
        noised = next((g.noised for g in output.extra_groups if g.noised is not None), None)
        noise = None if noised is None else _trace_noise(noised, targets, image)
        found.append(TracedGroups(groups, noise))
    return found


def _trace_group(
    name: str,
    noised: NoisedTargets | None,
    branches: dict[str, SupervisionBranch],
    assigned: dict[str, Assignment],
    image: int,
) -> TracedGroup:
    rows = _of_image(assigned[name], image)
    num_layers, _, num_queries, _ = branches[name].predictions.logits.shape
    layers = range(num_layers)
    serving = tuple(len(set(rows.query[rows.layer == n].tolist())) for n in layers)
    also = None
    if noised is None and "one_to_many" in assigned:
        primary = _of_image(assigned["one_to_many"], image)
        same = _same_predictions(branches[name], rows, branches["one_to_many"], primary)
        also = tuple(int(same[rows.layer == n].sum()) for n in layers)
    return TracedGroup(
        name=name,
        num_queries=num_queries if noised is None else int(noised.valid[image].sum()),
        serving=serving,
        pairs=tuple(int((rows.layer == n).sum()) for n in layers),
        also_one_to_many=also,
    )


def _of_image(rows: Assignment, image: int) -> Assignment:
    kept = rows.valid & (rows.image == image)
    return Assignment(
        layer=rows.layer[kept],
        image=rows.image[kept],
        query=rows.query[kept],
        target=rows.target[kept],
        score=rows.score[kept],
        valid=rows.valid[kept],
    )


def _same_predictions(
    branch: SupervisionBranch, rows: Assignment, other: SupervisionBranch, primary: Assignment
) -> Tensor:
    """Return [R] bool: pairs that ``primary`` has too, by target and box."""
    if not len(primary.layer):
        return torch.zeros(len(rows.layer), dtype=torch.bool, device=rows.layer.device)
    boxes = branch.predictions.boxes_cxcywh[rows.layer, rows.image, rows.query]
    others = other.predictions.boxes_cxcywh[primary.layer, primary.image, primary.query]
    iou = pairwise_iou(others[None, None], boxes[None])[0, 0]
    same_pair = (rows.layer[:, None] == primary.layer) & (rows.target[:, None] == primary.target)
    return ((iou >= SAME_BOX_IOU) & same_pair).any(dim=1)


def _trace_noise(noised: NoisedTargets, targets: Targets, image: int) -> TracedNoise:
    kept = noised.valid[image]
    target = noised.target[image, kept]
    boxes = noised.boxes_cxcywh[image, kept]
    own = targets.boxes_cxcywh[image, target]
    iou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(own))[0]
    return TracedNoise(
        boxes_cxcywh=tuple(tuple(box) for box in boxes.tolist()),
        target=tuple(target.tolist()),
        positive=tuple(noised.positive[image, kept].tolist()),
        flipped=tuple((noised.labels[image, kept] != targets.labels[image, target]).tolist()),
        iou=tuple(iou.tolist()),
    )


def _integers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
