"""Which queries see which: blocks of queries that self-attention keeps apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class QueryBlock:
    """Equal blocks of queries, one after another.

    Attributes:
        size: Queries of a block.
        count: Number of blocks.
        sees_first: Whether each also sees the very first block of all; otherwise each sees
            itself alone.
    """

    size: int
    count: int = 1
    sees_first: bool = False

    @property
    def num_queries(self) -> int:
        """Queries of all these blocks."""
        return self.size * self.count


@dataclass(frozen=True)
class QueryBlocks:
    """Self-attention within blocks of queries, as if each were alone.

    Attributes:
        blocks: In the order of the queries; the first one has count 1 and sees itself alone.
    """

    blocks: tuple[QueryBlock, ...]

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """Return [Q, Q] bool, True where the row's query sees the column's."""
        num_queries = sum(block.num_queries for block in self.blocks)
        visible = torch.zeros(num_queries, num_queries, dtype=torch.bool, device=device)
        for first, block in self._placed():
            rows = slice(first, first + block.num_queries)
            visible[rows, rows] = _block_diagonal(block, device)
            if block.sees_first:
                visible[rows, : self.blocks[0].size] = True
        return visible

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend within every block, without a mask over all queries.

        Blocks of one size become images of a larger batch; only what sees a block beside its own
        takes a mask, of its own rows.

        Args:
            query: [B, M, Q, D].
            key: [B, M, Q, D].
            value: [B, M, Q, D].

        Returns:
            [B, M, Q, D].
        """
        # Split, not sliced: the backward pass of slices fills tensors of full size with zeros.
        sizes = [block.num_queries for block in self.blocks]
        queries, keys, values = (torch.split(each, sizes, dim=2) for each in (query, key, value))
        first = [each[0][:, :, : self.blocks[0].size] for each in (keys, values)]
        attended = []
        for block, *own in zip(self.blocks, queries, keys, values, strict=True):
            if block.sees_first:
                attended.append(self._attend_beside_first(block, own, *first))
            elif block.count == 1:
                own_query, own_key, own_value = own
                attended.append(scaled_dot_product_attention(own_query, own_key, own_value))
            else:
                attended.append(_attend_folded(block, *own))
        return attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)

    def _attend_beside_first(
        self, block: QueryBlock, own: list[Tensor], first_key: Tensor, first_value: Tensor
    ) -> Tensor:
        query, own_key, own_value = own
        keys = torch.cat([first_key, own_key], dim=2)
        values = torch.cat([first_value, own_value], dim=2)
        if block.count == 1 or block.num_queries == 0:
            return scaled_dot_product_attention(query, keys, values)
        of_first = torch.ones(
            block.num_queries, self.blocks[0].size, dtype=torch.bool, device=query.device
        )
        visible = torch.cat([of_first, _block_diagonal(block, query.device)], dim=1)
        return scaled_dot_product_attention(query, keys, values, visible)

    def _placed(self) -> Iterator[tuple[int, QueryBlock]]:
        """Blocks with the position of their first query."""
        first = 0
        for block in self.blocks:
            yield first, block
            first += block.num_queries


def _block_diagonal(block: QueryBlock, device: torch.device | str) -> Tensor:
    """Return [count * size, count * size] bool, True within each of the blocks."""
    number = torch.arange(block.count, device=device).repeat_interleave(block.size)
    return number[:, None] == number


def _attend_folded(block: QueryBlock, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (_fold(tensor, block) for tensor in (query, key, value))
    return _unfold(scaled_dot_product_attention(query, key, value), block)


def _fold(tensor: Tensor, block: QueryBlock) -> Tensor:
    """Fold [B, M, count * size, D] to [B * count, M, size, D]."""
    images, heads, _, channels = tensor.shape
    split = tensor.reshape(images, heads, block.count, block.size, channels)
    return split.transpose(1, 2).flatten(0, 1)


def _unfold(tensor: Tensor, block: QueryBlock) -> Tensor:
    """Unfold [B * count, M, size, D] to [B, M, count * size, D]."""
    _, heads, size, channels = tensor.shape
    split = tensor.view(-1, block.count, heads, size, channels)
    return split.transpose(1, 2).flatten(2, 3)
