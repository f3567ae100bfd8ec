"""YAML as recipes are written: scalars, places, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdetr.recipe.yaml_source import Plain, read_file, read_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("007", 7),
        ("no", "no"),  # YAML 1.1 would read False
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("0x10", "0x10"),
        ("'1'", "1"),
        ("~", None),
        ("TRUE", True),
        ("-.inf", float("-inf")),
        ("1" * 19, float("1" * 19)),
        ("", None),
    ],
)
def test_scalars(text: str, expected: Plain) -> None:
    entry, problems = read_text(text, "here")
    assert entry is not None
    assert problems == []
    found = entry.plain()
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a", "first in line 1"),
        ("a: &x 1\nb: *x", 2, "b", "anchors"),
        ("a:\n  b: !!set {c}", 2, "a.b", "tag"),
        ("? [1]\n: 2", 1, "", "key must be text"),
        ("a: 1\nb: [", 2, "", "broken YAML"),
        ("a: 1\nb: \x07", 2, "", "#x07"),
    ],
)
def test_what_is_refused_names_line_and_key(text: str, line: int, key: str, part: str) -> None:
    _, (problem,) = read_text(text, "here")
    assert problem.place is not None
    assert (problem.place.line, problem.key) == (line, key)
    assert part in problem.message


def test_place_of_what_is_not_written_is_its_nearest_ancestor() -> None:
    entry, _ = read_text("a:\n  b:\n    c: 1", "here")
    assert entry is not None
    place = entry.place_of(["a", "b", "missing"])
    assert place is not None
    assert place.line == 2
    assert entry.place_of(["a", "b", "missing"], exact=True) is None
    assert entry.place_of(["missing"]) is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    for name, part in (("latin.yaml", "UTF-8"), ("missing.yaml", "cannot be read")):
        entry, (problem,) = read_file(tmp_path / name, name)
        assert entry is None
        assert part in problem.message
