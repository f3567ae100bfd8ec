"""Problems -> the lines of an error message, in columns."""

from __future__ import annotations

from collections.abc import Sequence

from msdetr.errors import Problem
from msdetr.recipe.overrides import SET
from msdetr.recipe.yaml_source import Place, RecipeProblem


def format_problems(problems: Sequence[RecipeProblem], source: str) -> list[Problem]:
    """Sort problems (files by line, then overrides) and lay them out in columns.

    Args:
        problems: What is wrong.
        source: The requested recipe; its lines are shown without its name.
    """
    ordered = sorted(problems, key=lambda problem: _order(problem.place, source))
    keys = [problem.key for problem in ordered]
    width = max(map(len, keys)) if len(keys) > 1 else 0
    return [Problem(_where(problem.place, source), _message(problem, width)) for problem in ordered]


def _message(problem: RecipeProblem, width: int) -> str:
    if not width:
        return f"{problem.key}: {problem.message}" if problem.key else problem.message
    return f"{problem.key:<{width}}   {problem.message}"


def _order(place: Place | None, source: str) -> tuple[int, str, int]:
    if place is None:
        return 3, "", 0
    rank = 2 if place.source == SET else int(place.source != source)
    return rank, place.source, place.line or 0


def _where(place: Place | None, source: str) -> str:
    if place is None:
        return ""
    if place.line is None:
        return "" if place.source == source else place.source
    line = f"line {place.line}"
    return line if place.source == source else f"{place.source} {line}"
