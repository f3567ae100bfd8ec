"""What the boxes of two queries tell about each other, as a bias of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from msdetr.model.precision import full_precision

_EPS = 1e-6
_FREQUENCIES = 16
_TEMPERATURE = 10000.0
NUM_FEATURES = 4 * 2 * _FREQUENCIES
# Pairs of an image that are worked on at once: their features alone take 512 bytes each.
_PAIRS_AT_ONCE = 32768


def relation_features(boxes: Tensor, others: Tensor) -> Tensor:
    """Describe where other boxes lie and how large they are, relative to boxes.

    Args:
        boxes: [B, R, 4] float32 (cx, cy, w, h).
        others: [B, Q, 4] float32.

    Returns:
        [B, R, Q, 128] float32: 16 sines, then 16 cosines of the shift in x, in y, of the ratio
        of widths and of heights.

    Source: Hou et al., Relation DETR, ECCV 2024, section 4.1; *DETR with Masked Duplicate
    Suppressor*, arXiv 2605.23507.
    """
    one, other = boxes[:, :, None], others[:, None]
    shift = ((one[..., :2] - other[..., :2]).abs() / (one[..., 2:] + _EPS)).add(1).log()
    ratio = (one[..., 2:] / (other[..., 2:] + _EPS)).clamp(min=_EPS).log()
    number = torch.arange(_FREQUENCIES, device=boxes.device, dtype=torch.float32)
    phase = torch.cat([shift, ratio], dim=-1)[..., None] * _TEMPERATURE ** (-number / _FREQUENCIES)
    return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(-2)


class BoxRelationBias(nn.Module):
    """Bias of attention among queries, from their boxes; equal in both directions, 0 at first.

    Args:
        heads: M.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(NUM_FEATURES, NUM_FEATURES)
        self.output = nn.Linear(NUM_FEATURES, heads)
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, boxes: Tensor) -> Tensor:
        """Compute the bias [B, M, Q, Q] of boxes [B, Q, 4], in float32 or wider.

        Blocks of rows bound the memory: features and hidden layer are far larger than the
        result, and the backward pass computes them anew.
        """
        rows = max(1, _PAIRS_AT_ONCE // boxes.shape[1])
        with full_precision(boxes):
            bias = torch.cat(
                [self._of_rows(b, boxes) for b in torch.split(boxes, rows, dim=1)], dim=2
            )
            return (bias + bias.transpose(2, 3)) / 2

    def _of_rows(self, block: Tensor, boxes: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._in_one_direction(block, boxes)
        bias: Tensor = checkpoint(
            self._in_one_direction, block, boxes, use_reentrant=False, preserve_rng_state=False
        )
        return bias

    def _in_one_direction(self, boxes: Tensor, others: Tensor) -> Tensor:
        features = relation_features(boxes, others)
        hidden = functional.relu(self.hidden(features), inplace=True)
        bias: Tensor = self.output(hidden)
        return bias.movedim(-1, 1)
