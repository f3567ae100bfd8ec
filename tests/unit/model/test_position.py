"""Position encodings against the method's formulas, written out per cell and feature."""

from __future__ import annotations

import math

import pytest
import torch

from msdetr.model.axes import Axes
from msdetr.model.position import sine_box_embedding, sine_position_encoding


def wave(coordinate: float, feature: int, num_features: int, temperature: float) -> float:
    angle = coordinate / temperature ** (2 * (feature // 2) / num_features)
    return math.sin(angle) if feature % 2 == 0 else math.cos(angle)


@pytest.mark.parametrize("temperature", [10000.0, 20.0])
def test_every_unpadded_cell_follows_the_formula(temperature: float) -> None:
    width, height_px, valid_h, valid_w = 16, 4, 3, 5
    axes = Axes.of([(height_px, 7)], torch.tensor([[[valid_w, valid_h]]], dtype=torch.float32))
    (encoding,) = sine_position_encoding(axes, width, temperature)
    encoding = encoding.view(height_px, 7, width)
    half = width // 2
    for row in range(valid_h):
        y = (row + 0.5) / (valid_h + 1e-6) * 2 * math.pi
        for column in range(valid_w):
            x = (column + 0.5) / (valid_w + 1e-6) * 2 * math.pi
            expected = [wave(y, k, half, temperature) for k in range(half)]
            expected += [wave(x, k, half, temperature) for k in range(half)]
            assert encoding[row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_padding_cells_are_finite_even_without_any_image() -> None:
    axes = Axes.of([(2, 3)], torch.zeros(1, 1, 2))
    (encoding,) = sine_position_encoding(axes, 8, 1e4)
    assert encoding.isfinite().all()


def test_padding_cells_are_where_the_last_unpadded_ones_are() -> None:
    axes = Axes.of([(3, 4)], torch.tensor([[[2.0, 1.0]]]))
    (encoding,) = sine_position_encoding(axes, 8, 1e4)
    cells = encoding.view(3, 4, 8)
    assert torch.equal(cells[2, 3], cells[0, 1])
    assert not torch.equal(cells[0, 0], cells[0, 1])


def test_box_embedding_follows_the_formula() -> None:
    box, width = [0.1, 0.7, 0.35, 0.9], 8
    embedding = sine_box_embedding(torch.tensor(box), width, 10000.0)
    half = width // 2
    expected = [wave(c * 2 * math.pi, k, half, 10000.0) for c in box for k in range(half)]
    assert embedding.tolist() == pytest.approx(expected, abs=1e-5)
