"""Fields that recipes once had, read as the fields that now stand for them."""

from __future__ import annotations

from msdetr.recipe.expectation import shown
from msdetr.recipe.yaml_source import Entry, RecipeProblem

_SECTION = ("supervision", "one_to_many")
_TOLERANCE = 1e-6


def replace_former_fields(layer: Entry) -> list[RecipeProblem]:
    """Replace the former fields of one layer, in place, before it is merged with others.

    ``supervision.one_to_many.class_weight`` is 1 - ``iou_weight``: given alone it sets
    ``iou_weight``, given beside it the two must agree.

    Returns:
        What is wrong with the former fields.
    """
    section: Entry | None = layer
    for key in _SECTION:
        section = section.child(key) if section else None
    if section is None or not isinstance(section.value, dict):
        return []
    former = section.value.pop("class_weight", None)
    if former is None:
        return []
    message = _replace_class_weight(former, section.value)
    key = ".".join((*_SECTION, "class_weight"))
    return [RecipeProblem(former.place, key, message)] if message else []


def _replace_class_weight(former: Entry, section: dict[str, Entry]) -> str:
    """Set ``iou_weight`` unless it is given; return what is wrong, or nothing."""
    weight = _fraction(former)
    if weight is None:
        return f"must be a number in [0, 1], got {shown(former.plain())}"
    if "iou_weight" not in section:
        section["iou_weight"] = Entry(former.place, _complement(weight))
        return ""
    iou_weight = _fraction(section["iou_weight"])
    if iou_weight is None or abs(weight - _complement(iou_weight)) <= _TOLERANCE:
        return ""
    return f"must be 1 - iou_weight = {_complement(iou_weight)}, got {weight}"


def _fraction(entry: Entry) -> float | None:
    value = entry.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= 1 else None


def _complement(weight: float) -> float:
    return round(1.0 - weight, 12)
