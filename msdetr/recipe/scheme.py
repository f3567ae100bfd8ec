"""Layers of a recipe that choose another assigner than the layers below them."""

from __future__ import annotations

from msdetr.recipe.supervision import OF_ALL_ASSIGNERS
from msdetr.recipe.yaml_source import Entry

_SECTION = ("supervision", "one_to_many")
_ASSIGNER, _TYPE, _MS_DETR, _FILE = "assigner", "type", "ms_detr", "file"


def settle_assigner(base: Entry, layer: Entry) -> tuple[Entry, Entry]:
    """Prepare a layer and what it is put over where the layer says which assigner is used.

    Another type than before takes nothing over: neither the fields of the old section nor, where
    it is not `ms_detr`, the settings of that rule beside it. What a section of type `ms_detr`
    holds is moved beside it, where those settings stand in every resolved recipe.

    Args:
        base: The layers merged so far.
        layer: The next one.

    Returns:
        Both, ready to be merged.
    """
    above, below = _section_of(layer), _section_of(base)
    if _ASSIGNER not in above:
        return base, layer
    chosen, before = _fields_of(above[_ASSIGNER]), _fields_of(below.get(_ASSIGNER))
    if chosen is None:
        return base, layer
    if _FILE in chosen and _TYPE not in chosen:
        # A file is what only one type has, so that its name may be left out.
        tagged = {_TYPE: Entry(above[_ASSIGNER].place, _FILE), **chosen}
        above = {**above, _ASSIGNER: Entry(above[_ASSIGNER].place, tagged)}
        return settle_assigner(base, _replace(layer, above))
    old = _type_of(before or {}, _MS_DETR)
    if _type_of(chosen, old) == _MS_DETR:
        beside = {key: entry for key, entry in chosen.items() if key != _TYPE}
        rest = {key: entry for key, entry in above.items() if key != _ASSIGNER}
        return _replace(base, _without(below, {_ASSIGNER})), _replace(layer, {**rest, **beside})
    if _type_of(chosen, old) == old:
        return base, layer
    kept = {*OF_ALL_ASSIGNERS} - {_ASSIGNER}
    return _replace(base, _without(below, below.keys() - kept)), layer


def _type_of(fields: dict[str, Entry], default: object) -> object:
    return fields[_TYPE].value if _TYPE in fields else default


def _section_of(tree: Entry) -> dict[str, Entry]:
    entry: Entry | None = tree
    for key in _SECTION:
        entry = entry.child(key) if entry else None
    return _fields_of(entry) or {}


def _fields_of(entry: Entry | None) -> dict[str, Entry] | None:
    return entry.value if entry is not None and isinstance(entry.value, dict) else None


def _without(fields: dict[str, Entry], keys: set[str]) -> dict[str, Entry]:
    return {key: entry for key, entry in fields.items() if key not in keys}


def _replace(tree: Entry, fields: dict[str, Entry]) -> Entry:
    """Return the tree with other fields in the section, where it has that section."""
    supervision = tree.child(_SECTION[0])
    section = None if supervision is None else supervision.child(_SECTION[1])
    if supervision is None or section is None or _fields_of(section) is None:
        return tree
    inner = {**(_fields_of(supervision) or {}), _SECTION[1]: Entry(section.place, dict(fields))}
    outer = {**(_fields_of(tree) or {}), _SECTION[0]: Entry(supervision.place, inner)}
    return Entry(tree.place, outer)
