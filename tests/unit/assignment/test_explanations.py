"""Every assigner explains the pairs that it assigns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, RepeatedHungarianAssigner
from msdetr.assignment.ranking import mark_pairs
from msdetr.assignment.task_aligned import TaskAlignedAssigner
from msdetr.structures import Assigner, Predictions, Targets

MS_DETR = OneToManyAssigner(
    k=3, threshold=0.3, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
)
ASSIGNERS: list[Assigner] = [
    MS_DETR,
    HungarianAssigner(2.0, 5.0, 2.0),
    RepeatedHungarianAssigner(2.0, 5.0, 2.0, copies=3),
    RepeatedHungarianAssigner(2.0, 5.0, 2.0, copies=20),
    TaskAlignedAssigner(4, 1.0, 6.0),
]


def scene(num_queries: int) -> tuple[Predictions, Targets, torch.Tensor]:
    chance = torch.Generator().manual_seed(num_queries)
    sizes = (2, 3, num_queries)
    boxes = [torch.rand(count, 4, generator=chance) * 0.3 + 0.2 for count in (3, 0, 5)]
    labels = [torch.randint(4, (len(entry),), generator=chance) for entry in boxes]
    predictions = Predictions(
        torch.randn(*sizes, 4, generator=chance),
        torch.rand(*sizes, 4, generator=chance) * 0.3 + 0.2,
    )
    return predictions, Targets.from_lists(boxes, labels), torch.rand(sizes, generator=chance)


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=lambda a: a.describe())
@pytest.mark.parametrize("num_queries", [1, 4, 30])
def test_explanation_is_of_the_assignment(assigner: Assigner, num_queries: int) -> None:
    predictions, targets, u = scene(num_queries)
    explained = assigner.explain(predictions, targets, u)
    rows = assigner.assign(predictions, targets, u)
    shape = tuple(explained.paired.shape)
    assert shape == (2, 3, 5, num_queries)
    assert torch.equal(explained.paired, mark_pairs(rows, shape))
    assert torch.equal(explained.reason == 0, explained.paired)
    assert int(explained.reason.max()) <= len(explained.reasons)
    alone = targets.valid & ~explained.paired.any(dim=3)
    counted = torch.stack([cause.long() for cause in explained.causes.values()]).sum(dim=0)
    assert torch.equal(counted, alone.long())
    for column in explained.query_columns.values():
        assert column.shape == (2, 3, num_queries)
    for column in explained.target_columns.values():
        assert column.shape == (2, 3, 5)


def test_texts_name_columns_that_exist() -> None:
    predictions, targets, u = scene(30)
    for assigner in ASSIGNERS:
        explained = assigner.explain(predictions, targets, u)
        values = dict.fromkeys([*explained.query_columns, *explained.target_columns], 7)
        texts = [explained.target_note]
        texts += [text for reason in explained.reasons for text in (reason.code, reason.words)]
        assert all("{" not in text.format_map(values) for text in texts)


def test_what_assigners_say_of_themselves() -> None:
    assert MS_DETR.describe() == "k 3, threshold 0.3, IoU weight 0.7, cap 0.25"
    assert MS_DETR.draws_u
    assert MS_DETR.max_positives(30) == 7
    uncapped = replace(MS_DETR, max_positive_fraction=None)
    assert uncapped.describe().endswith("no cap")
    assert not uncapped.draws_u
    assert uncapped.max_positives(30) is None
    repeated = ASSIGNERS[2]
    assert repeated.describe() == "3 copies of every target, cost 2 class + 5 L1 + 2 (-GIoU)"
    assert not repeated.draws_u
