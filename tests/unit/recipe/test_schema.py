"""The schema itself: frozen, described, and without dependence on torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import ValidationError

from msdetr.recipe import Recipe
from msdetr.recipe.section import Section


def sections(model: type[Section]) -> Iterator[type[Section]]:
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from sections(kind)


@pytest.mark.parametrize("section", dict.fromkeys(sections(Recipe)))
def test_every_field_is_described(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"
        assert field.description.endswith("."), f"{section.__name__}.{name}"


def test_walk_reaches_the_nested_sections() -> None:
    names = {section.__name__ for section in sections(Recipe)}
    assert {"BackboneRecipe", "OneToManyRecipe", "EmaRecipe", "AugmentationRecipe"} <= names


def test_recipe_is_frozen_and_hashable() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(recipe.model, "width", 32)  # noqa: B010 (mypy would refuse the assignment)
    assert hash(recipe) == hash(Recipe())


def test_importing_recipes_does_not_import_torch() -> None:
    code = "import sys, msdetr.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
