"""Mean and standard deviation of the backbone's weights, in the recipe."""

from __future__ import annotations

import pytest

from msdetr import pretraining
from msdetr.errors import RecipeError
from msdetr.recipe import load_recipe, recipe_to_yaml
from msdetr.recipe.dump import recipe_to_dict
from msdetr.recipe.loading import recipe_from_dict

LITE = "model.backbone.name=timm/tf_efficientnet_lite0"
IMAGENET = (0.485, 0.456, 0.406)


def test_those_of_the_weights_are_taken_over_and_shown() -> None:
    recipe = load_recipe("ddetr_300q", [LITE])
    assert (recipe.data.mean, recipe.data.std) == ((0.5,) * 3, (0.5,) * 3)
    assert "mean: [0.5, 0.5, 0.5]" in recipe_to_yaml(recipe)


@pytest.mark.parametrize(
    ("overrides", "mean"),
    [
        (["data.mean=[0.1, 0.2, 0.3]"], (0.1, 0.2, 0.3)),
        (["model.backbone.weights=none"], IMAGENET),
        (["model.backbone.name=resnet18"], IMAGENET),
    ],
)
def test_unless_given_or_unknown(overrides: list[str], mean: tuple[float, ...]) -> None:
    assert load_recipe("ddetr_300q", [LITE, *overrides]).data.mean == mean


def test_only_what_is_missing_is_taken_over() -> None:
    data = load_recipe("ddetr_300q", [LITE, "data.mean=[0.1, 0.2, 0.3]"]).data
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.5,) * 3)


def test_a_resolved_recipe_needs_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("ddetr_300q", [LITE])

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(pretraining, "import_module", missing)
    assert recipe_from_dict(recipe_to_dict(recipe), "checkpoint") == recipe
    with pytest.raises(RecipeError) as caught:
        load_recipe("ddetr_300q", [LITE])
    (problem,) = caught.value.problems
    assert problem.where == "`overrides`"
    assert problem.message.startswith("model.backbone.name: timm/tf_efficientnet_lite0 needs")


def test_unknown_model_is_a_problem_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"model\.backbone\.name: timm .* has no model 'nope'"):
        load_recipe("ddetr_300q", ["model.backbone.name=timm/nope"])
