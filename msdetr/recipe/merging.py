"""Layers of a recipe (parents, the file, overrides) -> one tree of values."""

from __future__ import annotations

from .yaml_source import Entry

SCORE_WEIGHTS = (frozenset({"iou_weight", "class_weight"}), ("supervision", "one_to_many"))


def merge(base: Entry, layer: Entry, path: tuple[str, ...] = ()) -> Entry:
    """Puts a layer over a base: mappings merge key by key, everything else is replaced.

    The two weights of the one-to-many score complement each other, so a layer that gives one of
    them also drops the other of the base.
    """
    if not isinstance(base.value, dict) or not isinstance(layer.value, dict):
        return layer
    merged = dict(base.value)
    pair, section = SCORE_WEIGHTS
    if path == section and pair & layer.value.keys():
        merged = {key: entry for key, entry in merged.items() if key not in pair}
    for key, entry in layer.value.items():
        merged[key] = merge(merged[key], entry, (*path, key)) if key in merged else entry
    return Entry(base.place, merged)
