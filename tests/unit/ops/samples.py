"""Inputs of the operator for tests."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Inputs:
    value: Tensor
    spatial_shapes: Shapes
    sampling_locations: Tensor
    attention_weights: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.sampling_locations, self.attention_weights

    @property
    def level_sizes(self) -> list[int]:
        return [size for shape in self.spatial_shapes for size in shape]

    def to(self, dtype: torch.dtype) -> Inputs:
        """Convert the values; coordinates and weights stay as precise as the kernels take them."""
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        return replace(
            self,
            value=self.value.to(dtype),
            sampling_locations=self.sampling_locations.to(precise),
            attention_weights=self.attention_weights.to(precise),
        )


def make_inputs(
    *,
    images: int = 2,
    queries: int = 13,
    heads: int = 3,
    channels: int = 8,
    spatial_shapes: Shapes = ((5, 7), (3, 2)),
    points: int = 2,
    seed: int = 0,
) -> Inputs:
    """Draw float64 inputs; a third of the samples lie outside the maps."""
    generator = torch.Generator().manual_seed(seed)
    cells = sum(height * width for height, width in spatial_shapes)
    samples = (images, queries, heads, len(spatial_shapes), points)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    return Inputs(
        value=draw(images, cells, heads, channels) - 0.5,
        spatial_shapes=spatial_shapes,
        sampling_locations=draw(*samples, 2) * 1.5 - 0.25,
        attention_weights=draw(*samples),
    )


def empty_memory(*shape: int) -> Tensor:
    """Return float32 zeros that take no memory until they are written, however many they are."""
    size = 4 * math.prod(shape)
    with tempfile.TemporaryFile() as file:  # with holes instead of zeros
        file.truncate(size)
        memory = mmap.mmap(file.fileno(), size)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def make_far_inputs(make_zeros: Callable[..., Tensor] = empty_memory) -> tuple[Inputs, Inputs]:
    """Make float32 inputs whose samples lie beyond the first 2^31 numbers of the values.

    Args:
        make_zeros: Makes the memory of the values.

    Returns:
        The inputs, and small ones with the same output: the level that holds the samples alone.
    """
    near = make_inputs(images=1, heads=1, channels=16, spatial_shapes=((8, 8),)).to(torch.float32)
    vast = (1 << 14, 1 << 13)
    value = make_zeros(1, vast[0] * vast[1] + 64, 1, 16)
    value[:, -64:] = near.value.to(value.device)
    in_vast = torch.full_like(near.sampling_locations, 0.75)
    far = Inputs(
        value=value,
        spatial_shapes=(vast, (8, 8)),
        sampling_locations=torch.cat([in_vast, near.sampling_locations], 3),
        attention_weights=near.attention_weights.repeat(1, 1, 1, 2, 1),
    )
    return far, near


def output_and_gradients(
    compute: Callable[[Tensor, Shapes, Tensor, Tensor], Tensor], inputs: Inputs
) -> tuple[Tensor, ...]:
    """Return the output and the gradients of value, locations and weights for a fixed direction."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs.tensors]
    output = compute(leaves[0], inputs.spatial_shapes, leaves[1], leaves[2])
    generator = torch.Generator().manual_seed(1)
    direction = torch.rand(output.shape, generator=generator, dtype=torch.float64) - 0.5
    gradients = torch.autograd.grad(output, leaves, direction.to(output))
    return output.detach(), *gradients


def relative_errors(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    """Return each pair's largest difference relative to the expected tensor's largest value."""
    return [
        ((a.double() - e.double()).abs().max() / e.double().abs().max()).item()
        for a, e in zip(actual, expected, strict=True)
    ]
