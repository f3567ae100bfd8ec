"""A layer of a recipe over its base."""

from __future__ import annotations

from msdetr.recipe.merging import merge
from msdetr.recipe.yaml_source import Entry, read_text


def read(text: str, source: str) -> Entry:
    entry, problems = read_text(text, source)
    assert entry is not None
    assert not problems
    return entry


def test_mappings_merge_and_lists_are_replaced() -> None:
    base = read("a: {b: 1, c: [1, 2]}\nd: 5", "base")
    layer = read("a: {c: [3]}\ne: 6", "layer")
    assert merge(base, layer).plain() == {"a": {"b": 1, "c": (3,)}, "d": 5, "e": 6}


def test_every_value_keeps_the_place_where_it_was_written() -> None:
    merged = merge(read("a: {b: 1, c: 2}", "base"), read("\na: {c: 3}", "layer"))
    kept, replaced = merged.place_of(["a", "b"]), merged.place_of(["a", "c"])
    assert kept is not None
    assert replaced is not None
    assert (kept.source, replaced.source, replaced.line) == ("base", "layer", 2)


def test_a_value_replaces_a_mapping_and_the_inputs_stay() -> None:
    base = read("a: {b: 1}", "base")
    assert merge(base, read("a: null", "layer")).plain() == {"a": None}
    assert base.plain() == {"a": {"b": 1}}
