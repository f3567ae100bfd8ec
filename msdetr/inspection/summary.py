"""Statistics of the assignments of a trace, per decoder layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msdetr.inspection.group_summary import (
    GroupSummary,
    NoiseSummary,
    summarize_groups,
    summarize_noise,
)
from msdetr.inspection.query_groups import TracedGroups
from msdetr.inspection.rematch import ImageMatching
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.suppression import Suppression
from msdetr.inspection.suppression_summary import SuppressionSummary, summarize_suppressions
from msdetr.inspection.trace import SIZE_BINS, TracedImage, TraceInfo


@dataclass(frozen=True)
class Spread:
    """A distribution in four numbers; the last three are None if there is nothing to describe.

    Attributes:
        count: Number of values.
        mean: Their mean.
        p10: Their 10th percentile.
        p90: Their 90th percentile.
    """

    count: int
    mean: float | None
    p10: float | None
    p90: float | None

    @classmethod
    def of(cls, values: NDArray[Any]) -> Spread:
        """Describe values."""
        if not len(values):
            return cls(0, None, None, None)
        low, high = np.percentile(values, [10, 90]).tolist()
        return cls(len(values), float(values.mean()), low, high)


@dataclass(frozen=True)
class LayerSummary:
    """Statistics of one decoder layer; shares are None where their base is empty.

    Attributes:
        layer: Decoder layer, from 0.
        positives_per_target: One-to-many positives of a target.
        positives_per_target_by_size: The same of small, medium and large targets.
        targets_without_positives: By cause, in the assigner's words; for MS-DETR's rule
            "dropped_by_cap" (without the cap it would have some) or "lost_to_target" (every
            positive query that scores for it has another target as its candidate).
        positive_queries: Queries with a target in the one-to-many assignment.
        queries_with_two_targets: Those that serve two targets or more.
        one_to_one_also_one_to_many: Share of one-to-one picks that are one-to-many positives
            of the same target.
        rank_of_one_to_one: Rank of one-to-one picks in the one-to-many order of their target.
        one_to_one_at_rank_1: Share of one-to-one picks that have the highest score.
        images_at_cap: Images with more positive queries than the cap allows; None where the
            assigner knows no cap.
        positives_dropped_by_cap: Queries that were positive until the cap; None likewise.
        loss_one_to_one: Weighted losses of that branch, per target.
        loss_one_to_many: Weighted losses of that branch, per target.
        loss_ratio: One-to-many by one-to-one loss.
        positives_trained_as_background: Share of one-to-many positives whose class logit
            one-to-one supervision trains as background through the same class head; None where
            the branches have a class head each, or the model has one branch only.
    """

    layer: int
    positives_per_target: Spread
    positives_per_target_by_size: dict[str, Spread]
    targets_without_positives: dict[str, int]
    positive_queries: int
    queries_with_two_targets: int
    one_to_one_also_one_to_many: float | None
    rank_of_one_to_one: Spread
    one_to_one_at_rank_1: float | None
    images_at_cap: int | None
    positives_dropped_by_cap: int | None
    loss_one_to_one: float
    loss_one_to_many: float
    loss_ratio: float | None
    positives_trained_as_background: float | None


@dataclass(frozen=True)
class MatchingSummary:
    """Statistics of a trace.

    Attributes:
        setting: What was matched and how, as JSON values.
        num_images: Images of the trace.
        num_targets: Their targets.
        layers: Of the decoder layers asked for.
        query_groups: Of the groups beside the primary one, by group and layer asked for.
        noise: Of denoising queries; None without any.
        suppression: Of the suppressor; None without one.
    """

    setting: dict[str, Any]
    num_images: int
    num_targets: int
    layers: tuple[LayerSummary, ...]
    query_groups: tuple[GroupSummary, ...] = ()
    noise: NoiseSummary | None = None
    suppression: SuppressionSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


class SummaryBuilder:
    """Collects the assignments of images.

    Args:
        info: Of the trace.
        layers: Decoder layers to describe.
    """

    def __init__(self, info: TraceInfo, layers: Sequence[int]) -> None:
        self._info = info
        self._layers = layers
        self._columns: dict[str, list[Tensor]] = {}
        self._size_bins: list[str] = []
        self._num_images = 0
        self._groups: list[TracedGroups] = []
        self._suppressions: list[tuple[int, tuple[Suppression, ...]]] = []

    def add(self, image: TracedImage, matching: ImageMatching) -> None:
        """Add an image."""
        self._num_images += 1
        self._groups.append(image.groups)
        self._suppressions.append((image.image_id, image.suppressions))
        self._size_bins += image.size_bins
        for key, value in _per_image(image, matching).items():
            self._columns.setdefault(key, []).append(value)

    def build(self) -> MatchingSummary:
        """Describe the images added, at least one."""
        columns = {k: torch.cat(values, dim=1).numpy() for k, values in self._columns.items()}
        return MatchingSummary(
            setting=_setting(self._info),
            num_images=self._num_images,
            num_targets=len(self._size_bins),
            layers=tuple(
                self._layer(layer, {key: value[layer] for key, value in columns.items()})
                for layer in self._layers
            ),
            query_groups=tuple(
                group for group in summarize_groups(self._groups) if group.layer in self._layers
            ),
            noise=summarize_noise(self._groups),
            suppression=summarize_suppressions(self._suppressions)
            if self._info.has_suppressor
            else None,
        )

    def _layer(self, layer: int, values: dict[str, NDArray[Any]]) -> LayerSummary:
        positives, rank = values["positives"], values["rank"]
        capped = values.get("dropped_by_cap")
        bins = np.array(self._size_bins)
        picked = rank > 0
        losses = {b: self._loss(values, b) for b in ("one_to_one", "one_to_many")}
        conflicting = self._info.shares_class_head and self._info.has_one_to_many
        return LayerSummary(
            layer=layer,
            positives_per_target=Spread.of(positives),
            positives_per_target_by_size={
                name: Spread.of(positives[bins == name]) for name in SIZE_BINS
            },
            targets_without_positives={
                key.removeprefix(_CAUSE): int(value.sum())
                for key, value in values.items()
                if key.startswith(_CAUSE)
            },
            positive_queries=int(values["positive_queries"].sum()),
            queries_with_two_targets=int(values["shared_queries"].sum()),
            one_to_one_also_one_to_many=_share(values["pick_is_positive"][picked]),
            rank_of_one_to_one=Spread.of(rank[picked]),
            one_to_one_at_rank_1=_share(rank[picked] == 1),
            images_at_cap=None if capped is None else int((capped > 0).sum()),
            positives_dropped_by_cap=None if capped is None else int(capped.sum()),
            loss_one_to_one=losses["one_to_one"],
            loss_one_to_many=losses["one_to_many"],
            loss_ratio=losses["one_to_many"] / losses["one_to_one"]
            if losses["one_to_one"]
            else None,
            positives_trained_as_background=float(values["as_background"].sum() / positives.sum())
            if conflicting and positives.sum()
            else None,
        )

    def _loss(self, values: dict[str, NDArray[Any]], branch: str) -> float:
        weights = np.array(self._info.loss_weights[branch])
        sums = [values[f"{branch}_{i}"].astype(np.float64).sum() for i in range(3)]
        return float((weights * sums).sum() / max(1, len(self._size_bins)))


_CAUSE = "cause."


def _per_image(image: TracedImage, matching: ImageMatching) -> dict[str, Tensor]:
    """Return values [N, T] of targets and [N, 1] of the image."""
    pick = matching.one_to_one_queries
    rank = matching.ranks.gather(2, pick.clamp(min=0)[..., None])[..., 0]
    served = matching.one_to_many.sum(dim=1)
    explanation = matching.explanation
    values = {
        "positives": matching.one_to_many.sum(dim=2),
        **{_CAUSE + name: value for name, value in explanation.causes.items()},
        "rank": torch.where(pick < 0, 0, rank),
        "pick_is_positive": (matching.one_to_one & matching.one_to_many).any(dim=2),
        "as_background": (matching.one_to_many & ~_same_class_pick(image, matching)).sum(dim=2),
        "positive_queries": (served > 0).sum(dim=1, keepdim=True),
        "shared_queries": (served > 1).sum(dim=1, keepdim=True),
    }
    if explanation.capped is not None:
        values["dropped_by_cap"] = explanation.capped.sum(dim=1, keepdim=True)
    for branch in ("one_to_one", "one_to_many"):
        for index, loss in enumerate(getattr(image, branch).losses.unbind(dim=1)):
            values[f"{branch}_{index}"] = loss[:, None]
    return values


def _same_class_pick(image: TracedImage, matching: ImageMatching) -> Tensor:
    """Return [N, T, Q] bool: the query is the one-to-one pick of a target of the same class."""
    same = (image.labels[:, None] == image.labels).float()
    return torch.einsum("st,ntq->nsq", same, matching.one_to_one.float()) > 0


def _share(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _setting(info: TraceInfo) -> dict[str, Any]:
    rule = info.one_to_many
    names = ("source", "source_sha256", "weights", "annotations_file", "annotations_sha256")
    return {
        **{name: getattr(info, name) for name in names},
        "has_one_to_many_branch": info.has_one_to_many,
        "has_suppressor": info.has_suppressor,
        "shares_class_head": info.shares_class_head,
        "num_queries": info.num_queries,
        "one_to_many": rule.section if isinstance(rule, StoredScheme) else asdict(rule),
        "one_to_one": asdict(info.one_to_one),
        "loss_weights": {branch: list(w) for branch, w in info.loss_weights.items()},
    }
