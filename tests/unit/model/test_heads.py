from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from msdetr.model.heads import (
    BoxHead,
    ClassHead,
    box_deltas_of_layers,
    box_logits,
    classify_layers,
    keep_off_border,
)


@pytest.mark.parametrize("prior", [0.01, 0.1])
def test_every_class_starts_at_the_prior(prior: float) -> None:
    head = ClassHead(8, 3, prior=prior)
    torch.testing.assert_close(head.bias.sigmoid(), torch.full((3,), prior))


def test_default_class_bias_is_minus_log_99() -> None:
    assert ClassHead(8, 3).bias.tolist() == pytest.approx([-math.log(99)] * 3)


def test_box_head_starts_at_no_change() -> None:
    assert not BoxHead(8)(torch.randn(5, 8)).any()


def test_size_bias_leaves_the_centre_alone() -> None:
    head = BoxHead(8)
    head.set_size_bias(-2.0)
    assert head(torch.randn(1, 8)).tolist() == [[0, 0, -2, -2]]


def test_no_change_keeps_a_box() -> None:
    box = torch.tensor([[0.2, 0.9, 0.1, 0.4]])
    torch.testing.assert_close(box_logits(box).sigmoid(), box)


def test_a_point_gives_the_centre_and_the_delta_the_size() -> None:
    delta = torch.tensor([0.0, 0.0, -2.0, 1.0])
    refined = (delta + box_logits(torch.tensor([0.3, 0.6]))).sigmoid()
    sizes = torch.tensor([-2.0, 1.0]).sigmoid()
    torch.testing.assert_close(refined, torch.cat([torch.tensor([0.3, 0.6]), sizes]))


def test_references_on_the_border_stay_finite() -> None:
    border = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    logits = box_logits(border)
    torch.autograd.backward(logits.sigmoid().sum())
    assert logits.isfinite().all()
    assert border.grad is not None
    assert border.grad.isfinite().all()


def test_logits_are_limited_to_those_of_boxes() -> None:
    logits = torch.tensor([-math.inf, -20.0, -3.0, 0.5, 20.0, math.inf])
    torch.testing.assert_close(
        keep_off_border(logits), box_logits(logits.sigmoid()[:, None].expand(-1, 4))[:, 0]
    )


@pytest.mark.parametrize("shared", [False, True])
def test_heads_of_all_layers_at_once_are_the_heads_one_by_one(shared: bool) -> None:
    class_heads = nn.ModuleList([ClassHead(8, 3) for _ in range(1 if shared else 2)])
    box_heads = nn.ModuleList([BoxHead(8) for _ in class_heads])
    for parameter in box_heads.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(2, 3, 5, 8)
    for heads, at_once in (
        (class_heads, classify_layers(class_heads, features)),
        (box_heads, box_deltas_of_layers(box_heads, features)),
    ):
        alone = [heads[0 if shared else layer](features[layer]) for layer in range(2)]
        torch.testing.assert_close(at_once, torch.stack(alone))
