"""The design of a study: which arms are compared, in what they may differ, with which seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msdetr.errors import RecipeError, StudyError
from msdetr.evaluation.metrics import SUMMARY_KEYS
from msdetr.recipe import Recipe, load_recipe
from msdetr.recipe.differences import find_differences
from msdetr.recipe.expectation import SchemaView
from msdetr.recipe.overrides import SET, write_override
from msdetr.recipe.packaged import find_parent
from msdetr.recipe.problems import format_problems
from msdetr.recipe.validation import problem_of
from msdetr.recipe.yaml_source import Entry, RecipeProblem, read_file

NEVER_COMPARED = ("description", "train.seed")
"""Fields of recipes that arms may always differ in: cells get their seeds from the study."""

_ARM_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True
    )


class ArmDesign(_Section):
    """One of the methods that a study compares."""

    recipe: str = Field(
        min_length=1,
        description="Path of a recipe, relative to the study's file, or name of a packaged one.",
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="Fields to change, by dotted key."
    )


class StudyDesign(_Section):
    """What a study compares, and what decides."""

    description: str = Field(default="", description="What the study is about.")
    metric: str = Field(default="ap", description="What decides: a key of metrics.json.")
    smallest_effect: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="Smaller differences are of no interest, whatever their certainty.",
    )
    nms_threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="All arms are compared after class-wise NMS at this IoU; null: as they "
        "were evaluated.",
    )
    baseline: str = Field(description="The arm that all others are compared with.")
    arms: dict[str, ArmDesign] = Field(description="The methods, by name.")
    vary: tuple[str, ...] = Field(
        default=(), description="Fields or sections of recipes that arms may differ in."
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=2**32 - 1)], ...] = Field(
        description="Every arm is trained once with each."
    )
    budget: Literal["epochs", "seconds"] = Field(
        default="epochs",
        description="What is equal for all cells: the epochs of their recipes, or training time.",
    )
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Training time of every cell, in seconds, where budget is seconds.",
    )

    @property
    def warnings(self) -> list[str]:
        """What the study will not be able to say."""
        if len(self.seeds) >= 2:
            return []
        return ["one seed shows two checkpoints: there will be no verdict on methods"]


def load_design(file: Path) -> StudyDesign:
    """Read the file of a study and check everything that it says, the arms' recipes included.

    Raises:
        StudyError: Something is wrong; all problems that can be found at once, each with its
            line, the key, what was expected and what was found.
    """
    tree, design = _parse(file)
    problems = [*_find_mistakes(design, tree)]
    recipes: dict[str, Recipe] = {}
    for name in design.arms:
        try:
            recipes[name] = _resolve_arm(design, name, file)
        except RecipeError as error:
            problems += _mistakes_of_recipe(name, error, tree)
    if design.baseline in recipes:
        problems += _undeclared_differences(design, recipes, tree)
    if problems:
        raise StudyError(str(file), format_problems(problems, str(file)))
    return design


def resolve_arms(design: StudyDesign, file: Path) -> dict[str, Recipe]:
    """Load the recipes of all arms.

    Args:
        design: What ``load_design`` returned.
        file: The study's file, which the paths of recipes are relative to.

    Returns:
        Resolved recipes by arm, with the seeds that stand in them.

    Raises:
        RecipeError: A recipe cannot be loaded.
    """
    return {name: _resolve_arm(design, name, file) for name in design.arms}


def cell_recipe(arm: Recipe, seed: int) -> Recipe:
    """Return the recipe of one cell: the arm's with the seed."""
    return arm.model_copy(update={"train": arm.train.model_copy(update={"seed": seed})})


def _parse(file: Path) -> tuple[Entry, StudyDesign]:
    source = str(file)
    tree, problems = read_file(file, source)
    if tree is not None and not isinstance(tree.value, dict):
        problems = [RecipeProblem(tree.place, "", "must be a mapping with baseline, arms, seeds")]
    if tree is None or problems:
        raise StudyError(source, format_problems(problems, source))
    try:
        return tree, StudyDesign.model_validate(tree.plain(), by_name=False)
    except ValidationError as error:
        view = SchemaView(StudyDesign.model_json_schema())
        details = error.errors(include_url=False)
    problems = [problem_of(detail, view, tree) for detail in details]
    raise StudyError(source, format_problems(problems, source))


def _find_mistakes(design: StudyDesign, tree: Entry) -> Iterator[RecipeProblem]:
    def problem(message: str, *path: str | int) -> RecipeProblem:
        return RecipeProblem(tree.place_of(path), ".".join(map(str, path)), message)

    if design.metric not in SUMMARY_KEYS:
        hint = _nearest(design.metric, SUMMARY_KEYS) or f"expected one of {', '.join(SUMMARY_KEYS)}"
        yield problem(f"unknown metric '{design.metric}'; {hint}", "metric")
    if design.baseline not in design.arms:
        arms = ", ".join(design.arms)
        hint = _nearest(design.baseline, design.arms) or f"the arms are {arms}"
        yield problem(f"must be one of the arms, got '{design.baseline}'; {hint}", "baseline")
    if len(design.arms) < 2:
        yield problem(f"must be two arms or more, got {len(design.arms)}", "arms")
    if not design.seeds:
        yield problem("must be one seed or more, got none", "seeds")
    if (design.budget == "seconds") != (design.max_seconds is not None):
        yield problem("goes with max_seconds, and only budget: seconds does", "budget")
    wrong = [name for name in design.arms if not _ARM_NAME.fullmatch(name)]
    message = "must be a name of letters, digits, _, - and ., as it names a folder"
    yield from (problem(message, "arms", name) for name in wrong)
    for index, seed in enumerate(design.seeds):
        if seed in design.seeds[:index]:
            yield problem(f"must be different seeds, got {seed} twice", "seeds", index)


def _nearest(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def _resolve_arm(design: StudyDesign, name: str, file: Path) -> Recipe:
    arm = design.arms[name]
    found = find_parent(arm.recipe, file)
    overrides = [write_override(key, value) for key, value in arm.overrides.items()]
    recipe = load_recipe(arm.recipe if found is None else found, overrides)
    if design.max_seconds is None:
        return recipe
    limited = recipe.train.model_copy(update={"max_seconds": design.max_seconds})
    return recipe.model_copy(update={"train": limited})


def _mistakes_of_recipe(name: str, error: RecipeError, tree: Entry) -> Iterator[RecipeProblem]:
    for problem in error.problems:
        path, message = ("arms", name, "set"), problem.message
        if problem.where != SET:
            path = ("arms", name, "recipe")
            where = " ".join(part for part in (error.source, problem.where) if part)
            message = f"{where}: {message}"
        yield RecipeProblem(tree.place_of(path), ".".join(path), message)


def _undeclared_differences(
    design: StudyDesign, recipes: Mapping[str, Recipe], tree: Entry
) -> Iterator[RecipeProblem]:
    """Compare every arm with the baseline."""
    allowed = (*NEVER_COMPARED, *design.vary)
    for name, recipe in recipes.items():
        keys = [each.key for each in find_differences(recipes[design.baseline], recipe)]
        undeclared = [key for key in keys if not _is_below(key, allowed)]
        if undeclared:
            message = f"differs from {design.baseline} in {', '.join(undeclared)}, which 'vary' "
            message += "does not declare"
            yield RecipeProblem(tree.place_of(("arms", name)), f"arms.{name}", message)


def _is_below(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
