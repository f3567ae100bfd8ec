"""Targets with noise, for denoising queries; drawn per image, whoever loads it and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.boxes import cxcywh_to_xyxy, safe_logit, xyxy_to_cxcywh
from msdetr.seeding import seeded_generator
from msdetr.structures import NoisedTargets, Targets

LOGIT_EPS = 1e-3
"""Not the decoder's 1e-5: both published implementations of denoising clamp here."""


@dataclass(frozen=True)
class Slots:
    """Which slot is made of which target; R slots, ``num_groups`` groups one after another.

    Attributes:
        target: [B, R] int64, index of the target; zero on padding slots.
        positive: [R] bool, False where the slot is to find nothing.
        valid: [B, R] bool, False on padding slots.
        num_groups: Groups; 0 where there is no target, and then R = 0.
    """

    target: Tensor
    positive: Tensor
    valid: Tensor
    num_groups: int


@dataclass(frozen=True)
class NoiseDraws:
    """The random numbers of a batch; those of padding slots are not read.

    Attributes:
        redraw_u: [B, R] float in [0, 1); the label is drawn anew below the probability.
        labels: [B, R] int64, the labels drawn.
        size: [B, R, 4] float in [0, 1), per corner coordinate if contrastive, else per
            coordinate of (cx, cy, w, h).
        sign: [B, R, 4] float, -1 or 1; read only if contrastive.
    """

    redraw_u: Tensor
    labels: Tensor
    size: Tensor
    sign: Tensor


@dataclass(frozen=True)
class DenoisingNoise:
    """Makes noised targets of a batch's targets; picklable, so that workers can run it.

    Attributes:
        contrastive: Add to every slot a negative one with larger noise.
        budget: The number of groups is ``max(1, budget // m)``, m the largest number of targets
            of an image; None where ``groups`` is given.
        groups: The number of groups, or None.
        label_redraw: Probability of drawing a label anew, in 0..1.
        box_noise: Scale of the noise of boxes, not negative.
        max_targets: Targets of an image that are noised at most; None for all.
        labels: Label indices that classes of the data have; new labels are drawn among them.
        seed: Seed of the run.

    Source: Li et al., DN-DETR, CVPR 2022, section 4; Zhang et al., DINO, ICLR 2023, section 3.3
    (contrastive).
    """

    contrastive: bool
    budget: int | None
    groups: int | None
    label_redraw: float
    box_noise: float
    max_targets: int | None
    labels: tuple[int, ...]
    seed: int

    def __call__(self, targets: Targets, epochs: Sequence[int]) -> NoisedTargets:
        """Noise the targets of a batch.

        Args:
            targets: Of B images.
            epochs: [B] epoch of each image: the noise of an image depends on the seed, the
                epoch and the image's id only.
        """
        generators = [
            seeded_generator("denoising", self.seed, epoch, image_id)
            for epoch, image_id in zip(epochs, targets.image_ids.tolist(), strict=True)
        ]
        counts = targets.counts.tolist()
        kept = [self._choose(n, each) for n, each in zip(counts, generators, strict=True)]
        slots = self.arrange([len(chosen) for chosen in kept])
        draws = self._draw(slots, generators)
        if self.max_targets is not None:
            slots = _renumber(slots, kept)
        return self.apply(targets, slots, draws)

    def count_slots(self, most: int) -> int:
        """Return R, the slots per image of a batch.

        Args:
            most: Largest number of targets of an image.
        """
        kept = most if self.max_targets is None else min(most, self.max_targets)
        return self.arrange([kept]).target.shape[1]

    def arrange(self, counts: Sequence[int]) -> Slots:
        """Divide slots among targets.

        Args:
            counts: [B] targets of each image.
        """
        most = max(counts, default=0)
        num_groups = self._count_groups(most)
        halves = 2 if self.contrastive else 1
        within = torch.arange(most).repeat(halves)
        positive = torch.arange(halves).repeat_interleave(most) == 0
        target = within.repeat(num_groups).expand(len(counts), -1)
        valid = target < torch.tensor(counts, dtype=torch.int64)[:, None]
        return Slots(target * valid, positive.repeat(num_groups), valid, num_groups)

    def apply(self, targets: Targets, slots: Slots, draws: NoiseDraws) -> NoisedTargets:
        """Add noise to what the slots are made of.

        Args:
            targets: Of B images.
            slots: Which slot is made of which target.
            draws: Random numbers.
        """
        labels = targets.labels.gather(1, slots.target)
        labels = torch.where(draws.redraw_u < self.label_redraw, draws.labels, labels)
        own = targets.boxes_cxcywh.gather(1, slots.target[..., None].expand(-1, -1, 4))
        boxes = (
            self._move_corners(own, slots, draws) if self.contrastive else self._move(own, draws)
        )
        return NoisedTargets(
            labels=labels * slots.valid,
            boxes_cxcywh=boxes.masked_fill(~slots.valid[..., None], 0.0),
            logits=safe_logit(boxes, LOGIT_EPS).masked_fill(~slots.valid[..., None], 0.0),
            target=slots.target,
            positive=slots.positive & slots.valid,
            valid=slots.valid,
            num_groups=slots.num_groups,
        )

    def _count_groups(self, most: int) -> int:
        if most == 0:
            return 0
        if self.groups is not None:
            return self.groups
        assert self.budget is not None
        return max(1, self.budget // most)

    def _choose(self, count: int, generator: torch.Generator) -> list[int]:
        """Targets to noise: all, or a random subset in ascending order."""
        if self.max_targets is None or count <= self.max_targets:
            return list(range(count))
        chosen: list[int] = torch.randperm(count, generator=generator)[: self.max_targets].tolist()
        return sorted(chosen)

    def _draw(self, slots: Slots, generators: Sequence[torch.Generator]) -> NoiseDraws:
        shape = slots.valid.shape
        draws = NoiseDraws(
            redraw_u=torch.ones(shape),
            labels=torch.zeros(shape, dtype=torch.int64),
            size=torch.zeros(*shape, 4),
            sign=torch.ones(*shape, 4),
        )
        choices = torch.tensor(self.labels)
        for image, generator in enumerate(generators):
            rows = slots.valid[image].nonzero()[:, 0]
            drawn = torch.randint(len(choices), (len(rows),), generator=generator)
            draws.labels[image, rows] = choices[drawn]
            draws.redraw_u[image, rows] = torch.rand(len(rows), generator=generator)
            draws.size[image, rows] = torch.rand(len(rows), 4, generator=generator)
            heads = torch.randint(2, (len(rows), 4), generator=generator)
            draws.sign[image, rows] = 2.0 * heads - 1.0
        return draws

    def _move_corners(self, own: Tensor, slots: Slots, draws: NoiseDraws) -> Tensor:
        half = own[..., 2:].repeat(1, 1, 2) / 2
        # A negative slot lies farther from its target than any positive one.
        distance = draws.size + (~slots.positive).float()[:, None]
        corners = cxcywh_to_xyxy(own) + draws.sign * distance * half * self.box_noise
        return xyxy_to_cxcywh(corners.clamp(0, 1))

    def _move(self, own: Tensor, draws: NoiseDraws) -> Tensor:
        sides = own[..., 2:]
        reach = torch.cat([sides / 2, sides], dim=-1)
        return (own + (2 * draws.size - 1) * reach * self.box_noise).clamp(0, 1)


def _renumber(slots: Slots, kept: Sequence[Sequence[int]]) -> Slots:
    """Slots of the chosen targets, by their index among all targets of the image."""
    most = max((len(chosen) for chosen in kept), default=0)
    index = torch.zeros(len(kept), max(1, most), dtype=torch.int64)
    for image, chosen in enumerate(kept):
        index[image, : len(chosen)] = torch.tensor(chosen, dtype=torch.int64)
    target = index.gather(1, slots.target) * slots.valid
    return Slots(target, slots.positive, slots.valid, slots.num_groups)
