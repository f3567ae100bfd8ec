"""Overrides of single fields, as in ``train.lr=1e-4``."""

from __future__ import annotations

from msdetr.recipe.yaml_source import Entry, Place, RecipeProblem, read_text

SET = "`overrides`"
_PLACE = Place(SET)


def read_override(text: str) -> tuple[Entry | None, list[RecipeProblem]]:
    """Read ``a.b=value``: a dotted key, the first ``=``, a YAML value.

    Returns:
        Nested mappings down to the value (None if there is a mistake) and the mistakes.
    """
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        message = f"must look like key=value with a dotted key, got '{text}'"
        return None, [RecipeProblem(_PLACE, "", message)]
    entry, problems = read_text(value, SET, is_file=False, path=tuple(keys))
    if entry is None:
        return None, problems
    for name in reversed(keys):
        entry = Entry(_PLACE, {name: entry})
    return entry, problems
