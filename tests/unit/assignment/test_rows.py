"""Selections per target as rows."""

from __future__ import annotations

import torch

from msdetr.assignment.rows import rows_of_targets


def test_every_slot_is_a_row_that_knows_its_place() -> None:
    shape = (2, 3, 4, 5)
    query = torch.arange(120).view(shape)
    rows = rows_of_targets(query, query.float(), query % 2 == 0)
    assert rows.query.tolist() == list(range(120))
    place = torch.stack([rows.layer, rows.image, rows.target])
    assert place[:, query[1, 2, 3, 4]].tolist() == [1, 2, 3]
    assert place[:, query[0, 1, 2, 3]].tolist() == [0, 1, 2]
    assert torch.equal(rows.valid, rows.query % 2 == 0)
