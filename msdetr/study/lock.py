"""What a study was frozen to when it began, and what was added to it since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from msdetr.errors import Problem, StudyError
from msdetr.files import require_version
from msdetr.recipe import Recipe, recipe_from_dict, recipe_to_dict
from msdetr.recipe.differences import find_differences
from msdetr.study.design import NEVER_COMPARED, StudyDesign

FORMAT_VERSION = 1
_FROZEN_FIELDS = (
    *("metric", "smallest_effect", "nms_threshold"),
    *("baseline", "budget", "max_seconds"),
)


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Added(_Stored):
    """When a seed or an arm became part of the study.

    Attributes:
        time: In UTC, as ISO 8601.
        after_results: Whether results of the study could have been seen by then.
    """

    time: str
    after_results: bool


class StudyLock(_Stored):
    """The frozen study.

    Attributes:
        format_version: Of the file.
        digest: SHA-256 of the resolved recipes of all arms.
        design: The design with everything that was added.
        recipes: Resolved recipe of every arm, as plain values.
        arms: When each arm was added.
        seeds: When each seed was added.
    """

    format_version: int = FORMAT_VERSION
    digest: str
    design: StudyDesign
    recipes: dict[str, dict[str, Any]]
    arms: dict[str, Added]
    seeds: dict[int, Added]

    def load_recipes(self, source: str) -> dict[str, Recipe]:
        """Return the recipes of all arms, with the seeds that stand in them."""
        return {name: recipe_from_dict(values, source) for name, values in self.recipes.items()}

    def to_json(self) -> str:
        """Write it as the lock file has it."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2) + "\n"


def freeze(
    design: StudyDesign, recipes: Mapping[str, Recipe], added: Added, before: StudyLock | None
) -> StudyLock:
    """Freeze a design, or what was added to a frozen one.

    Args:
        design: The design.
        recipes: Resolved recipes of its arms.
        added: When what is new was added.
        before: What the study was frozen to so far; None for a new study.
    """
    stored = {name: recipe_to_dict(recipe) for name, recipe in recipes.items()}
    arms, seeds = ({}, {}) if before is None else (before.arms, before.seeds)
    return StudyLock(
        digest=_digest(stored),
        design=design,
        recipes=stored,
        arms={name: arms.get(name, added) for name in design.arms},
        seeds={seed: seeds.get(seed, added) for seed in design.seeds},
    )


def refuse_changes(
    lock: StudyLock, design: StudyDesign, recipes: Mapping[str, Recipe], source: str
) -> None:
    """Refuse a design that differs from the frozen one in more than further arms and seeds.

    Raises:
        StudyError: It does; every difference is named.
    """
    problems = [
        *_changed_fields(lock.design, design),
        *_changed_arms(lock.load_recipes(source), recipes),
    ]
    if problems:
        raise StudyError(source, problems)


def read_lock(file: Path) -> StudyLock:
    """Read a lock file.

    Raises:
        StudyError: It is damaged, edited, or of a later version.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(str(file), f"cannot be read: {error}") from error
    require_version(document, file, FORMAT_VERSION, StudyError)
    try:
        lock = StudyLock.model_validate_json(json.dumps(document))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise StudyError(str(file), f"is damaged: {where}: {error.errors()[0]['msg']}") from error
    if _digest(lock.recipes) != lock.digest:
        raise StudyError(str(file), "is damaged or was edited: its recipes do not have its digest")
    return lock


def _digest(recipes: Mapping[str, Mapping[str, Any]]) -> str:
    return sha256(json.dumps(recipes, sort_keys=True).encode()).hexdigest()


def _changed_fields(before: StudyDesign, now: StudyDesign) -> Iterator[Problem]:
    for name in _FROZEN_FIELDS:
        was, is_now = getattr(before, name), getattr(now, name)
        if was != is_now:
            yield Problem(name, _changed(was, is_now))
    for name in ("vary", "seeds"):
        gone = [value for value in getattr(before, name) if value not in getattr(now, name)]
        if gone:
            listed = ", ".join(map(str, gone))
            yield Problem(name, f"{listed} was part of the study when it began, and is gone")


def _changed_arms(before: Mapping[str, Recipe], now: Mapping[str, Recipe]) -> Iterator[Problem]:
    for name, recipe in before.items():
        if name not in now:
            yield Problem(f"arms.{name}", "was part of the study when it began, and is gone")
            continue
        for each in find_differences(recipe, now[name]):
            if each.key not in NEVER_COMPARED:
                yield Problem(f"arms.{name}", f"{each.key} {_changed(each.first, each.second)}")


def _changed(was: object, is_now: object) -> str:
    return f"was {json.dumps(was)} when the study began, is {json.dumps(is_now)}"
