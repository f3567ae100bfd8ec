from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.ops import ms_deform_attn

# (channels, points, spatial shapes), each with the reason it is here
SIZES = {
    "one channel": (1, 1, ((4, 4),)),
    "odd channels": (7, 3, ((5, 5), (1, 1))),
    "multiple of 4": (12, 2, ((6, 4), (3, 2))),
    "half a vector": (8, 2, ((8, 8), (4, 4), (2, 2), (1, 1))),
    "one vector": (16, 4, ((8, 6), (4, 3))),
    "usual heads": (32, 4, ((9, 12), (5, 6), (3, 3), (2, 2))),
    "four vectors": (64, 1, ((7, 7),)),
    "two channel groups": (96, 2, ((6, 6), (3, 3))),
    "groups and padding": (131, 2, ((6, 6), (3, 3))),
    "more points than one plan holds": (16, 7, ((6, 6), (3, 3), (2, 2))),
    "one row, one column": (8, 2, ((1, 9), (9, 1))),
}


def compute(backend: str) -> Any:
    def run(*args: Any) -> Tensor:
        return ms_deform_attn(*args, backend=backend)

    return run


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-13),
        (torch.float32, 3e-6),
        (torch.bfloat16, 8e-3),
        (torch.float16, 1e-3),
    ],
)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("queries", [3, 150], ids=["gathers in place", "packs heads"])
def test_matches_the_reference_in_float64(
    samples: Any, size: str, queries: int, dtype: torch.dtype, tolerance: float
) -> None:
    channels, points, spatial_shapes = SIZES[size]
    inputs = samples.make_inputs(
        queries=queries, channels=channels, points=points, spatial_shapes=spatial_shapes
    ).to(dtype)
    actual = samples.output_and_gradients(compute("native"), inputs)
    expected = samples.output_and_gradients(compute("reference"), inputs.to(torch.float64))
    assert [tensor.dtype for tensor in actual[:2]] == [dtype, dtype]
    assert max(samples.relative_errors(actual, expected)) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_threads_or_runs(samples: Any, dtype: torch.dtype) -> None:
    inputs = samples.make_inputs(queries=700, heads=5, channels=32, points=4).to(dtype)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            results.append(samples.output_and_gradients(compute("native"), inputs))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_batched_equals_single(samples: Any) -> None:
    inputs = samples.make_inputs(images=3, channels=32)
    together = ms_deform_attn(
        inputs.value, inputs.spatial_shapes, inputs.sampling_locations, inputs.attention_weights
    )
    for image in range(3):
        own = slice(image, image + 1)
        alone = ms_deform_attn(
            inputs.value[own],
            inputs.spatial_shapes,
            inputs.sampling_locations[own],
            inputs.attention_weights[own],
        )
        assert torch.equal(together[own], alone)


def test_inputs_need_not_be_contiguous(samples: Any) -> None:
    inputs = samples.make_inputs(channels=16)
    strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in inputs.tensors]
    assert not any(tensor.is_contiguous() for tensor in strided)
    output = ms_deform_attn(strided[0], inputs.spatial_shapes, strided[1], strided[2])
    expected = ms_deform_attn(
        inputs.value, inputs.spatial_shapes, inputs.sampling_locations, inputs.attention_weights
    )
    assert torch.equal(output, expected)


def test_values_beyond_32_bit_indices(samples: Any) -> None:
    far, near = samples.make_far_inputs()
    assert far.value.numel() > 2**31
    output = ms_deform_attn(
        far.value,
        far.spatial_shapes,
        far.sampling_locations,
        far.attention_weights,
        backend="native",
    )
    expected = ms_deform_attn(
        near.value,
        near.spatial_shapes,
        near.sampling_locations,
        near.attention_weights,
        backend="native",
    )
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(output, expected)


def sample_row(positions: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Sample the row of cells (1, 2, 3, 4) at positions in cells, centres at whole numbers."""
    value = torch.arange(1.0, 5.0, dtype=torch.float64).view(1, 4, 1, 1)
    columns = (torch.tensor(positions, dtype=torch.float64) + 0.5) / 4
    locations = torch.stack([columns, torch.full_like(columns, 0.5)], -1)
    locations = locations.view(1, -1, 1, 1, 1, 2).requires_grad_()
    weights = torch.ones(1, len(positions), 1, 1, 1, dtype=torch.float64)
    output = ms_deform_attn(value, [(1, 4)], locations, weights, backend="native")
    (grad,) = torch.autograd.grad(output.sum(), locations)
    return output.flatten(), grad[..., 0].flatten(), grad[..., 1].flatten()


def test_interpolation_between_and_beyond_cells() -> None:
    positions = [0.0, 0.25, 2.5, 3.0, 3.5, 4.0, 17.0, -0.5, -1.5, 1e30, -1e30]
    output, along, across = sample_row(positions)
    assert output.tolist() == [1.0, 1.25, 3.5, 4.0, 2.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]
    # One location unit is 4 cells; beyond the last centre the value falls to zero over one cell.
    assert along.tolist() == [4.0, 4.0, 4.0, -16.0, -16.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]
    assert across.tolist()[:2] == [-1.0, -1.25]


@pytest.mark.parametrize("location", [math.nan, math.inf, -math.inf])
def test_a_location_that_is_not_finite_shows_in_the_output(samples: Any, location: float) -> None:
    inputs = samples.make_inputs(channels=32).to(torch.float32)
    inputs.sampling_locations[1, 4, 2, 0, 1, 0] = location
    output = ms_deform_attn(
        inputs.value,
        inputs.spatial_shapes,
        inputs.sampling_locations,
        inputs.attention_weights,
        backend="native",
    )
    bad = output.isnan().view(2, 13, 3, 32)
    assert bad[1, 4, 2].all()
    assert bad.sum() == 32
