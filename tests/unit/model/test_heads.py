from __future__ import annotations

import math

import pytest
import torch

from msdetr.model.heads import BoxHead, ClassHead, refine


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
    torch.testing.assert_close(refine(torch.zeros(1, 4), box), box)


def test_a_point_gives_the_centre_and_the_delta_the_size() -> None:
    refined = refine(torch.tensor([0.0, 0.0, -2.0, 1.0]), torch.tensor([0.3, 0.6]))
    sizes = torch.tensor([-2.0, 1.0]).sigmoid()
    torch.testing.assert_close(refined, torch.cat([torch.tensor([0.3, 0.6]), sizes]))


def test_references_on_the_border_stay_finite() -> None:
    border = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    refined = refine(torch.zeros(4), border)
    torch.autograd.backward(refined.sum())
    assert refined.isfinite().all()
    assert border.grad is not None
    assert border.grad.isfinite().all()
