"""Sub-layers of encoder and decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from msdetr.model.query_blocks import QueryBlocks


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """What the layers of encoder and decoder have in common.

    Attributes:
        width: C.
        heads: M.
        levels: L.
        points: P.
        ffn_width: Channels inside the feed-forward networks.
        dropout: Probability in 0..1.
    """

    width: int
    heads: int
    levels: int
    points: int
    ffn_width: int
    dropout: float


class FeedForward(nn.Module):
    """Two linear layers with a residual connection: LayerNorm(x + linear(ReLU(linear(x)))).

    Args:
        width: C.
        hidden_width: Channels between the two layers.
        dropout: Probability, after the activation and after the second layer.

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.3.
    """

    def __init__(self, *, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden_width)
        self.linear2 = nn.Linear(hidden_width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    @classmethod
    def of(cls, sizes: LayerSizes) -> FeedForward:
        """Make the feed-forward network of a layer."""
        return cls(width=sizes.width, hidden_width=sizes.ffn_width, dropout=sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform [..., C] to [..., C]."""
        # In place: the activations before it are the largest of the model and used nowhere else.
        hidden = self.dropout(functional.relu(self.linear1(x), inplace=True))
        output: Tensor = self.norm(x + self.dropout(self.linear2(hidden)))
        return output


class QueryAttention(nn.Module):
    """Projections of multi-head attention among queries; what they attend to is for others to say.

    Args:
        width: C, a multiple of ``heads``.
        heads: M.

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.2.
    """

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, where: Tensor, what: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make queries and keys of ``where`` and values of ``what``.

        Args:
            where: [B, Q, C].
            what: [B, Q, C].

        Returns:
            Queries, keys and values [B, M, Q, D].
        """
        images, queries, width = what.shape
        # Split, not sliced: the backward pass of slices fills tensors of full size with zeros.
        of_where, of_what = torch.split(self.in_proj_weight, [2 * width, width])
        of_query, of_key, of_value = self.in_proj_bias.chunk(3)
        # A bias of the keys adds the same to all scores of a query, which the softmax ignores.
        # Its gradient would be mere rounding, which AdamW scales up to the size of any other.
        of_both = torch.cat([of_query, of_key.detach()])
        both = functional.linear(where, of_where, of_both)
        values = functional.linear(what, of_what, of_value)
        query, key = both.view(images, queries, 2, self.heads, -1).unbind(2)
        value = values.view(images, queries, self.heads, -1)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def merge(self, attended: Tensor) -> Tensor:
        """Put the heads [B, M, Q, D] together again, as [B, Q, C]."""
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output


class SelfAttention(QueryAttention):
    """Attention among queries; the position takes part in query and key, not in the value.

    Args:
        width: C, a multiple of ``heads``.
        heads: M.

    Source: Carion et al., DETR, ECCV 2020, section A.3.
    """

    def forward(
        self, content: Tensor, position: Tensor, blocks: QueryBlocks | None = None
    ) -> Tensor:
        """Let queries exchange their content.

        Args:
            content: [B, Q, C].
            position: [B, Q, C].
            blocks: Which queries see which; None lets all see all.

        Returns:
            [B, Q, C].
        """
        attend = functional.scaled_dot_product_attention if blocks is None else blocks.attend
        return self.merge(attend(*self.project(content + position, content)))
