"""What a study's file may say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from msdetr.errors import StudyError
from msdetr.study.design import ArmDesign, StudyDesign, cell_recipe, load_design, resolve_arms

STUDIES = Path(__file__).resolve().parents[3] / "studies"
VALID = """\
description: The cap
metric: ap50
smallest_effect: 0.01
baseline: one_to_one
arms:
  one_to_one: {recipe: shapes_tiny_baseline}
  mixed: {recipe: mine.yaml, set: {supervision.one_to_many.max_positive_fraction: null}}
vary: [model.placement, model.extra_ffn, supervision]
seeds: [42, 43]
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the valid study with some texts replaced, and a recipe beside it."""
    (tmp_path / "mine.yaml").write_text("extends: shapes_tiny\n")

    def to_file(*replacements: tuple[str, str]) -> Path:
        text = VALID
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "study.yaml"
        file.write_text(text)
        return file

    return to_file


def problem_of(file: Path) -> str:
    with pytest.raises(StudyError) as caught:
        load_design(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    return text.removeprefix(f"{file}: ")


def test_a_valid_study_is_read_with_its_recipes(write: Write) -> None:
    file = write()
    design = load_design(file)
    assert (design.metric, design.smallest_effect, design.baseline) == ("ap50", 0.01, "one_to_one")
    assert design.seeds == (42, 43)
    assert design.warnings == []
    arm = ArmDesign(
        recipe="mine.yaml", overrides={"supervision.one_to_many.max_positive_fraction": None}
    )
    assert design.arms["mixed"] == arm
    recipes = resolve_arms(design, file)
    many = recipes["mixed"].supervision.one_to_many
    assert many is not None
    assert (many.k, many.max_positive_fraction) == (2, None)
    assert cell_recipe(recipes["mixed"], 7).train.seed == 7


def test_recipes_are_found_beside_the_file_wherever_one_works(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_design(file).arms["mixed"].recipe == "mine.yaml"


def test_defaults() -> None:
    arms = {name: ArmDesign(recipe="shapes_tiny") for name in "ab"}
    design = StudyDesign(baseline="a", arms=arms, seeds=(1, 2))
    assert (design.metric, design.smallest_effect, design.vary, design.budget) == (
        "ap",
        0.005,
        (),
        "epochs",
    )
    with pytest.raises(ValidationError):
        design.metric = "ap50"  # type: ignore[misc]


def test_one_seed_is_read_with_a_warning(write: Write) -> None:
    (warning,) = load_design(write(("[42, 43]", "[42]"))).warnings
    assert "no verdict on methods" in warning


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("metric: ap50", "metric: ap5", "line 2: metric: unknown metric 'ap5'; did you mean 'ap"),
        ("metric: ap50", "metric: loss", "expected one of ap, ap50, ap75"),
        ("line: one_to_one", "line: one2one", "line 4: baseline: must be one of the arms, got"),
        ("seeds: [42, 43]", "seeds: [42, 42]", "line 9: seeds.1: must be different seeds, got 42"),
        ("seeds: [42, 43]", "seeds: []", "line 9: seeds: must be one seed or more, got none"),
        ("seeds: [42, 43]", "seeds: [42, -1]", "line 9: seeds.1: must be an integer in [0,"),
        ("seeds: [42, 43]", "seeds: 42", "line 9: seeds: must be a list, each an integer in [0,"),
        (
            "smallest_effect: 0.01",
            "smallest_effect: a lot",
            "line 3: smallest_effect: must be",
        ),
        ("smallest_effect", "smalest_effect", "unknown key; did you mean 'smallest_effect'?"),
        ("{recipe: shapes_tiny_b", "{recip: shapes_tiny_b", "2 problems"),
        ("recipe: shapes_tiny_b", "recipe: shapes_tinny_b", "line 6: arms.one_to_one.recipe: "),
        ("mixed:", '"a/b":', "line 7: arms.a/b: must be a name of letters, digits"),
        (
            "vary: [model.placement, ",
            "vary: [",
            "line 7: arms.mixed: differs from one_to_one in",
        ),
        (
            "fraction: null",
            "fraction: 2",
            "line 7: arms.mixed.set: supervision.one_to_many",
        ),
        ("metric: ap50", "budget: seconds", "line 2: budget: goes with max_seconds"),
        ("metric: ap50", "max_seconds: 60", "budget: goes with max_seconds"),
        ("metric: ap50", "budget: steps", "line 2: budget: must be "),
        ("metric: ap50", "metric: {", "broken YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    write: Write, old: str, new: str, problem: str
) -> None:
    file = write((old, new))
    with pytest.raises(StudyError) as caught:
        load_design(file)
    assert problem in str(caught.value)


def test_a_recipe_that_is_not_valid_is_named_with_its_line(write: Write, tmp_path: Path) -> None:
    file = write()
    (tmp_path / "mine.yaml").write_text("extends: shapes_tiny\nmodel:\n  widht: 96\n")
    problem = problem_of(file)
    assert problem.startswith(f"line 7: arms.mixed.recipe: {tmp_path / 'mine.yaml'} line 3: ")
    assert "model.widht" in problem
    assert "did you mean 'width'?" in problem


def test_every_undeclared_field_is_named(write: Write, tmp_path: Path) -> None:
    file = write()
    (tmp_path / "mine.yaml").write_text(
        "extends: shapes_tiny\ndescription: other\ntrain: {lr: 1, seed: 5}\ndata: {eval_size: 96}\n"
    )
    end = "in data.eval_size, train.lr, which 'vary' does not declare"
    assert problem_of(file).endswith(end)
    text = file.read_text().replace("vary: [", "vary: [train, data.eval_size, ")
    file.write_text(text)
    load_design(file)


def test_a_prefix_is_a_whole_section(write: Write) -> None:
    assert "model.placement" in problem_of(write(("model.placement,", "model.place,")))


def test_one_arm_is_no_study(write: Write) -> None:
    start = VALID.index("  mixed:")
    line = VALID[start : VALID.index("\n", start) + 1]
    assert problem_of(write((line, ""))) == "line 5: arms: must be two arms or more, got 1"


def test_all_problems_are_named_at_once(write: Write) -> None:
    file = write(("ap50", "mAP"), ("[42, 43]", "[42, 42]"), ("mine.yaml", "yours.yaml"))
    with pytest.raises(StudyError) as caught:
        load_design(file)
    assert [problem.where for problem in caught.value.problems] == ["line 2", "line 7", "line 9"]


def test_a_missing_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in problem_of(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["shapes_cap", "shapes_schemes"])
def test_the_studies_of_the_project_are_valid(name: str) -> None:
    assert load_design(STUDIES / f"{name}.yaml").warnings == []
