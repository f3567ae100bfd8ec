"""Multi-scale deformable attention: the one door to its backends."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from msdetr.ops.reference import ms_deform_attn_reference

__all__ = ["ms_deform_attn"]


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Sum bilinear samples of several feature levels, weighted per query, head and point.

    Args:
        value: [B, S, M, D] float; the levels' cells one after another, row by row.
        spatial_shapes: (H_l, W_l) of every level, as Python ints; S is the sum of H_l * W_l.
        sampling_locations: [B, Q, M, L, P, 2] float, (x, y) in units of the padded map; samples
            outside [0, 1] see zeros.
        attention_weights: [B, Q, M, L, P] float.
        backend: "auto" or "reference".

    Returns:
        [B, Q, M * D] float; head m fills channels m*D..(m+1)*D-1.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 3.
    """
    if backend not in {"auto", "reference"}:
        raise ValueError(f"backend must be 'auto' or 'reference', got {backend!r}")
    return ms_deform_attn_reference(value, spatial_shapes, sampling_locations, attention_weights)
