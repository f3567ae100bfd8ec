"""Recipe -> YAML or plain values, complete: every field with its final value."""

from __future__ import annotations

from typing import Any

import yaml

from msdetr.recipe.schema import Recipe
from msdetr.recipe.yaml_source import add_resolvers

_LINE_WIDTH = 100


class _Dumper(yaml.SafeDumper):
    """Block mappings, lists in one line, and quotes wherever YAML 1.1 or 1.2 needs them."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (yaml calls it so)
        return True


def _list_node(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # YAML 1.1 breaks lines at these characters too, and would fold them: only quotes keep them.
    is_odd = any(mark in text for mark in "\x85\u2028\u2029")
    style = '"' if is_odd else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


add_resolvers(_Dumper)
_Dumper.add_representer(list, _list_node)
_Dumper.add_representer(str, _text_node)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return all fields as nested plain values that JSON and YAML can hold."""
    return recipe.model_dump(mode="json", by_alias=True)


def value_to_yaml(value: object) -> str:
    """Write the value of a field, or of a section, as YAML on one line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True,
        width=float("inf"),
    )
    return text.removesuffix("\n").removesuffix("\n...")


def recipe_to_yaml(recipe: Recipe) -> str:
    """Write all fields as YAML, which loads back equal."""
    return yaml.dump(
        recipe_to_dict(recipe),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_LINE_WIDTH,
    )


def recipe_to_commented_yaml(recipe: Recipe, origin: str) -> str:
    """Write all fields as YAML, below a comment with the description and the recipe's origin.

    Args:
        recipe: The recipe.
        origin: Name or path that the recipe was loaded from.
    """
    lines = [*recipe.description.strip().splitlines(), f"Every field of {origin}, resolved."]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in lines if line.isprintable())
    return comment + recipe_to_yaml(recipe)
