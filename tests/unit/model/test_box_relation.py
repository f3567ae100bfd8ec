"""Relations of boxes: their definition, their edges, and blocks of rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from msdetr.model import box_relation
from msdetr.model.box_relation import BoxRelationBias, relation_features

EPS = 1e-6


def draw_boxes(*shape: int) -> Tensor:
    return torch.rand(*shape, 4) * 0.5 + 0.1


def define(one: list[float], other: list[float]) -> list[float]:
    shift = [math.log(abs(one[i] - other[i]) / (one[i + 2] + EPS) + 1) for i in (0, 1)]
    ratio = [math.log(max(one[i] / (other[i] + EPS), EPS)) for i in (2, 3)]
    features = []
    for d in (*shift, *ratio):
        phases = [d / 10000 ** (k / 16) for k in range(16)]
        features += [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
    return features


def test_features_are_as_defined() -> None:
    boxes, others = draw_boxes(1, 2), draw_boxes(1, 3)
    found = relation_features(boxes, others)
    assert found.shape == (1, 2, 3, 128)
    for i in range(2):
        for j in range(3):
            expected = define(boxes[0, i].tolist(), others[0, j].tolist())
            assert found[0, i, j].tolist() == pytest.approx(expected, abs=1e-5)


def test_boxes_without_area_stay_finite() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0, 0], [0.2, 0.9, 1e-7, 1], [0.5, 0.5, 1, 1]]])
    assert relation_features(boxes, boxes).isfinite().all()


def shaken(heads: int) -> BoxRelationBias:
    relation = BoxRelationBias(heads)
    torch.nn.init.normal_(relation.output.weight)
    return relation


def test_bias_starts_at_zero_and_is_equal_in_both_directions() -> None:
    boxes = draw_boxes(2, 5)
    assert not BoxRelationBias(4)(boxes).any()
    bias = shaken(4)(boxes)
    assert bias.shape == (2, 4, 5, 5)
    torch.testing.assert_close(bias, bias.transpose(2, 3))
    assert bias.std() > 0.1


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, relation = draw_boxes(2, 7).double(), shaken(2).double()
    results = []
    for pairs in (32768, 14, 1):
        monkeypatch.setattr(box_relation, "_PAIRS_AT_ONCE", pairs)
        relation.zero_grad()
        bias = relation(boxes)
        torch.autograd.backward(bias.square().sum())
        gradients = [p.grad.clone() for p in relation.parameters() if p.grad is not None]
        results.append([bias.detach(), *gradients])
    assert len(results[0]) == 5
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_half_precision_around_it_changes_nothing() -> None:
    boxes, relation = draw_boxes(1, 6), shaken(2)
    expected = relation(boxes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(relation(boxes), expected)
