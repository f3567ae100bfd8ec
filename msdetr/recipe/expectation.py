"""What a field expects, in words, read from the JSON schema of the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from msdetr.recipe.section import UNIT

SchemaNode = dict[str, Any]

_NAMES = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "object": "a mapping",
    "null": "null",
}
_MAX_SHOWN = 60


@dataclass(frozen=True)
class SchemaPlace:
    """A field or a section in a schema.

    Attributes:
        key: Dotted key.
        node: Its schema.
        is_section: Whether it holds fields rather than a value.
        is_required: Whether its section cannot be without it.
        of_type: The ``type`` that its section must have; empty where it has no types.
    """

    key: str
    node: SchemaNode
    is_section: bool
    is_required: bool
    of_type: str


class SchemaView:
    """Fields of a recipe, looked up by their path in a JSON schema.

    Args:
        schema: The schema of the whole recipe, with its ``$defs``.
    """

    def __init__(self, schema: SchemaNode) -> None:
        self._schema = schema

    def written(self, path: Sequence[str | int]) -> tuple[str | int, ...]:
        """Return the path as it is written: without the types that pydantic puts into it."""
        node: SchemaNode | None = self._schema
        written: list[str | int] = []
        for key in path:
            types = self._types(node or {})
            if key in types:
                node = types[key]
            else:
                written.append(key)
                node = self._step(node or {}, key)
        return tuple(written)

    def expected(self, path: Sequence[str | int]) -> str:
        """Describe what the field at a path must be: ``an integer >= 1``, ``one of a, b``."""
        return self.described(self._node(path))

    def unknown_type(self, path: Sequence[str | int], found: str) -> str:
        """Says that a section's type is unknown and names the nearest valid one."""
        types = [str(name) for name in self._types(self._node(path))]
        close = get_close_matches(found, types, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"valid types are {', '.join(types)}"
        return f"unknown type '{found}'; {hint}"

    def unknown_key(self, path: Sequence[str | int]) -> str:
        """Say that a key is unknown and name the nearest valid one."""
        key = str(path[-1])
        section, _, name = key.rpartition(".")
        siblings = [name for name, _ in self._children(self._node(path[:-1]))]
        close = get_close_matches(key, siblings, n=1)
        if not close:
            close = [full for full in self.keys() if full.rpartition(".")[2] == name][:1]
        if section and close:
            return f"unknown key; write '{name}' nested in its section '{section}'"
        if close:
            return f"unknown key; did you mean '{close[0]}'?"
        return f"unknown key; valid keys are {', '.join(siblings)}"

    def is_path(self, path: Sequence[str | int]) -> bool:
        """Say whether a field exists and may be a path."""
        node: SchemaNode | None = self._schema
        for key in path:
            node = None if node is None else self._step(node, key)
        return node is not None and any(o.get("format") == "path" for o in self._options(node))

    def keys(self) -> list[str]:
        """List the dotted keys of all fields that are not sections."""
        return [place.key for place in self.places() if not place.is_section]

    def places(self) -> list[SchemaPlace]:
        """List all fields and sections, each section before what it holds."""
        return list(self._walk(self._schema, ""))

    def _walk(self, node: SchemaNode, prefix: str) -> Iterator[SchemaPlace]:
        for option in self._options(node):
            required, properties = option.get("required", ()), option.get("properties", {})
            of_type = properties.get("type", {}).get("const", "")
            for name, child in properties.items():
                is_section = any(True for _ in self._children(child))
                yield SchemaPlace(prefix + name, child, is_section, name in required, of_type)
                if is_section:
                    yield from self._walk(child, f"{prefix}{name}.")

    def _node(self, path: Sequence[str | int]) -> SchemaNode:
        node = self._schema
        for key in path:
            found = self._types(node).get(key) or self._step(node, key)
            assert found is not None, f"the schema has no {key}"
            node = found
        return node

    def unit_of(self, node: SchemaNode) -> str:
        """Return the unit of the field with a schema, or of what it lists; empty without one."""
        for option in [node, *self._options(node)]:
            unit = option.get(UNIT) or option.get("items", {}).get(UNIT)
            if unit:
                return str(unit)
        return ""

    def choices_of(self, node: SchemaNode) -> list[str]:
        """List the words that the field with a schema may be; none where they are not listed."""
        words = (self._words(option) for option in self._options(node))
        return list(dict.fromkeys(word for found in words for word in found))

    def _words(self, node: SchemaNode) -> list[str]:
        if node.get("type") == "boolean":
            return ["true", "false"]
        if node.get("type") == "null":
            return ["null"]
        return [str(word) for word in node.get("enum", [node["const"]] if "const" in node else [])]

    def _step(self, node: SchemaNode, key: str | int) -> SchemaNode | None:
        if not isinstance(key, int):
            return dict(self._children(node)).get(key) or self._value_of_free_key(node)
        if "items" in node:
            items: SchemaNode = node["items"]
            return items
        places: list[SchemaNode] = node.get("prefixItems", [])
        return places[key] if key < len(places) else None

    def _value_of_free_key(self, node: SchemaNode) -> SchemaNode | None:
        """Return what a mapping with keys of the user's choice holds under each of them."""
        values = (option.get("additionalProperties") for option in self._options(node))
        return next((value for value in values if isinstance(value, dict)), None)

    def _types(self, node: SchemaNode) -> dict[str | int, SchemaNode]:
        """Return the alternatives that a ``type`` tells apart, by type; none elsewhere."""
        mapping: dict[str, str] = node.get("discriminator", {}).get("mapping", {})
        return {name: {"$ref": reference} for name, reference in mapping.items()}

    def _children(self, node: SchemaNode) -> Iterator[tuple[str, SchemaNode]]:
        for option in self._options(node):
            yield from option.get("properties", {}).items()

    def _options(self, node: SchemaNode) -> list[SchemaNode]:
        """Resolve references: return the node, or the alternatives that it allows."""
        if "$ref" in node:
            return [self._schema["$defs"][node["$ref"].rpartition("/")[2]]]
        options = [*node.get("anyOf", []), *node.get("oneOf", [])]
        return [found for option in options for found in self._options(option)] or [node]

    def described(self, node: SchemaNode) -> str:
        """Describe what the field with a schema must be."""
        described = (self._describe_option(option) for option in self._options(node))
        return " or ".join(dict.fromkeys(described))

    def _describe_option(self, node: SchemaNode) -> str:
        if "const" in node:
            return str(node["const"])
        if "enum" in node:
            return f"one of {', '.join(node['enum'])}"
        if "prefixItems" in node:
            items = node["prefixItems"]
            return f"a list of {len(items)}, each {self.described(items[0])}"
        if "items" in node:
            length = f" of at least {node['minItems']}" if "minItems" in node else ""
            return f"a list{length}, each {self.described(node['items'])}"
        if node.get("format") == "path":
            return "a path"
        return _NAMES[node["type"]] + _bounds(node)


def _bounds(node: SchemaNode) -> str:
    minimum, maximum = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    low, high = (minimum if above is None else above), (maximum if below is None else below)
    text = ""
    if low is not None and high is not None:
        brackets = ("[" if above is None else "(", "]" if below is None else ")")
        text = f" in {brackets[0]}{low}, {high}{brackets[1]}"
    elif low is not None:
        text = f" {'>=' if above is None else '>'} {low}"
    if "multipleOf" in node:
        text += f", a multiple of {node['multipleOf']}"
    return text


def shown(value: object) -> str:
    """Format a value for a message: short, and as YAML spells it."""
    if isinstance(value, dict):
        return "a mapping"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
