"""1,000 mutated recipes: each is accepted, or refused with one line per problem."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msdetr.recipe import load_recipe, packaged_recipes, recipe_to_dict, recipe_to_yaml

NUM_EACH = int(os.environ.get("MSDETR_FUZZ_COUNT", "200"))
FUZZING = settings(
    max_examples=NUM_EACH,
    derandomize="MSDETR_FUZZ_SEED" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NAMES = [info.name for info in packaged_recipes()]
TREES = [recipe_to_dict(load_recipe(name)) for name in NAMES]
TEXTS = [
    *(info.path.read_text() for info in packaged_recipes()),
    *(recipe_to_yaml(load_recipe(name)) for name in ("shapes_tiny", "ddetr_pp_900q")),
]

# What YAML readers, number parsers and terminals stumble over.
SNIPPETS = [
    *(
        "\t",
        "\n",
        "\r",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\ufeff",
        "\ud800",
        "é",
        "💥",
    ),
    *(
        ":",
        ": ",
        "- ",
        "? ",
        "#",
        "'",
        '"',
        "|\n",
        ">-\n",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a ",
        "*a",
        "!",
    ),
    *("---\n", "...\n", "%YAML 9.9\n", "<<: *a\n", "<<: {a: 1}\n", "? [a]\n: 1\n", "? {a: 1}\n"),
    *("!!python/object/apply:os.system ['true'] ", "!!binary aGk= ", "!!set {a} ", "!!int x "),
    *("1e400", "-1e-400", ".nan", "-.inf", "0x10", "0o7", "1_000", "9" * 400, "-0", "1e5", "12:30"),
    *("null", "~", "true", "no", "2026-01-02", "=", "[[[]]]", "{{}}", "[" * 3000, "{a: " * 2000),
    *("extends: shapes_tiny\n", "extends: [a]\n", "extends: ..\n", f"extends: {'x' * 5000}\n"),
    *("model:\n", "model: 3\n", "model: null\n", "train: [1, 2]\n", "  epochs: 3\n", "a.b: 1\n"),
]
edits = st.tuples(
    st.sampled_from(["cut", "cut", "repeat", "insert", "insert", "swap", "replace", "drop line"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 40),
    st.sampled_from(SNIPPETS),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=8),
    st.sampled_from(["a", "baseline", "none", "no", "1e-4", "resnet18", "fp16", "x" * 3000]),
    st.sampled_from([10**400, -(2**63), 2**64, "a\nb", "\x1b[2J", "\x85", 5e-324, 1e308]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def edit_text(text: str, edit: tuple[str, float, int, str]) -> str:
    """Change a text at a place, given as the fraction of its length."""
    action, place, length, snippet = edit
    start = int(place * len(text))
    end = start + length
    match action:
        case "cut":
            return text[:start] + text[end:]
        case "repeat":
            return text[:end] + text[start:]
        case "insert":
            return text[:start] + snippet + text[start:]
        case "replace":
            return text[:start] + snippet + text[end:]
        case "swap":
            middle = (start + end) // 2
            return text[:start] + text[middle:end] + text[start:middle] + text[end:]
    lines = text.splitlines(keepends=True)
    at = int(place * len(lines))
    return "".join([*lines[:at], *lines[at + 1 :]])


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from(TEXTS))
    for edit in draw(st.lists(edits, min_size=1, max_size=4)):
        text = edit_text(text, edit)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    if content and draw(st.integers(0, 9)) == 0:
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every value below mappings and lists."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))
    return [path for key, value in items for path in ((*above, key), *places(value, (*above, key)))]


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Values that a field could take if it can take this one."""
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.sampled_from([value + 1, value - 1, 2 * value, value // 2, float(value)])
        case float():
            return st.sampled_from([value * 2, value / 2, value, int(value), f"{value:e}"])
        case list() | tuple():
            return st.sampled_from([[], [*value, *value], list(value)[:1], list(value)[::-1]])
        case _:
            return st.sampled_from([value, None, "none", "c", "resnet50", "group", {}])


@st.composite
def mutated_trees(draw: st.DrawFn) -> dict[str, Any]:
    tree = copy.deepcopy(draw(st.sampled_from(TREES)))
    if draw(st.integers(0, 3)) == 0:
        tree["extends"] = draw(st.one_of(st.sampled_from([*NAMES, "_base/ddetr.yaml"]), values))
    for _ in range(draw(st.integers(1, 3))):
        *parents, key = draw(st.sampled_from(places(tree)))
        section: Any = tree
        for parent in parents:
            section = section[parent]
        match draw(st.sampled_from(["set", "tweak", "tweak", "tweak", "drop", "add", "move"])):
            case "set":
                section[key] = draw(values)
            case "tweak":
                section[key] = draw(alike(section[key]))
            case "drop" if len(tree) > 1:
                del section[key]
            case "add" if isinstance(section, dict):
                section[draw(st.one_of(st.text(max_size=6), st.integers()))] = draw(values)
            case "move":
                tree[str(key)] = section[key]
    return tree


def validate(ask: Callable[..., Any], path: Path, content: bytes, *options: str) -> bool:
    path.write_bytes(content)
    answer = ask("recipes", "validate", str(path), *options)
    accepted = bool(answer.check())
    assert accepted == (answer.out == f"{path}: valid\n")
    if not accepted:
        assert answer.err.startswith(f"{path}: ")
    return accepted


@pytest.mark.slow
def test_mutated_text_is_accepted_or_refused(ask: Callable[..., Any], tmp_path: Path) -> None:
    seen: Counter[bool] = Counter()

    @FUZZING
    @given(content=mutated_bytes())
    def try_out(content: bytes) -> None:
        seen[validate(ask, tmp_path / "mutated.yaml", content)] += 1

    try_out()
    assert seen.total() >= NUM_EACH
    assert min(seen[True], seen[False]) > 25


@pytest.mark.slow
def test_mutated_structure_is_accepted_or_refused(ask: Callable[..., Any], tmp_path: Path) -> None:
    seen: Counter[bool] = Counter()
    override = st.tuples(st.sampled_from([".".join(map(str, p)) for p in places(TREES[0])]), values)

    @FUZZING
    @given(tree=mutated_trees(), override=st.none() | override)
    def try_out(tree: dict[str, Any], override: tuple[str, Any] | None) -> None:
        content = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        options = []
        if override is not None:
            flow = yaml.safe_dump(override[1], default_flow_style=True, width=10**9)
            options = ["--set", f"{override[0]}={flow}"]
        seen[validate(ask, tmp_path / "mutated.yaml", content, *options)] += 1

    try_out()
    assert seen.total() >= NUM_EACH
    assert min(seen[True], seen[False]) > 10
