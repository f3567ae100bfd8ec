"""The tensors that flow between the parts, as frozen dataclasses registered with pytree.

Shape letters, used throughout the package: B images, Q queries, C width, L levels, M heads,
P points, S flattened cells, K classes, N decoder layers, T targets per image after padding,
R rows of an assignment. Boxes are relative to the unpadded image (0..1) unless a name ends
in ``_px``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class _TensorFields:
    """Moves every tensor field of a dataclass at once."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return a copy whose tensors are on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, for asynchronous copies to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: object) -> Self:
        assert callable(function)
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(
            **{k: function(v) if isinstance(v, Tensor) else v for k, v in values.items()}
        )


@dataclass(frozen=True)
class ImageBatch(_TensorFields):
    """Images padded at the right and bottom to one size.

    Attributes:
        pixels: [B, 3, H, W] float, normalized; zero on padding.
        padding_mask: [B, H, W] bool, True on padding.
    """

    pixels: Tensor
    padding_mask: Tensor


@dataclass(frozen=True)
class Targets(_TensorFields):
    """Ground truth of a batch, padded to one number of targets (at least 1).

    Attributes:
        boxes_cxcywh: [B, T, 4] float in 0..1 of the unpadded image; zero on padding rows.
        labels: [B, T] int64 in 0..K-1; zero on padding rows.
        counts: [B] int64, targets of each image; rows ``counts[b]:`` are padding.
        image_ids: [B] int64, ids of the data set.
    """

    boxes_cxcywh: Tensor
    labels: Tensor
    counts: Tensor
    image_ids: Tensor

    @classmethod
    def from_lists(
        cls,
        boxes_cxcywh: Sequence[Tensor],
        labels: Sequence[Tensor],
        image_ids: Sequence[int] | None = None,
    ) -> Targets:
        """Pad per-image boxes [T_b, 4] and labels [T_b] into one batch."""
        counts = torch.tensor([len(entry) for entry in labels], dtype=torch.int64)
        pad_row = torch.zeros(1, 4, dtype=boxes_cxcywh[0].dtype)
        # The extra entry keeps T >= 1, so that reductions over targets are never over nothing.
        boxes = pad_sequence([*boxes_cxcywh, pad_row], batch_first=True)[:-1]
        padded_labels = pad_sequence([*labels, torch.zeros(1, dtype=torch.int64)], batch_first=True)
        ids = torch.tensor(range(len(labels)) if image_ids is None else image_ids)
        return cls(boxes, padded_labels[:-1], counts, ids.to(torch.int64))

    @property
    def valid(self) -> Tensor:
        """[B, T] bool, False on padding rows."""
        rows = torch.arange(self.labels.shape[1], device=self.labels.device)
        return rows < self.counts[:, None]


@dataclass(frozen=True)
class NoisedTargets(_TensorFields):
    """Targets with noise, which denoising queries start from; R slots per image.

    The slots are ``num_groups`` groups of equal size, one after another.

    Attributes:
        labels: [B, R] int64 in 0..K-1, classes after noise; zero on padding slots.
        boxes_cxcywh: [B, R, 4] float32, boxes after noise; zero on padding slots.
        logits: [B, R, 4] float32, what the references are the sigmoid of; zero on padding slots.
        target: [B, R] int64, index of the target that a slot was made of; zero on padding slots.
        positive: [B, R] bool, True where the slot is to find its target, False where it is to
            find nothing.
        valid: [B, R] bool, False on padding slots.
        num_groups: Groups of the batch; 0 if no image has a target, and then R = 0.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    logits: Tensor
    target: Tensor
    positive: Tensor
    valid: Tensor
    num_groups: int


@dataclass(frozen=True)
class FeatureLevels:
    """Feature maps from fine to coarse.

    Attributes:
        maps: L tensors [B, C_l, H_l, W_l].
        padding_masks: L tensors [B, H_l, W_l] bool, True on padding.
    """

    maps: tuple[Tensor, ...]
    padding_masks: tuple[Tensor, ...]


@dataclass(frozen=True)
class Predictions(_TensorFields):
    """Predictions of all decoder layers that make any, of one branch.

    Attributes:
        logits: [N, B, Q, K] float.
        boxes_cxcywh: [N, B, Q, 4] float in 0..1.
    """

    logits: Tensor
    boxes_cxcywh: Tensor


@dataclass(frozen=True)
class Proposals(_TensorFields):
    """Predictions of the proposal stage, one per cell.

    Attributes:
        logits: [B, S, K] float; class index 0 is the objectness.
        boxes_cxcywh: [B, S, 4] float in 0..1.
        anchors_cxcywh: [B, S, 4] float in 0..1: the boxes before any delta; all ones where
            the cell is padding or its box leaves the image.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    anchors_cxcywh: Tensor


@dataclass(frozen=True)
class GroupOutput:
    """What the model predicts for one group of queries.

    Attributes:
        name: "primary", "hybrid", "group_1", ..., "denoising".
        one_to_one: Predictions of the decoder layers, trained by the group's own pairs.
        one_to_many: Predictions of the one-to-many branch, or None where it did not run for
            this group.
        proposals: Predictions of the group's own proposal stage, or None where it has none.
        noised: What the group's queries were made of, if it is one of denoising.
    """

    name: str
    one_to_one: Predictions
    one_to_many: Predictions | None = None
    proposals: Proposals | None = None
    noised: NoisedTargets | None = None


PRIMARY = "primary"
"""Name of the group whose predictions are the detections."""


@dataclass(frozen=True)
class ModelOutput:
    """What the model predicts for a batch.

    The first three fields belong to the primary group, which is all there is at inference. The
    branches need not have the same layers: a suppressor alone predicts one-to-one.

    Attributes:
        one_to_one: Predictions trained with one-to-one supervision; the last are the detections.
        one_to_many: Predictions of the one-to-many branch, or None where it did not run.
        proposals: Predictions of the proposal stage, or None for one-stage models.
        extra_groups: Query groups that only training has.
    """

    one_to_one: Predictions
    one_to_many: Predictions | None = None
    proposals: Proposals | None = None
    extra_groups: tuple[GroupOutput, ...] = ()

    @property
    def groups(self) -> tuple[GroupOutput, ...]:
        """All groups, the primary one first."""
        primary = GroupOutput(PRIMARY, self.one_to_one, self.one_to_many, self.proposals)
        return (primary, *self.extra_groups)

    @property
    def num_layers(self) -> int:
        """The most layers of a branch."""
        branches = [self.one_to_one, *([] if self.one_to_many is None else [self.one_to_many])]
        return max(branch.logits.shape[0] for branch in branches)


@dataclass(frozen=True)
class Assignment(_TensorFields):
    """Pairs of queries and targets, as vectors of one padded length R.

    Attributes:
        layer: [R] int64, decoder layer.
        image: [R] int64, index in the batch.
        query: [R] int64.
        target: [R] int64, index among the image's targets.
        score: [R] float; decides which target a query's class follows (larger wins).
        valid: [R] bool; other rows are padding, with in-range indices.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    score: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Reason:
    """Why a query is not paired with a target, in an assigner's words.

    ``{name}`` in either text stands for the value in the column of that name.

    Attributes:
        code: In tables; one word, such as "below_threshold".
        words: In pictures and pages, such as "below threshold".
    """

    code: str
    words: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """What an assigner decided about every pair, and why; of one image, B is left out.

    Attributes:
        score: [N, B, T, Q] float32; queries are ranked by it, higher first.
        paired: [N, B, T, Q] bool.
        reason: [N, B, T, Q] uint8, 0 for pairs, i for the i-th of ``reasons``, counted from 1.
        reasons: In the order in which they are looked for.
        score_range: Lowest and highest score there can be; None if unbounded.
        query_columns: By name [N, B, Q], what is known of every query.
        target_columns: By name [N, B, T], what is known of every target.
        causes: By name [N, B, T] bool, why a target has no query: at most one holds, and none
            for targets with queries.
        capped: [N, B, Q] bool, True for queries that a limit on the positives of an image
            removed; None if there is no such limit.
        target_note: What pictures say below a target; ``{name}`` stands for its column.
    """

    score: Tensor
    paired: Tensor
    reason: Tensor
    reasons: tuple[Reason, ...]
    score_range: tuple[float, float] | None = None
    query_columns: Mapping[str, Tensor] = field(default_factory=dict)
    target_columns: Mapping[str, Tensor] = field(default_factory=dict)
    causes: Mapping[str, Tensor] = field(default_factory=dict)
    capped: Tensor | None = None
    target_note: str = ""


class Pairing(Protocol):
    """Anything that pairs queries with targets."""

    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:
        """Pair queries and targets of every layer and image.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.
            u: [N, B, Q] float, uniform in [0, 1): the only randomness there is.
        """
        ...


class Assigner(Pairing, Protocol):
    """What a new assignment scheme implements; everything else asks it instead of knowing it."""

    @property
    def draws_u(self) -> bool:
        """Whether the pairs depend on u."""
        ...

    def describe(self) -> str:
        """Return the settings in one line, for reports and pages."""
        ...

    def max_positives(self, num_queries: int) -> int | None:
        """Return the maximum number of positive queries of an image; None if all may be."""
        ...

    def explain(self, predictions: Predictions, targets: Targets, u: Tensor) -> Explanation:
        """Say of every pair what :meth:`assign` decides, and why.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.
            u: [N, B, Q] float, as for :meth:`assign`.
        """
        ...


@dataclass(frozen=True)
class LossTerm:
    """One loss of one branch and decoder layer.

    Attributes:
        branch: Of the primary group "one_to_one", "one_to_many" or "proposals"; of others their
            name, where need be with "_one_to_many" or "_proposals" after it.
        layer: Decoder layer, counted from 0; 0 for proposals.
        name: "class", "box" or "giou".
        value: Scalar, already divided by the normalizer, before weighting.
        weight: Factor in the total.
    """

    branch: str
    layer: int
    name: str
    value: Tensor
    weight: float

    @property
    def key(self) -> str:
        """Name in logs and metrics, for example ``one_to_one/class/5``."""
        return f"{self.branch}/{self.name}/{self.layer}"


@dataclass(frozen=True)
class Detections(_TensorFields):
    """Detections of a batch, by descending score.

    Attributes:
        boxes_xyxy_px: [B, D, 4] float, pixels of the original image, not clipped to it.
        scores: [B, D] float in 0..1.
        labels: [B, D] int64 in 0..K-1.
    """

    boxes_xyxy_px: Tensor
    scores: Tensor
    labels: Tensor


for _cls in (
    ImageBatch,
    Targets,
    NoisedTargets,
    FeatureLevels,
    Predictions,
    Proposals,
    GroupOutput,
    ModelOutput,
    Assignment,
    LossTerm,
    Detections,
):
    torch.export.register_dataclass(_cls)
