"""The varifocal loss against its definition, and at its edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from msdetr.losses import VarifocalLoss

LOSS = VarifocalLoss()


def draw_logits(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 4 * torch.randn(shape, generator=generator, dtype=torch.float64)


def define(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.detach().sigmoid()
    weight = torch.where(target > 0, target, 0.75 * p * p)
    return weight * binary_cross_entropy_with_logits(logits, target, reduction="none")


def test_background_and_excess_add_up_to_the_definition() -> None:
    logits = draw_logits(2, 3, 5).requires_grad_()
    target = torch.zeros_like(logits)
    target[0, 1, 2], target[1, 0, 4], target[1, 2, 0] = 0.3, 1.0, 1e-7
    layer, query, label = target.nonzero().unbind(1)
    excess = LOSS.excess(logits[layer, query, label], target[layer, query, label])
    ours = LOSS.background(logits).sum() + excess.sum()
    expected = define(logits, target).sum()
    torch.testing.assert_close(ours, expected)
    slopes = [torch.autograd.grad(value, logits)[0] for value in (ours, expected)]
    torch.testing.assert_close(*slopes)


def test_background_sums_every_layer_by_itself() -> None:
    logits = draw_logits(3, 2, 4)
    expected = (0.75 * logits.sigmoid() ** 2 * softplus(logits)).flatten(1).sum(1)
    torch.testing.assert_close(LOSS.background(logits), expected)


def test_the_slope_is_the_weight_times_the_error() -> None:
    logits = draw_logits(6).requires_grad_()
    p = logits.detach().sigmoid()
    (slope,) = torch.autograd.grad(LOSS.background(logits[None]).sum(), logits)
    torch.testing.assert_close(slope, 0.75 * p**3)
    iou = torch.linspace(0.1, 1, 6, dtype=torch.float64)
    (slope,) = torch.autograd.grad(LOSS.excess(logits, iou).sum(), logits)
    torch.testing.assert_close(slope, iou * (p - iou) - 0.75 * p**3)


def test_a_pair_without_overlap_is_background() -> None:
    logits = torch.tensor([-3.0, 0.0, 5.0], requires_grad=True)
    excess = LOSS.excess(logits, torch.zeros(3))
    assert excess.tolist() == [0, 0, 0]
    (slope,) = torch.autograd.grad(excess.sum(), logits)
    assert slope.tolist() == [0, 0, 0]


def test_extreme_logits_stay_finite_and_masked_ones_cost_nothing() -> None:
    logits = torch.tensor([[-torch.inf, -1e4, -90.0, 90.0, 1e4]], requires_grad=True)
    background = LOSS.background(logits)
    assert background.item() == pytest.approx(0.75 * (90 + 1e4))
    (slope,) = torch.autograd.grad(background.sum(), logits)
    assert slope[0].tolist() == pytest.approx([0, 0, 0, 0.75, 0.75])
