"""Overrides of single fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msdetr.recipe import load_recipe, recipe_to_yaml
from msdetr.recipe.overrides import read_override, write_override


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.lr=1e-4", {"train": {"lr": 1e-4}}),
        ("data.root=/a=b", {"data": {"root": "/a=b"}}),  # split at the first sign only
        ("a=[1, 2]", {"a": (1, 2)}),
        (" a.b =x", {"a": {"b": "x"}}),
        ("a.b=", {"a": {"b": None}}),
    ],
)
def test_value_stands_at_its_key(text: str, expected: dict[str, Any]) -> None:
    entry, problems = read_override(text)
    assert entry is not None
    assert problems == []
    assert entry.plain() == expected


PATH_TEXTS = (
    *("batch #2", "# drafts", "2024", "007", "1e3", "0x1F", "true", "no", ".inf", "2026-01-02"),
    *("[new]", "{a: b}", "a: b", "- a", "@home", "`a`", "!tag", "&a", "*a", "%a", "| b", "'a'"),
    *(" lead", "trail ", "a=b", "?", "a\tb", "a\nb", "\udcff", "\x07", "null/", "./null"),
)
PATH_FIELDS = ("data.root", "data.train.images", "data.val.annotations")


@pytest.mark.parametrize("text", PATH_TEXTS)
@pytest.mark.parametrize("field", PATH_FIELDS)
def test_a_path_is_the_text_as_it_stands(field: str, text: str, tmp_path: Path) -> None:
    recipe = load_recipe("ddetr_300q", [f"{field}={text}"])
    (tmp_path / "dumped.yaml").write_text(recipe_to_yaml(recipe), encoding="utf-8")
    for loaded in (recipe, load_recipe(tmp_path / "dumped.yaml")):
        found: Any = loaded
        for name in field.split("."):
            found = getattr(found, name)
        assert found == Path(text)


def test_the_file_of_an_assigner_is_a_path_as_well() -> None:
    entry, problems = read_override("supervision.one_to_many.assigner.file=rule #3: new.py")
    assert problems == []
    assert entry is not None
    assert entry.plain() == {
        "supervision": {"one_to_many": {"assigner": {"file": "rule #3: new.py"}}}
    }


@pytest.mark.parametrize("text", ["data.root=", "data.root=null", "data.root = null"])
def test_a_path_can_be_taken_away(text: str) -> None:
    assert load_recipe("ddetr_300q", ["data.root=/a", text]).data.root is None


def test_blanks_around_the_sign_are_no_part_of_a_path() -> None:
    assert load_recipe("ddetr_300q", ["data.root = a b"]).data.root == Path("a b")


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("description=note #2", "#2"),
        ("train.lr=1e-4 # low", "# low"),
        ("train.seed=#7", "#7"),
        ("data.train={images: a} #b", "#b"),
        ("data.mean=[0.1, # red\n 0.2, 0.3]", "# red"),
        ("description=| # kept?\n text", "# kept?"),
        ("description=text\n# more\n", "# more"),
    ],
)
def test_a_comment_drops_nothing_unsaid(text: str, comment: str) -> None:
    entry, (problem,) = read_override(text)
    assert entry is None
    assert problem.key == text.partition("=")[0]
    assert f"YAML reads '{comment}' as a comment" in problem.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("description='note #2'", "note #2"),
        ('description="a # b"', "a # b"),
        ("description=a#b", "a#b"),
        ("description=|\n a #b\n", "a #b\n"),
        ("description=>-\n # a\n", "# a"),
    ],
)
def test_a_sign_within_a_text_is_no_comment(text: str, expected: str) -> None:
    entry, problems = read_override(text)
    assert problems == []
    assert entry is not None
    assert entry.plain() == {"description": expected}


@pytest.mark.parametrize("text", ["train.lr", "=1", "a..b=1", ".a=1", "a.=1"])
def test_what_is_no_override_is_shown(text: str) -> None:
    entry, problems = read_override(text)
    assert entry is None
    assert [text in problem.message for problem in problems] == [True]


def test_broken_value_is_reported_at_its_key_without_a_line() -> None:
    entry, (problem,) = read_override("a.b=[1")
    assert entry is None
    assert problem.key == "a.b"
    assert problem.place is not None
    assert (problem.place.source, problem.place.line) == ("`overrides`", None)


@pytest.mark.parametrize("text", [*PATH_TEXTS, "/data/plain", "null", 'ä "b"'])
def test_written_paths_are_read(text: str) -> None:
    override = write_override("data.root", text)
    assert load_recipe("ddetr_300q", [override]).data.root == Path(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("description", "note #2: ä"),
        ("train.lr", 1e-4),
        ("data.mean", (0.1, 0.2, 0.3)),
        ("data.root", None),
        ("data.train", {"images": "a #b", "limit": 3}),
    ],
)
def test_written_values_are_read(key: str, value: Any) -> None:
    entry, problems = read_override(write_override(key, value))
    assert problems == []
    for name in key.split("."):
        assert entry is not None
        entry = entry.child(name)
    assert entry is not None
    assert entry.plain() == value
