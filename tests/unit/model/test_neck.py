from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import nn

from msdetr.model import Neck


@pytest.mark.parametrize(
    ("levels", "strides", "sizes"),
    [
        (1, (32,), [(3, 2)]),
        (2, (16, 32), [(5, 4), (3, 2)]),
        (3, (8, 16, 32), [(10, 8), (5, 4), (3, 2)]),
        (4, (8, 16, 32, 64), [(10, 8), (5, 4), (3, 2), (2, 1)]),
        (6, (8, 16, 32, 64, 128, 256), [(10, 8), (5, 4), (3, 2), (2, 1), (1, 1), (1, 1)]),
    ],
)
def test_levels_are_the_coarsest_maps_and_further_halves(
    levels: int, strides: tuple[int, ...], sizes: list[tuple[int, int]]
) -> None:
    neck = Neck((8, 16, 24), 32, levels)
    maps = [torch.randn(2, 8, 10, 8), torch.randn(2, 16, 5, 4), torch.randn(2, 24, 3, 2)]
    output = neck(maps, torch.zeros(2, 80, 64, dtype=torch.bool))
    assert [tuple(m.shape) for m in output.maps] == [(2, 32, *size) for size in sizes]
    assert [tuple(m.shape) for m in output.padding_masks] == [(2, *size) for size in sizes]
    assert neck.strides((8, 16, 32)) == strides


def test_first_further_level_comes_from_the_unprojected_map() -> None:
    neck = Neck((8, 16, 24), 32, 5)
    maps = [torch.randn(1, 8, 10, 8), torch.randn(1, 16, 5, 4), torch.randn(1, 24, 3, 2)]
    output = neck(maps, torch.zeros(1, 80, 64, dtype=torch.bool))
    torch.testing.assert_close(output.maps[3], neck.projections[3](maps[2]))
    torch.testing.assert_close(output.maps[4], neck.projections[4](output.maps[3]))


def test_masks_are_resized_to_the_nearest_neighbour() -> None:
    # 30 columns to 4: cells take columns 0, 7, 15, 22. 20 rows to 3: rows 0, 6, 13.
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, :, 15:] = True
    mask[0, 13:, :] = True
    neck = Neck((8,), 32, 1)
    resized = neck([torch.randn(1, 8, 3, 4)], mask).padding_masks[0]
    assert resized[0].tolist() == [
        [False, False, True, True],
        [False, False, True, True],
        [True, True, True, True],
    ]


def test_convolutions_start_xavier_uniform_without_bias() -> None:
    for projection in Neck((64, 64), 32, 3).projections:
        convolution = cast(nn.Conv2d, next(projection.children()))
        assert convolution.bias is not None
        area = math.prod(convolution.kernel_size)
        bound = math.sqrt(6 / (area * (64 + 32)))
        assert 0.95 * bound < convolution.weight.abs().max() <= bound
        assert not convolution.bias.any()


@pytest.mark.parametrize("width", [32, 64, 96, 256])
def test_no_norm_takes_back_the_bias_before_it(width: int) -> None:
    """A gradient that is nothing but rounding would differ from machine to machine."""
    neck = Neck((8,), width, 1).double()
    (output,) = neck([torch.randn(2, 8, 5, 4).double()], torch.zeros(2, 40, 32).bool()).maps
    (output * torch.randn_like(output)).sum().backward()
    convolution = cast(nn.Conv2d, next(neck.projections[0].children()))
    assert convolution.bias is not None
    assert convolution.bias.grad is not None
    assert convolution.bias.grad.abs().min() > 1e-6


def test_one_cell_of_the_narrowest_neck_is_not_blank() -> None:
    neck = Neck((8,), 32, 1)
    (output,) = neck([torch.randn(1, 8, 1, 1)], torch.zeros(1, 32, 32).bool()).maps
    assert output.abs().min() > 0.1
