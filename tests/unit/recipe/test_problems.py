"""Order and columns of the problems of a recipe."""

from __future__ import annotations

from msdetr.recipe.problems import format_problems
from msdetr.recipe.yaml_source import Place, RecipeProblem


def test_files_by_line_then_parents_then_overrides_then_nowhere() -> None:
    problems = [
        RecipeProblem(None, "d", "4"),
        RecipeProblem(Place("`overrides`"), "c", "3"),
        RecipeProblem(Place("parent.yaml", 1), "b", "2"),
        RecipeProblem(Place("mine.yaml", 10), "a", "1"),
        RecipeProblem(Place("mine.yaml", 9), "a", "0"),
    ]
    found = format_problems(problems, "mine.yaml")
    assert [p.where for p in found] == [
        "line 9",
        "line 10",
        "parent.yaml line 1",
        "`overrides`",
        "",
    ]
    assert [p.message[-1] for p in found] == list("01234")


def test_keys_of_several_problems_share_a_column() -> None:
    problems = [RecipeProblem(None, "long.key", "x"), RecipeProblem(None, "k", "y")]
    assert [p.message for p in format_problems(problems, "")] == ["long.key   x", "k          y"]


def test_single_problem_has_no_column() -> None:
    (found,) = format_problems([RecipeProblem(Place("mine.yaml"), "", "unreadable")], "mine.yaml")
    assert (found.where, found.message) == ("", "unreadable")
