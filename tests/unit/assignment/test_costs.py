"""Pairwise costs against loops over scalars."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from msdetr.assignment.costs import (
    focal_class_cost,
    logits_of_targets,
    pairwise_giou,
    pairwise_iou,
    pairwise_l1,
)
from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou

NUM_LAYERS, NUM_IMAGES, NUM_QUERIES, NUM_TARGETS = 2, 3, 5, 4


def drawn_boxes(*shape: int) -> Tensor:
    return torch.rand(*shape, 4, generator=torch.Generator().manual_seed(len(shape)))


@pytest.fixture
def boxes() -> Tensor:
    return drawn_boxes(NUM_LAYERS, NUM_IMAGES, NUM_QUERIES)


@pytest.fixture
def target_boxes() -> Tensor:
    return drawn_boxes(NUM_IMAGES, NUM_TARGETS)


def test_logits_are_those_of_each_targets_class() -> None:
    logits = torch.randn(NUM_LAYERS, NUM_IMAGES, NUM_QUERIES, 7)
    labels = torch.tensor([[0, 6, 3, 3], [1, 1, 0, 2], [5, 4, 3, 2]])
    chosen = logits_of_targets(logits, labels)
    for n, b, t, q in torch.cartesian_prod(*(torch.arange(s) for s in chosen.shape)).tolist():
        assert chosen[n, b, t, q] == logits[n, b, q, labels[b, t]]


def test_overlaps_equal_the_general_functions_to_the_bit(
    boxes: Tensor, target_boxes: Tensor
) -> None:
    query = cxcywh_to_xyxy(boxes)[:, :, None]
    iou, giou = iou_and_giou(query, cxcywh_to_xyxy(target_boxes)[:, :, None])
    assert iou.count_nonzero() > 20
    assert torch.equal(pairwise_iou(boxes, target_boxes), iou)
    assert torch.equal(pairwise_giou(boxes, target_boxes), giou)


def test_boxes_without_area_overlap_nothing() -> None:
    point = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert pairwise_iou(point.view(1, 1, 1, 4), point.view(1, 1, 4)).item() == 0
    assert pairwise_giou(point.view(1, 1, 1, 4), point.view(1, 1, 4)).item() == 0


def test_l1_sums_centre_and_size(boxes: Tensor, target_boxes: Tensor) -> None:
    expected = (boxes[:, :, None] - target_boxes[:, :, None]).abs().sum(-1)
    torch.testing.assert_close(pairwise_l1(boxes, target_boxes), expected)


@pytest.mark.parametrize("logit", [-20.0, -1.5, 0.0, 0.7, 20.0])
def test_class_cost_follows_its_formula(logit: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    expected = 0.25 * (1 - p) ** 2 * -math.log(p + 1e-8)
    expected -= 0.75 * p**2 * -math.log(1 - p + 1e-8)
    cost = focal_class_cost(torch.tensor(logit, dtype=torch.float64), alpha=0.25, gamma=2)
    assert cost.item() == pytest.approx(expected, rel=1e-9)


def test_reduced_precision_is_widened_and_gradients_are_cut(
    boxes: Tensor, target_boxes: Tensor
) -> None:
    half = boxes.bfloat16().requires_grad_()
    for function in (pairwise_l1, pairwise_iou, pairwise_giou):
        result = function(half, target_boxes)
        assert result.dtype == torch.float32
        assert not result.requires_grad
        torch.testing.assert_close(result, function(half.detach().float(), target_boxes))
