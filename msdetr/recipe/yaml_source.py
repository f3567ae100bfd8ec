"""YAML text -> values that know the file and line they come from.

Scalars follow YAML 1.2: ``1e-4`` is a number, ``no``, ``off`` and dates are text. Anchors, tags and
duplicate keys are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

Scalar = str | int | float | bool | None
Plain = Scalar | tuple["Plain", ...] | dict[str, "Plain"]
KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,18}", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)
_CONSTRUCTORS: dict[str, Callable[[str], Scalar]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(re.sub(r"\.(?=[iInN])", "", text)),
    "str": str,
}


def add_resolvers(handler: type[yaml.SafeLoader] | type[yaml.SafeDumper]) -> None:
    """Make a YAML class resolve plain scalars as in YAML 1.2's core schema."""
    for name, pattern, first in _RESOLVERS:
        starts = [*first, ""] if name == "null" else list(first)
        handler.add_implicit_resolver(_TAG + name, re.compile(f"^(?:{pattern})$"), starts)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


add_resolvers(_Loader)


@dataclass(frozen=True)
class Place:
    """Where a value was written.

    Attributes:
        source: Name of the file, as the reader should see it, or what stands for overrides.
        line: Line in the file, from 1; None for an override.
    """

    source: str
    line: int | None = None


@dataclass(frozen=True)
class RecipeProblem:
    """Something wrong at a place, before it is formatted.

    Attributes:
        place: Where it was written; None if nowhere.
        key: Dotted key; may be empty.
        message: What was expected, what was found.
    """

    place: Place | None
    key: str
    message: str


@dataclass
class Entry:
    """A value with its place; children of mappings and lists are entries too."""

    place: Place
    value: Scalar | dict[str, Entry] | list[Entry]

    def child(self, key: str | int) -> Entry | None:
        """Return the entry at a mapping's key or a list's index; None if there is none."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None

    def plain(self) -> Plain:
        """Return the value without places; lists become tuples."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return tuple(entry.plain() for entry in self.value)
        return self.value

    def place_of(self, path: Sequence[str | int], *, exact: bool = False) -> Place | None:
        """Find the place of a value, else of its nearest written ancestor below the root.

        Args:
            path: Keys and indices from this entry.
            exact: Whether to return None rather than an ancestor's place.
        """
        entry, place = self, None
        for key in path:
            child = entry.child(key)
            if child is None:
                return None if exact else place
            entry, place = child, child.place
        return place


@dataclass
class _Reader:
    source: str
    is_file: bool
    problems: list[RecipeProblem] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def place(self, mark: yaml.Mark) -> Place:
        return Place(self.source, mark.line + 1 if self.is_file else None)

    def reject(self, mark: yaml.Mark, path: KeyPath, message: str) -> Entry:
        self.problems.append(RecipeProblem(self.place(mark), dotted(path), message))
        return Entry(self.place(mark), None)

    def read(self, node: yaml.Node, path: KeyPath, mark: yaml.Mark) -> Entry:
        if id(node) in self.seen:
            return self.reject(mark, path, "anchors are not supported; write the value out")
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Entry(self.place(mark), dict(self.read_pairs(node, path)))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = enumerate(node.value)
            return Entry(
                self.place(mark), [self.read(n, (*path, i), n.start_mark) for i, n in items]
            )
        try:
            return Entry(self.place(mark), _CONSTRUCTORS[node.tag.removeprefix(_TAG)](node.value))
        except (KeyError, TypeError, ValueError):
            return self.reject(mark, path, f"the YAML tag {node.tag} is not supported here")

    def read_pairs(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, Entry]]:
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                self.reject(mark, path, "a key must be text")
                continue
            key = key_node.value
            if key in lines:
                message = "the key occurs twice"
                message += f", first in line {lines[key]}" if self.is_file else ""
                self.reject(mark, (*path, key), message)
                continue
            lines[key] = mark.line + 1
            yield key, self.read(value_node, (*path, key), mark)


def dotted(path: Sequence[str | int]) -> str:
    """Join keys and indices: ``data.mean.0``."""
    return ".".join(str(key) for key in path)


def read_text(
    text: str, source: str, *, is_file: bool = True, path: KeyPath = ()
) -> tuple[Entry | None, list[RecipeProblem]]:
    """Read one YAML document.

    Args:
        text: The document.
        source: Name for places.
        is_file: Whether places have lines, and comments are left out; elsewhere a comment is a
            problem, because nobody writes one there on purpose.
        path: Where the document's root will stand, for the keys of problems.

    Returns:
        The root (None if the text cannot be parsed) and everything wrong with it.
    """
    reader = _Reader(source, is_file)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        comment = None if is_file else _find_comment(text)
        if comment is not None:
            message = f"YAML reads '{comment}' as a comment; quote the value"
            return None, [RecipeProblem(Place(source), dotted(path), message)]
        if node is None:
            return Entry(Place(source, 1 if is_file else None), None), []
        return reader.read(node, path, node.start_mark), reader.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = reader.place(mark) if mark else Place(source)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return None, [RecipeProblem(place, dotted(path), f"broken YAML: {what}")]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"broken YAML: character #x{error.character:02x} is not allowed"
        return None, [
            RecipeProblem(Place(source, line if is_file else None), dotted(path), message)
        ]
    except RecursionError:
        return None, [RecipeProblem(Place(source), dotted(path), "broken YAML: nested too deeply")]


def _find_comment(text: str) -> str | None:
    """Return the first comment of a document that can be parsed; None without any."""
    end = 0
    for token in yaml.scan(text, Loader=_Loader):
        between = text[end : token.start_mark.index]
        if "#" in between:
            return between[between.index("#") :].strip()
        header = text[token.start_mark.index :].partition("\n")[0]
        # What follows the sign of a block is no part of its text.
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">") and "#" in header:
            return header[header.index("#") :].strip()
        end = max(end, token.end_mark.index)
    return None


def read_file(file: Path, source: str) -> tuple[Entry | None, list[RecipeProblem]]:
    """Read a YAML file as ``read_text`` does; unreadable files are problems, too."""
    try:
        return read_text(file.read_text(encoding="utf-8"), source)
    except UnicodeDecodeError:
        return None, [RecipeProblem(Place(source), "", "must be a text file in UTF-8")]
    except OSError as error:
        return None, [RecipeProblem(Place(source), "", f"cannot be read: {error.strerror}")]
