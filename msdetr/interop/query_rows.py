"""The learned rows of all query groups, which published models keep in one table.

A published ``query_embed.weight`` holds the rows of the primary group, then those of the other
groups. Here every group has a table of its own, so that inference can do without the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_PRIMARY = re.compile(r"query_source\.(?:content|embedding)\.weight")
_OTHERS = re.compile(r"training_groups\.(?:hybrid\.content|independent\.content\.(\d+))\.weight")


def row_tables(names: Iterable[str]) -> list[str]:
    """List a model's tables of learned rows, the primary group's first, in published order."""
    names = list(names)
    primary = [name for name in names if _PRIMARY.fullmatch(name)]
    others = [(match, name) for name in names if (match := _OTHERS.fullmatch(name))]
    others.sort(key=lambda entry: int(entry[0][1] or 0))
    return [*primary, *(name for _, name in others)]


def join_rows(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the rows of all groups into the primary group's table, as published models do."""
    tables = row_tables(state)
    if len(tables) < 2:
        return dict(state)
    joined = torch.cat([state[name] for name in tables])
    return {
        name: joined if name == tables[0] else tensor
        for name, tensor in state.items()
        if name not in tables[1:]
    }


def count_rows(expected: Mapping[str, Tensor]) -> int:
    """Return the learned rows of all groups of a model together."""
    return sum(len(expected[name]) for name in row_tables(expected))


def split_rows(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide the primary group's table among the groups of a model.

    Args:
        state: With joined rows; without a table it is left as it is.
        expected: State dict of the model, whose tables say how many rows each group has. Rows
            beyond these belong to groups that the model does not have, and are dropped; a group
            that none are left for gets no table.
    """
    tables = row_tables(expected)
    if not tables or tables[0] not in state or state[tables[0]].ndim == 0:
        return dict(state)
    rows, divided, first = state[tables[0]], dict(state), 0
    for name in tables:
        after = first + len(expected[name])
        if first < len(rows):
            divided[name] = rows[first:after]
        first = after
    return divided
