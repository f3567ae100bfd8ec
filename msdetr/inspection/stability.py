"""How much assignments change from epoch to epoch, and from one decoder layer to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.errors import TraceError
from msdetr.inspection.trace import MatchTrace, TracedImage


@dataclass(frozen=True, kw_only=True)
class StabilityRow:
    """Changes of one decoder layer's assignments in one epoch; shares and means over targets.

    None where there is nothing to compare with.

    Attributes:
        epoch: Finished epochs.
        layer: Decoder layer, counted from 0.
        targets: Targets of the probe set.
        one_to_one_changed: Share of targets whose one-to-one query has another index than after
            the epoch before.
        one_to_one_box_iou: Mean IoU of the boxes of a target's one-to-one queries, now and after
            the epoch before.
        one_to_many_jaccard: Mean over targets of the shared part of its one-to-many queries, now
            and after the epoch before; targets without any in both are left out.
        one_to_one_changed_from_layer_before: As the first, against the layer before.
        one_to_many_jaccard_with_layer_before: As the third, against the layer before.
    """

    epoch: int
    layer: int
    targets: int
    one_to_one_changed: float | None
    one_to_one_box_iou: float | None
    one_to_many_jaccard: float | None
    one_to_one_changed_from_layer_before: float | None
    one_to_many_jaccard_with_layer_before: float | None

    def to_dict(self) -> dict[str, int | float | None]:
        """Return the columns of ``stability.csv``."""
        return asdict(self)


def stability_rows(traces: Iterable[tuple[int, MatchTrace]]) -> Iterator[StabilityRow]:
    """Compare each trace with the one before it, and each layer with the layer before it.

    Args:
        traces: Finished epochs and trace, ascending; each epoch is compared with the entry
            before only if that is the epoch before.

    Raises:
        TraceError: The traces are not of the same images, or of models of other sizes.
    """
    before: tuple[int, MatchTrace] | None = None
    for epoch, trace in traces:
        if before is not None:
            _check_comparable(before[1], trace)
        follows = before is not None and before[0] == epoch - 1
        last = before[1] if before is not None and follows else None
        yield from _rows_of(epoch, trace, last)
        before = epoch, trace


def _rows_of(epoch: int, trace: MatchTrace, before: MatchTrace | None) -> Iterator[StabilityRow]:
    now = _Picks.of(trace)
    then = None if before is None else _Picks.of(before)
    for layer in range(trace.info.num_layers):
        present = now.layer(layer)
        since = _since_epoch_before(present, None if then is None else then.layer(layer))
        above = now.layer(layer - 1) if layer else None
        yield StabilityRow(
            epoch=epoch,
            layer=layer,
            targets=len(present.query),
            one_to_one_changed=since.changed,
            one_to_one_box_iou=since.box_iou,
            one_to_many_jaccard=since.jaccard,
            one_to_one_changed_from_layer_before=None
            if above is None
            else _mean(present.query != above.query),
            one_to_many_jaccard_with_layer_before=None
            if above is None
            else _mean(jaccard(present.many, above.many)),
        )


@dataclass(frozen=True)
class _SinceEpochBefore:
    changed: float | None
    box_iou: float | None
    jaccard: float | None


@dataclass(frozen=True, eq=False)
class _Picks:
    """Assignments of all targets, image after image.

    Attributes:
        query: [N, T] int64, one-to-one query; -1 for none.
        box: [N, T, 4] float32 (cx, cy, w, h), its box.
        many: [N, T, J] int64, one-to-many queries; -1 on unused slots.
    """

    query: Tensor
    box: Tensor
    many: Tensor

    @classmethod
    def of(cls, trace: MatchTrace) -> _Picks:
        images = [image for image in trace.images if image.num_targets]
        return cls(
            query=torch.cat([image.one_to_one_queries for image in images], dim=1),
            box=torch.cat([_picked_boxes(image) for image in images], dim=1),
            many=torch.cat([image.one_to_many_queries for image in images], dim=1),
        )

    def layer(self, layer: int) -> _Picks:
        """Of one layer, without the leading dimension."""
        return _Picks(self.query[layer], self.box[layer], self.many[layer])


def _picked_boxes(image: TracedImage) -> Tensor:
    index = image.one_to_one_queries.clamp(min=0)[..., None].expand(-1, -1, 4)
    return image.one_to_one.boxes_cxcywh.gather(1, index)


def _since_epoch_before(now: _Picks, then: _Picks | None) -> _SinceEpochBefore:
    if then is None:
        return _SinceEpochBefore(None, None, None)
    both = (now.query >= 0) & (then.query >= 0)
    iou, _ = iou_and_giou(cxcywh_to_xyxy(now.box[both]), cxcywh_to_xyxy(then.box[both]))
    return _SinceEpochBefore(
        _mean(now.query != then.query), _mean(iou), _mean(jaccard(now.many, then.many))
    )


def jaccard(first: Tensor, second: Tensor) -> Tensor:
    """Compute the Jaccard index of two sets of queries per target.

    Args:
        first: [T, J] int64, distinct queries of a row; -1 on unused slots.
        second: [T, J'] int64, likewise.

    Returns:
        Float32, one for every target with queries in either set.
    """
    same = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)
    shared = same.sum(dim=(1, 2))
    union = (first >= 0).sum(dim=1) + (second >= 0).sum(dim=1) - shared
    return shared[union > 0] / union[union > 0]


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None


def _check_comparable(first: MatchTrace, second: MatchTrace) -> None:
    sizes = [(t.info.num_layers, t.info.num_queries) for t in (first, second)]
    if sizes[0] != sizes[1] or _targets_of(first.images) != _targets_of(second.images):
        raise TraceError(
            second.info.source,
            f"was traced on other images or targets, or has another size, than {first.info.source}",
        )


def _targets_of(images: Sequence[TracedImage]) -> list[tuple[int, list[int]]]:
    return [(image.image_id, image.annotation_ids.tolist()) for image in images]
