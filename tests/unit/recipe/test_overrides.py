"""Overrides of single fields."""

from __future__ import annotations

from typing import Any

import pytest

from msdetr.recipe.overrides import read_override


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.lr=1e-4", {"train": {"lr": 1e-4}}),
        ("data.root=/a=b", {"data": {"root": "/a=b"}}),  # split at the first sign only
        ("a=[1, 2]", {"a": (1, 2)}),
        (" a.b =x", {"a": {"b": "x"}}),
        ("a.b=", {"a": {"b": None}}),
    ],
)
def test_value_stands_at_its_key(text: str, expected: dict[str, Any]) -> None:
    entry, problems = read_override(text)
    assert entry is not None
    assert problems == []
    assert entry.plain() == expected


@pytest.mark.parametrize("text", ["train.lr", "=1", "a..b=1", ".a=1", "a.=1"])
def test_what_is_no_override_is_shown(text: str) -> None:
    entry, problems = read_override(text)
    assert entry is None
    assert [text in problem.message for problem in problems] == [True]


def test_broken_value_is_reported_at_its_key_without_a_line() -> None:
    entry, (problem,) = read_override("a.b=[1")
    assert entry is None
    assert problem.key == "a.b"
    assert problem.place is not None
    assert (problem.place.source, problem.place.line) == ("`overrides`", None)
