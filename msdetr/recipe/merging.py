"""Layers of a recipe (parents, the file, overrides) -> one tree of values."""

from __future__ import annotations

from msdetr.recipe.yaml_source import Entry


def merge(base: Entry, layer: Entry) -> Entry:
    """Put a layer over a base: mappings merge key by key, everything else is replaced."""
    if not isinstance(base.value, dict) or not isinstance(layer.value, dict):
        return layer
    merged = dict(base.value)
    for key, entry in layer.value.items():
        merged[key] = merge(merged[key], entry) if key in merged else entry
    return Entry(base.place, merged)
