"""``assignments.csv``: one row for every pair of a target and a query worth looking at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TextIO

from torch import Tensor

from msdetr.assignment.costs import pairwise_giou, pairwise_iou, pairwise_l1
from msdetr.assignment.one_to_many import COLUMNS
from msdetr.csv_files import CsvWriter
from msdetr.inspection.rematch import ImageMatching
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import TracedBranch, TracedImage, TraceInfo


@dataclass(frozen=True)
class AssignmentRow:
    """A target and a query in one decoder layer.

    Boxes and probabilities are those of the one-to-many branch, which the score is made of;
    columns that begin with ``one_to_one_`` show the one-to-one branch, which the Hungarian cost
    is made of.

    Attributes:
        image: Image id.
        layer: Decoder layer, from 0.
        target: Position among the image's targets, from 0.
        annotation_id: Its id in the annotation file.
        category: Its name.
        size_bin: "small", "medium" or "large", by COCO's areas.
        query: Query, from 0.
        probability: Of the target's class.
        iou: With the target.
        giou: Generalised IoU with the target.
        l1: L1 distance of (cx, cy, w, h).
        score: Score of the one-to-many assignment.
        rank: Place among all queries by score for the target, from 1.
        one_to_one: Whether the query is the target's one-to-one pick.
        one_to_many: Whether it is one of the target's one-to-many positives.
        hungarian_cost: Cost of the pair in the one-to-one assignment.
        one_to_one_probability: As ``probability``.
        one_to_one_iou: As ``iou``.
        one_to_one_giou: As ``giou``.
        one_to_one_l1: As ``l1``.
        paired: Whether the one-to-many assignment pairs the two; other rows have a reason.
        own: The assigner's own columns, by name.
        reason: Why the two are not paired, in one word of the assigner's.
    """

    image: int
    layer: int
    target: int
    annotation_id: int
    category: str
    size_bin: str
    query: int
    probability: float
    iou: float
    giou: float
    l1: float
    score: float
    rank: int
    one_to_one: bool
    one_to_many: bool
    hungarian_cost: float
    one_to_one_probability: float
    one_to_one_iou: float
    one_to_one_giou: float
    one_to_one_l1: float
    paired: bool
    own: Mapping[str, Any]
    reason: str


_BEFORE = tuple(f.name for f in fields(AssignmentRow) if f.name not in ("own", "reason"))
_values_of = attrgetter(*_BEFORE)


class AssignmentTable:
    """Writes ``assignments.csv`` image by image.

    Floats have 9 significant digits, which tell every float32 from every other.

    Args:
        file: Open for writing text without newline translation.
        own: Names of the assigner's own columns.
    """

    def __init__(self, file: TextIO, own: Sequence[str]) -> None:
        self._writer = CsvWriter(file)
        self._writer.write((*_BEFORE, *own, "reason"))

    def write(self, rows: Iterable[AssignmentRow]) -> None:
        """Append rows."""
        self._writer.write_all(
            [_to_text(value) for value in (*_values_of(row), *row.own.values(), row.reason)]
            for row in rows
        )


def own_columns(info: TraceInfo) -> tuple[str, ...]:
    """Name the columns that the one-to-many assigner of a trace adds to the table."""
    rule = info.one_to_many
    if isinstance(rule, StoredScheme):
        return (*rule.query_columns, *rule.target_columns)
    return COLUMNS


def assignment_rows(
    image: TracedImage,
    matching: ImageMatching,
    info: TraceInfo,
    *,
    layers: Sequence[int],
    top: int,
) -> Iterator[AssignmentRow]:
    """List an image's pairs and the best of what was not paired.

    Args:
        image: Of a trace.
        matching: Its assignments.
        info: Of the trace.
        layers: Decoder layers to list.
        top: Per target, queries by score; those of both assignments are listed in any case.

    Yields:
        Rows by layer, target and rank.
    """
    quantities = _quantities(image, matching)
    shown = (matching.ranks <= top) | matching.one_to_one | matching.one_to_many
    names = [info.category_names[label] for label in image.labels.tolist()]
    size_bins, annotation_ids = image.size_bins, image.annotation_ids.tolist()
    codes = ["", *(reason.code for reason in matching.explanation.reasons)]
    for layer in layers:
        targets, queries = _ordered_pairs(shown[layer], matching.ranks[layer])
        columns = {key: value[layer, targets, queries] for key, value in quantities.items()}
        listed = {key: value.tolist() for key, value in columns.items()}
        own = {key: value.tolist() for key, value in matching.own(layer, targets, queries).items()}
        numbers = matching.explanation.reason[layer, targets, queries].tolist()
        pairs = zip(targets.tolist(), queries.tolist(), numbers, strict=True)
        for place, (target, query, number) in enumerate(pairs):
            values = {key: column[place] for key, column in own.items()}
            yield AssignmentRow(
                image=image.image_id,
                layer=layer,
                target=target,
                annotation_id=annotation_ids[target],
                category=names[target],
                size_bin=size_bins[target],
                query=query,
                own=values,
                reason=codes[number].format_map(values),
                **{key: column[place] for key, column in listed.items()},
            )


def _ordered_pairs(shown: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets and queries of the marked pairs of [T, Q], by target and rank."""
    targets, queries = shown.nonzero(as_tuple=True)
    order = (targets * (shown.shape[1] + 1) + ranks[targets, queries]).argsort()
    return targets[order], queries[order]


def _quantities(image: TracedImage, matching: ImageMatching) -> dict[str, Tensor]:
    """Compute the columns that are [N, T, Q]."""
    one_to_one = {f"one_to_one_{k}": v for k, v in _overlaps(image, image.one_to_one).items()}
    return {
        **_overlaps(image, image.one_to_many),
        **one_to_one,
        "score": matching.scores,
        "rank": matching.ranks,
        "one_to_one": matching.one_to_one,
        "one_to_many": matching.one_to_many,
        "paired": matching.one_to_many,
        "hungarian_cost": image.hungarian_cost,
    }


def _overlaps(image: TracedImage, branch: TracedBranch) -> dict[str, Tensor]:
    boxes, targets = branch.boxes_cxcywh[:, None], image.boxes_cxcywh[None]
    return {
        "probability": branch.probabilities,
        "iou": pairwise_iou(boxes, targets)[:, 0],
        "giou": pairwise_giou(boxes, targets)[:, 0],
        "l1": pairwise_l1(boxes, targets)[:, 0],
    }


def _to_text(value: object) -> object:
    if type(value) is float:
        return f"{value:.9g}"
    return int(value) if type(value) is bool else value
