"""One decoder layer, and where its one-to-many features leave."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor, nn

from msdetr.model.deformable_attention import DeformableAttention
from msdetr.model.layers import FeedForward, LayerSizes, SelfAttention
from msdetr.model.memory import Memory
from msdetr.model.query_blocks import QueryBlocks


class LayerOrder(Enum):
    """Which attention of a decoder layer comes first; the feed-forward network is last."""

    SELF_ATTENTION_FIRST = "self_attention_first"
    CROSS_ATTENTION_FIRST = "cross_attention_first"


class OneToManySource(Enum):
    """Where in a decoder layer the features of the one-to-many predictions leave."""

    NONE = "none"
    FIRST_ATTENTION = "first_attention"
    LAYER_OUTPUT = "layer_output"


@dataclass(frozen=True)
class LayerOutput:
    """Features that a decoder layer yields.

    Attributes:
        content: [B, Q, C], for the one-to-one predictions and the next layer.
        one_to_many: [B, Q', C] features of the one-to-many predictions of the first Q' queries,
            or None.
    """

    content: Tensor
    one_to_many: Tensor | None


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention and feed-forward network of the queries.

    Args:
        sizes: Of attention and feed-forward networks.
        order: Which attention comes first.
        one_to_many: Where the one-to-many features leave.
        extra_ffn: Pass the features that leave after the first attention through a feed-forward
            network of their own.

    Source: Zhao et al., MS-DETR, CVPR 2024, section 3.3 and figure 4.
    """

    def __init__(
        self,
        sizes: LayerSizes,
        *,
        order: LayerOrder,
        one_to_many: OneToManySource,
        extra_ffn: bool = False,
    ) -> None:
        super().__init__()
        self.order = order
        self.one_to_many = one_to_many
        self.cross_attention = DeformableAttention(
            width=sizes.width, heads=sizes.heads, levels=sizes.levels, points=sizes.points
        )
        self.cross_attention_norm = nn.LayerNorm(sizes.width)
        self.self_attention = SelfAttention(width=sizes.width, heads=sizes.heads)
        self.self_attention_norm = nn.LayerNorm(sizes.width)
        self.ffn = FeedForward.of(sizes)
        self.extra_ffn = FeedForward.of(sizes) if extra_ffn else None
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        references: Tensor,
        memory: Memory,
        *,
        blocks: QueryBlocks | None = None,
        num_one_to_many: int = 0,
    ) -> LayerOutput:
        """Update the queries.

        Args:
            content: [B, Q, C].
            position: [B, Q, C].
            references: [B, Q, L, 2 or 4], relative to the padded maps.
            memory: What the queries look at.
            blocks: Which queries see which; None lets all see all.
            num_one_to_many: Queries, the first ones, whose one-to-many features are computed
                too, if the layer has any.
        """
        if self.order is LayerOrder.CROSS_ATTENTION_FIRST:
            first = self._attend_memory(content, position, references, memory)
            second = self._attend_queries(first, position, blocks)
        else:
            first = self._attend_queries(content, position, blocks)
            second = self._attend_memory(first, position, references, memory)
        output = self.ffn(second)
        if num_one_to_many == 0:
            return LayerOutput(output, None)
        if num_one_to_many < content.shape[1]:
            first, many = first[:, :num_one_to_many], output[:, :num_one_to_many]
            return LayerOutput(output, self._branch(first, many))
        return LayerOutput(output, self._branch(first, output))

    def _attend_memory(
        self, content: Tensor, position: Tensor, references: Tensor, memory: Memory
    ) -> Tensor:
        attended = self.cross_attention(content + position, references, memory)
        output: Tensor = self.cross_attention_norm(content + self.dropout(attended))
        return output

    def _attend_queries(
        self, content: Tensor, position: Tensor, blocks: QueryBlocks | None
    ) -> Tensor:
        attended = self.self_attention(content, position, blocks)
        output: Tensor = self.self_attention_norm(content + self.dropout(attended))
        return output

    def _branch(self, first: Tensor, output: Tensor) -> Tensor | None:
        match self.one_to_many:
            case OneToManySource.NONE:
                return None
            case OneToManySource.LAYER_OUTPUT:
                return output
            case OneToManySource.FIRST_ATTENTION:
                return first if self.extra_ffn is None else self.extra_ffn(first)
