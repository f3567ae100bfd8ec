"""Loss formulas against loops, other libraries and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from msdetr.boxes import cxcywh_to_xyxy
from msdetr.losses.terms import (
    background_focal_loss,
    giou_loss_and_iou,
    l1_loss,
    positive_focal_excess,
    sum_per_layer,
)

ALPHA, GAMMA = 0.25, 2.0


def draw_logits(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 5 * torch.randn(shape, generator=generator, dtype=torch.float64)


def negative_focal(logit: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(1 - ALPHA) * math.pow(p, GAMMA) * math.log(1 - p)


def test_background_sums_every_layer_by_itself() -> None:
    logits = draw_logits(3, 2, 4, 5)
    expected = [sum(negative_focal(x) for x in layer.flatten().tolist()) for layer in logits]
    assert background_focal_loss(logits, ALPHA, GAMMA).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.1, 1.5)])
def test_background_plus_excess_is_the_focal_loss_with_one_hot_targets(
    alpha: float, gamma: float
) -> None:
    logits, labels = draw_logits(1, 6, 4), torch.tensor([0, 3, 3, 1, 2, 0])
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    expected = sigmoid_focal_loss(logits[0], one_hot, alpha, gamma, reduction="sum")
    excess = positive_focal_excess(logits[0, torch.arange(6), labels], alpha, gamma)
    total = background_focal_loss(logits, alpha, gamma)[0] + excess.sum()
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
def test_gradients_of_the_background(gamma: float) -> None:
    logits = draw_logits(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: background_focal_loss(x, ALPHA, gamma), logits)


def test_gradients_of_the_excess() -> None:
    logits = draw_logits(12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: positive_focal_excess(x, ALPHA, GAMMA), logits)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[-1e4, -90.0, 90.0, 1e4]], requires_grad=True)
    background = background_focal_loss(logits, ALPHA, GAMMA)
    excess = positive_focal_excess(logits, ALPHA, GAMMA)
    assert background.item() == pytest.approx(0.75 * (90 + 1e4))
    expected = [0.25 * 1e4, 0.25 * 90, -0.75 * 90, -0.75 * 1e4]
    assert excess[0].tolist() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(background.sum() + excess.sum(), logits)
    assert slope[0].tolist() == pytest.approx([-0.25, -0.25, 0.0, 0.0], abs=1e-6)


def test_small_probabilities_keep_their_relative_precision() -> None:
    """A class bias puts all logits near log(0.01 / 0.99): errors would not average out."""
    logits = torch.full((1, 100_000), -4.595, dtype=torch.float32)
    expected = 100_000 * negative_focal(float(logits[0, 0]))
    assert background_focal_loss(logits, ALPHA, GAMMA).item() == pytest.approx(expected, rel=1e-6)


def test_background_compiles_and_keeps_its_gradient() -> None:
    logits = draw_logits(2, 3, 4).requires_grad_()
    compiled = torch.compile(
        lambda x: background_focal_loss(x, ALPHA, GAMMA).sum(), backend="aot_eager", fullgraph=True
    )
    (expected,) = torch.autograd.grad(background_focal_loss(logits, ALPHA, GAMMA).sum(), logits)
    (slope,) = torch.autograd.grad(compiled(logits), logits)
    torch.testing.assert_close(slope, expected)


def test_box_losses_against_torch_and_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, targets = (0.1 + 0.8 * torch.rand(2, 9, 4, generator=generator)).unbind()
    expected = torch.nn.functional.l1_loss(boxes, targets, reduction="none").sum(-1)
    torch.testing.assert_close(l1_loss(boxes, targets), expected)
    expected = generalized_box_iou_loss(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets))
    torch.testing.assert_close(giou_loss_and_iou(boxes, targets)[0], expected)


def test_giou_loss_of_equal_and_far_boxes() -> None:
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    assert giou_loss_and_iou(box, box)[0].item() == pytest.approx(0, abs=1e-6)
    dot = torch.tensor([[0.01, 0.01, 1e-4, 1e-4]])
    far = torch.tensor([[0.99, 0.99, 1e-4, 1e-4]])
    assert giou_loss_and_iou(dot, far)[0].item() == pytest.approx(2, abs=1e-3)


def test_gradients_of_box_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = 0.2 + 0.6 * torch.rand(5, 4, generator=generator, dtype=torch.float64)
    targets = 0.2 + 0.6 * torch.rand(5, 4, generator=generator, dtype=torch.float64)
    boxes.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: l1_loss(x, targets), boxes)
    assert torch.autograd.gradcheck(lambda x: giou_loss_and_iou(x, targets)[0], boxes)


@given(
    rows=st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 3), st.booleans()), max_size=12),
    num_layers=st.integers(4, 5),
)
def test_sums_per_layer(rows: list[tuple[int, int, bool]], num_layers: int) -> None:
    values = torch.tensor([float(value) for value, _, _ in rows])
    layer = torch.tensor([layer for _, layer, _ in rows], dtype=torch.int64)
    valid = torch.tensor([valid for _, _, valid in rows], dtype=torch.bool)
    expected = [sum(v for v, n, ok in rows if ok and n == wanted) for wanted in range(num_layers)]
    assert sum_per_layer(values, layer, valid, num_layers).tolist() == expected


def test_padding_rows_do_not_leak_into_sums_or_gradients() -> None:
    values = torch.tensor([1.0, torch.inf, torch.nan], requires_grad=True)
    valid = torch.tensor([True, False, False])
    total = sum_per_layer(values, torch.zeros(3, dtype=torch.int64), valid, 1)
    (slope,) = torch.autograd.grad(total.sum(), values)
    assert total.tolist() == [1.0]
    assert slope.tolist() == [1.0, 0.0, 0.0]
