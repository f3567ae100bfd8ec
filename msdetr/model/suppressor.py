"""The suppressor: a last layer in which queries see more confident ones alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from msdetr.model.box_relation import BoxRelationBias
from msdetr.model.layers import FeedForward, LayerSizes, QueryAttention


def more_confident(logits: Tensor) -> Tensor:
    """Return which queries are strictly more confident than which.

    Args:
        logits: [B, Q, K] float32; a query's confidence is the highest of its logits. Half
            precision would make many queries equally confident.

    Returns:
        [B, Q, Q] bool, True where the column's query is more confident than the row's.
    """
    confidence = logits.detach().amax(dim=-1)
    return confidence[:, :, None] < confidence[:, None]


class SuppressorAttention(QueryAttention):
    """Attention to more confident queries and to learned keys, which every query sees.

    Args:
        width: C, a multiple of ``heads``.
        heads: M.
        learned_keys: G, at least 1, so that the most confident query sees something.
        relation: Add a bias that depends on the boxes of both queries, and one per learned key;
            without it, positions take part in queries and keys instead.

    Source: *DETR with Masked Duplicate Suppressor*, arXiv 2605.23507.
    """

    def __init__(self, *, width: int, heads: int, learned_keys: int, relation: bool) -> None:
        super().__init__(width=width, heads=heads)
        self.learned_keys = nn.Parameter(torch.empty(learned_keys, width))
        self.learned_values = nn.Parameter(torch.empty(learned_keys, width))
        nn.init.xavier_uniform_(self.learned_keys)
        nn.init.xavier_uniform_(self.learned_values)
        self.learned_bias, self.relation = None, None
        if relation:
            # Together the learned keys weigh as much as one.
            start = torch.full((heads, 1, learned_keys), -math.log(learned_keys))
            self.learned_bias = nn.Parameter(start)
            self.relation = BoxRelationBias(heads)

    def forward(self, content: Tensor, position: Tensor, boxes: Tensor, visible: Tensor) -> Tensor:
        """Let queries take from what they see.

        Args:
            content: [B, Q, C].
            position: [B, Q, C].
            boxes: [B, Q, 4] float32 (cx, cy, w, h) in 0..1, without gradient.
            visible: [B, Q, Q] bool, True where the row's query sees the column's.

        Returns:
            [B, Q, C].
        """
        query, key, value = self._heads(content, position)
        mask = self._mask(boxes, visible)
        if self.relation is not None:
            mask = mask.to(query.dtype)
        return self.merge(functional.scaled_dot_product_attention(query, key, value, mask))

    def weights(self, content: Tensor, position: Tensor, boxes: Tensor, visible: Tensor) -> Tensor:
        """Compute the weights [B, M, Q, Q + G] of queries and learned keys, as they are used."""
        query, key, _ = self._heads(content, position)
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        mask = self._mask(boxes, visible)
        if self.relation is None:
            return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        return (scores + mask).softmax(dim=-1)

    def bias(self, boxes: Tensor) -> Tensor:
        """Compute the bias [B, M, Q, Q + G] of all pairs and learned keys, hidden ones too."""
        assert self.relation is not None
        assert self.learned_bias is not None
        images, queries, _ = boxes.shape
        of_keys = self.learned_bias.expand(images, -1, queries, -1)
        pairs: Tensor = self.relation(boxes)
        return torch.cat([pairs, of_keys.to(pairs.dtype)], dim=-1)

    def _mask(self, boxes: Tensor, visible: Tensor) -> Tensor:
        """Return what scores are added to, or, without relation, which of them count."""
        num_learned = self.learned_keys.shape[0]
        seen = functional.pad(visible, (0, num_learned), value=True)[:, None]
        return seen if self.relation is None else self.bias(boxes).masked_fill(~seen, -torch.inf)

    def _heads(self, content: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, M, Q, D], and keys and values [B, M, Q + G, D]."""
        where = content + position if self.relation is None else content
        query, key, value = self.project(where, content)
        width = content.shape[-1]
        _, of_key, of_value = self.in_proj_bias.chunk(3)
        weights = self.in_proj_weight[width : 2 * width], self.in_proj_weight[2 * width :]
        learned_key = functional.linear(self.learned_keys, weights[0], of_key.detach())
        learned_value = functional.linear(self.learned_values, weights[1], of_value)
        return query, self._append(key, learned_key), self._append(value, learned_value)

    def _append(self, of_queries: Tensor, learned: Tensor) -> Tensor:
        """Put learned rows [G, C] after [B, M, Q, D]."""
        rows = learned.view(learned.shape[0], self.heads, -1).transpose(0, 1)
        return torch.cat([of_queries, rows.expand(of_queries.shape[0], -1, -1, -1)], dim=2)


class Suppressor(nn.Module):
    """Attention to more confident queries, then a feed-forward network; boxes stay as they are.

    Args:
        sizes: Of attention and feed-forward network.
        learned_keys: G, keys that every query sees.
        relation: Whether attention depends on the boxes; see :class:`SuppressorAttention`.

    Source: *DETR with Masked Duplicate Suppressor*, arXiv 2605.23507.
    """

    def __init__(self, sizes: LayerSizes, *, learned_keys: int, relation: bool) -> None:
        super().__init__()
        self.attention = SuppressorAttention(
            width=sizes.width, heads=sizes.heads, learned_keys=learned_keys, relation=relation
        )
        self.attention_norm = nn.LayerNorm(sizes.width)
        self.ffn = FeedForward.of(sizes)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, content: Tensor, position: Tensor, boxes: Tensor, logits: Tensor) -> Tensor:
        """Let queries learn of more confident ones.

        Args:
            content: [B, Q, C].
            position: [B, Q, C].
            boxes: [B, Q, 4] predicted boxes; no gradient passes through them.
            logits: [B, Q, K] float32, that tell how confident queries are; likewise.

        Returns:
            [B, Q, C].
        """
        attended = self.attention(content, position, boxes.detach(), more_confident(logits))
        output: Tensor = self.ffn(self.attention_norm(content + self.dropout(attended)))
        return output
