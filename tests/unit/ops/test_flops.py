"""The operator's operations, as torch's counter sees them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import msdetr.ops.flops  # noqa: F401 - teaches the counter the operator
from msdetr.ops import ms_deform_attn

SHAPES = ((4, 6), (2, 3))
B, S, M, D, Q, L, P = 2, 30, 2, 8, 5, 2, 4


def make_inputs(device: str) -> list[Any]:
    value = torch.randn(B, S, M, D, device=device, requires_grad=True)
    locations = torch.rand(B, Q, M, L, P, 2, device=device, requires_grad=True)
    weights = torch.rand(B, Q, M, L, P, device=device, requires_grad=True)
    return [value, SHAPES, locations, weights]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_sample_weights_four_cells(device: str) -> None:
    forward = 2 * 4 * B * Q * M * L * P * D
    inputs = make_inputs(device)
    with FlopCounterMode(display=False) as counter:
        output = ms_deform_attn(*inputs, backend="native")
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_auto_needs_no_kernels_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdetr.ops.native.load", lambda _: pytest.fail("kernels were loaded"))
    with FlopCounterMode(display=False) as counter:
        ms_deform_attn(*make_inputs("meta"))
    assert counter.get_total_flops() > 0
