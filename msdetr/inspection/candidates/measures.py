"""The best queries of every target: how well the first 1, 5, 10 and 20 of them fit.

Source: Zhao et al., MS-DETR, CVPR 2024, figure 1 (top 20 queries of a model with and of one without
mixed supervision).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from msdetr.assignment import OneToManyAssigner
from msdetr.assignment.costs import pairwise_iou
from msdetr.csv_files import CsvWriter
from msdetr.errors import TraceError
from msdetr.inspection.trace import BRANCHES, MatchTrace, TracedBranch, TracedImage

TOP = 20
DEPTHS = (1, 5, 10, 20)
IOU_LEVELS = (0.5, 0.75)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best queries of the targets of one image, by one branch's predictions.

    Letters: J = min(20, Q) queries per target.

    Attributes:
        queries: [N, T, J] int64, by descending score, then lowest query.
        scores: [N, T, J] float32.
        iou: [N, T, J] float32.
        probability: [N, T, J] float32, of the target's class.
        boxes_cxcywh: [N, T, J, 4] float32.
    """

    queries: Tensor
    scores: Tensor
    iou: Tensor
    probability: Tensor
    boxes_cxcywh: Tensor


def find_candidates(
    image: TracedImage, branch: str, rule: OneToManyAssigner, top: int = TOP
) -> Candidates:
    """Rank the queries of every target by the one-to-many score.

    Args:
        image: Of a trace.
        branch: "one_to_one" or "one_to_many", whose predictions are scored.
        rule: Has the weights of the score.
        top: Queries per target at most.
    """
    predictions: TracedBranch = getattr(image, branch)
    boxes = predictions.boxes_cxcywh
    iou = pairwise_iou(boxes[:, None], image.boxes_cxcywh[None])[:, 0]
    scores = rule.combine(predictions.probabilities, iou)
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :top]
    return Candidates(
        queries=order,
        scores=scores.gather(2, order),
        iou=iou.gather(2, order),
        probability=predictions.probabilities.gather(2, order),
        boxes_cxcywh=_gather_boxes(boxes, order),
    )


def _gather_boxes(boxes: Tensor, queries: Tensor) -> Tensor:
    layers = torch.arange(len(boxes))[:, None, None]
    return boxes[layers, queries]


def _measures() -> list[str]:
    return [
        *(f"iou_at_{depth}" for depth in DEPTHS),
        *(f"num_iou_{level:g}" for level in IOU_LEVELS),
        *(f"probability_at_{depth}" for depth in DEPTHS),
    ]


MEASURES: tuple[str, ...] = tuple(_measures())
"""Columns of ``candidates.csv`` that are measured; see ``measure``."""


def measure(candidates: Candidates) -> Tensor:
    """Compute the measures of every target, in the order of ``MEASURES``.

    Returns:
        [N, T, number of measures] float64: the mean IoU of the first 1, 5, 10, 20 queries, how
        many of all 20 have an IoU of at least 0.5 and 0.75, the mean probability of the first
        1, 5, 10, 20. With fewer queries than that, of those there are.
    """
    iou, probability = candidates.iou.double(), candidates.probability.double()
    columns = [
        *(iou[..., :depth].mean(dim=-1) for depth in DEPTHS),
        *((candidates.iou >= level).double().sum(dim=-1) for level in IOU_LEVELS),
        *(probability[..., :depth].mean(dim=-1) for depth in DEPTHS),
    ]
    return torch.stack(columns, dim=-1)


@dataclass(frozen=True, eq=False)
class MeasuredTrace:
    """Measures of all targets of a trace.

    Attributes:
        name: Of the model.
        trace: The trace.
        by_branch: Per branch one tensor [N, T, measures] per image.
        last_iou: Per branch the IoU [targets, J] of all candidates of the last layer.
    """

    name: str
    trace: MatchTrace
    by_branch: dict[str, list[Tensor]]
    last_iou: dict[str, Tensor]

    @classmethod
    def of(cls, name: str, trace: MatchTrace, rule: OneToManyAssigner) -> MeasuredTrace:
        """Measure a trace; a model without a one-to-many branch is measured on its only one."""
        by_branch: dict[str, list[Tensor]] = {}
        last_iou = {}
        for branch in BRANCHES if trace.info.has_one_to_many else BRANCHES[:1]:
            found = [find_candidates(image, branch, rule) for image in trace.images]
            by_branch[branch] = [measure(candidates) for candidates in found]
            last_iou[branch] = torch.cat([c.iou[-1] for c in found])
        return cls(name, trace, by_branch, last_iou)

    @property
    def label(self) -> str:
        """Name of the model and of its run, for pictures."""
        path = Path(self.trace.info.source)
        run = path.parents[1] if path.parent.name == "checkpoints" else path
        return f"{self.name}: {run.name}"[:40]

    def rows(self) -> Iterator[dict[str, str | int | float]]:
        """List the rows of ``candidates.csv``: model, image, target, layer, branch, measures."""
        for branch, measured in self.by_branch.items():
            for image, values in zip(self.trace.images, measured, strict=True):
                yield from self._rows_of(image, branch, values)

    def _rows_of(
        self, image: TracedImage, branch: str, values: Tensor
    ) -> Iterator[dict[str, str | int | float]]:
        names, labels = self.trace.info.category_names, image.labels.tolist()
        for layer in range(len(values)):
            for target, bin_name in enumerate(image.size_bins):
                yield {
                    "model": self.name,
                    "image_id": image.image_id,
                    "layer": layer,
                    "branch": branch,
                    "target": target,
                    "annotation_id": int(image.annotation_ids[target]),
                    "category": names[labels[target]],
                    "size": bin_name,
                    **dict(zip(MEASURES, values[layer, target].tolist(), strict=True)),
                }


def write_candidates_csv(path: Path, measured: Sequence[MeasuredTrace]) -> None:
    """Write ``candidates.csv``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        CsvWriter(file).write_mappings(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            for one in measured
            for row in one.rows()
        )


def check_same_targets(first: MatchTrace, second: MatchTrace) -> None:
    """Refuse to compare traces of other images or targets.

    Raises:
        TraceError: They differ.
    """
    described = [
        [(image.image_id, image.annotation_ids.tolist()) for image in trace.images]
        for trace in (first, second)
    ]
    if described[0] != described[1]:
        raise TraceError(
            second.info.source, f"was traced on other images or targets than {first.info.source}"
        )
