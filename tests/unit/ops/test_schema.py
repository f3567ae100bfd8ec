from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from msdetr.ops import ms_deform_attn, native


@pytest.fixture(autouse=True)
def _loaded() -> None:
    native.load("cpu")


def leaves(inputs: Any) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in inputs.tensors]


class TwoLevels(nn.Module):
    """Attention whose level sizes come from the maps, as in a model."""

    def forward(self, fine: Tensor, coarse: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        maps = (fine, coarse)
        cells = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
        value = cells.view(cells.shape[0], cells.shape[1], 3, 8)
        shapes = [(each.shape[-2], each.shape[-1]) for each in maps]
        return ms_deform_attn(value, shapes, locations, weights)


def maps_of(height: int, width: int, queries: int) -> tuple[Tensor, ...]:
    return (
        torch.rand(2, 24, 2 * height, 2 * width),
        torch.rand(2, 24, height, width),
        torch.rand(2, queries, 3, 2, 4, 2),
        torch.rand(2, queries, 3, 2, 4),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_opcheck(samples: Any, dtype: torch.dtype) -> None:
    inputs = samples.make_inputs().to(dtype)
    value, locations, weights = leaves(inputs)
    forward = torch.ops.msdetr.ms_deform_attn.default
    torch.library.opcheck(forward, (value, inputs.level_sizes, locations, weights))
    grad = torch.rand(2, 13, 24, dtype=dtype)
    backward = torch.ops.msdetr.ms_deform_attn_backward.default
    arguments = (grad, value.detach(), inputs.level_sizes, locations.detach(), weights.detach())
    torch.library.opcheck(backward, (*arguments, True))


def test_gradcheck(samples: Any) -> None:
    inputs = samples.make_inputs(images=1, queries=4, heads=2, channels=5, points=2)

    def compute(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value, inputs.spatial_shapes, locations, weights, backend="native")

    assert torch.autograd.gradcheck(compute, leaves(inputs))


def test_second_derivative_is_refused(samples: Any) -> None:
    inputs = samples.make_inputs()
    value, locations, weights = leaves(inputs)
    output = ms_deform_attn(value, inputs.spatial_shapes, locations, weights, backend="native")
    (grad,) = torch.autograd.grad(output.sum(), value, create_graph=True)
    with pytest.raises(NotImplementedError, match="backend='gather'"):
        grad.sum().backward()


def test_raw_operator_refuses_what_does_not_fit(samples: Any) -> None:
    inputs = samples.make_inputs()
    value, locations, weights = inputs.tensors
    operator = torch.ops.msdetr.ms_deform_attn
    with pytest.raises(RuntimeError, match=r"value must have 39 cells .*, got 41"):
        operator(value, [5, 7, 2, 2], locations, weights)
    with pytest.raises(RuntimeError, match=r"sampling_locations must be Double, got Float"):
        operator(value, [5, 7, 3, 2], locations.float(), weights)
    with pytest.raises(RuntimeError, match=r"attention_weights must have shape \[2, 13, 3, 2, 2\]"):
        operator(value, [5, 7, 3, 2], locations, weights[:, 1:])
    with pytest.raises(RuntimeError, match=r"level sizes must be positive, got \[41, 1, 0, 2\]"):
        operator(value, [41, 1, 0, 2], locations, weights)


def test_compiles_whole_and_once_for_all_image_sizes() -> None:
    model = TwoLevels()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    # Sizes that differ from each other: tracing takes equal ones for the same variable.
    for height, width, queries in [(6, 9, 23), (7, 10, 11), (11, 5, 15)]:
        arguments = maps_of(height, width, queries)
        fine = arguments[0].requires_grad_()
        output = compiled(*arguments)
        expected = model(*arguments)
        torch.testing.assert_close(output, expected)
        (grad,) = torch.autograd.grad(output.sum(), fine)
        (expected_grad,) = torch.autograd.grad(expected.sum(), fine)
        torch.testing.assert_close(grad, expected_grad)
    assert counter.frame_count == 1


def test_exports_with_dynamic_image_sizes() -> None:
    height = torch.export.Dim("height", min=2, max=64)
    width = torch.export.Dim("width", min=2, max=64)
    queries = torch.export.Dim("queries", min=2, max=64)
    program = torch.export.export(
        TwoLevels(),
        maps_of(6, 9, 5),
        dynamic_shapes=({2: 2 * height, 3: 2 * width}, {2: height, 3: width}) + ({1: queries},) * 2,
    )
    targets = [str(node.target) for node in program.graph.nodes]
    assert "msdetr.ms_deform_attn.default" in targets
    other_size = maps_of(4, 13, 8)
    torch.testing.assert_close(program.module()(*other_size), TwoLevels()(*other_size))
