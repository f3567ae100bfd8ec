"""Box conversions and overlaps, at their edges."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import generalized_box_iou

from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou, safe_logit, xyxy_to_cxcywh

UNIT = torch.tensor([0.0, 0.0, 1.0, 1.0])


def test_conversions_are_inverse_and_place_the_centre() -> None:
    boxes = torch.tensor([[[0.5, 0.4, 0.2, 0.6]]])
    corners = cxcywh_to_xyxy(boxes)
    torch.testing.assert_close(corners, torch.tensor([[[0.4, 0.1, 0.6, 0.7]]]))
    torch.testing.assert_close(xyxy_to_cxcywh(corners), boxes)


def test_overlaps_of_all_pairs_are_those_of_torchvision() -> None:
    drawn = torch.rand(2, 9, 4, generator=torch.Generator().manual_seed(0))
    first, second = cxcywh_to_xyxy(drawn)
    _, giou = iou_and_giou(first[:, None], second[None])
    torch.testing.assert_close(giou, generalized_box_iou(first, second))


@pytest.mark.parametrize(
    ("other", "iou", "giou"),
    [
        ([0.0, 0.0, 1.0, 1.0], 1.0, 1.0),
        ([1.0, 0.0, 2.0, 1.0], 0.0, 0.0),  # they touch: nothing between them
        ([3.0, 0.0, 4.0, 1.0], 0.0, -0.5),  # half of the hull is empty
        ([0.5, 0.5, 0.5, 0.5], 0.0, 0.0),  # a point inside
    ],
)
def test_overlaps_at_the_edges(other: list[float], iou: float, giou: float) -> None:
    found = iou_and_giou(UNIT, torch.tensor(other))
    assert [value.item() for value in found] == pytest.approx([iou, giou])


def test_boxes_without_area_have_finite_overlaps_and_gradients() -> None:
    point = torch.full((4,), 0.5, requires_grad=True)
    iou, giou = iou_and_giou(point, torch.full((4,), 0.5))
    (gradient,) = torch.autograd.grad(iou + giou, point)
    assert (iou.item(), giou.item()) == (0, 0)
    assert gradient.isfinite().all()


def test_logit_is_bounded_and_inverts_the_sigmoid() -> None:
    extreme = safe_logit(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    assert extreme.abs().max() < 11.6
    x = torch.tensor([-3.0, 0.0, 4.0])
    torch.testing.assert_close(safe_logit(x.sigmoid()), x)
