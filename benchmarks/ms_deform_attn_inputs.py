"""Shapes and inputs that ``ms_deform_attn.py`` measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ((100, 152), (50, 76), (25, 38), (13, 19))
SMALL_SHAPES = ((32, 32), (16, 16), (8, 8), (4, 4))


@dataclass(frozen=True)
class Case:
    """One shape. ``queries`` None stands for one per cell, near it."""

    queries: int | None
    heads: int = 8
    channels: int = 32
    points: int = 4
    spatial_shapes: tuple[tuple[int, int], ...] = SHAPES


CASES = {
    "encoder": Case(queries=None),
    "encoder-anywhere": Case(queries=20197),
    "decoder-900": Case(queries=900),
    "decoder-300": Case(queries=300),
    "small": Case(queries=None, channels=16, spatial_shapes=SMALL_SHAPES),
}


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call, and the direction of its backward."""

    value: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    locations: Tensor
    weights: Tensor
    grad_output: Tensor

    def converted(self, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Move to a device; lower only values and the gradient, as under autocast."""
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        return Inputs(
            self.value.to(device, dtype).requires_grad_(),
            self.spatial_shapes,
            self.locations.to(device, precise).requires_grad_(),
            self.weights.to(device, precise).requires_grad_(),
            self.grad_output.to(device, dtype),
        )


def make_inputs(case: Case, images: int, seed: int = 0) -> Inputs:
    """Draw the inputs of a case in float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    cells = sum(height * width for height, width in case.spatial_shapes)
    queries = cells if case.queries is None else case.queries
    samples = (images, queries, case.heads, len(case.spatial_shapes), case.points)
    if case.queries is None:
        locations = local_locations(case, torch.randn(*samples, 2, generator=generator))
    else:
        locations = torch.rand(*samples, 2, generator=generator)
    sizes = torch.tensor([[width, height] for height, width in case.spatial_shapes])
    locations = away_from_kinks(locations, sizes[:, None])
    weights = torch.randn(*samples, generator=generator).flatten(3).softmax(-1).view(samples)
    return Inputs(
        torch.randn(images, cells, case.heads, case.channels, generator=generator),
        case.spatial_shapes,
        locations,
        weights,
        torch.randn(images, queries, case.heads * case.channels, generator=generator),
    )


def away_from_kinks(locations: Tensor, sizes: Tensor) -> Tensor:
    """Move samples off cell centres, where rounding decides between two gradients."""
    positions = locations * sizes - 0.5
    near = (positions - positions.round()).abs() < 2e-3
    return locations + near * 0.01 / sizes


def local_locations(case: Case, noise: Tensor) -> Tensor:
    """Return the offsets of a new model: p + 1 cells along the head's direction, plus noise."""
    centres = [
        torch.stack(
            torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"),
            dim=-1,
        ).flatten(0, 1)
        for h, w in case.spatial_shapes
    ]
    angles = torch.arange(case.heads) * (2 * math.pi / case.heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = directions[:, None, None] * torch.arange(1, case.points + 1)[:, None]
    sizes = torch.tensor([[w, h] for h, w in case.spatial_shapes])
    return torch.cat(centres)[:, None, None, None] + (steps + noise) / sizes[:, None]


def compulsory_bytes(case: Case, images: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the bytes that forward, and forward and backward, read or write at least once."""
    inputs = make_inputs(case, 1)
    low = dtype.itemsize
    value, output = inputs.value.numel() * low, inputs.grad_output.numel() * low
    samples = (inputs.locations.numel() + inputs.weights.numel()) * 4
    forward = value + output + samples
    backward = 2 * value + output + 2 * samples
    return images * forward, images * (forward + backward)
