"""Checkpoints of models with query groups: what inference takes, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msdetr.api.checkpoints.loaded import checkpoint_info, load_checkpoint
from msdetr.api.detection.dataset_detector import DatasetDetector, DetectionSettings
from msdetr.build import build_collator, build_eval_transform, build_model
from msdetr.data import shapes
from msdetr.data.coco_index import CocoIndex, read_coco
from msdetr.data.dataset import DetectionDataset
from msdetr.data.labels import LabelSpace
from msdetr.data.loading import BatchLoader
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.weights import unique_state
from msdetr.errors import CheckpointError
from msdetr.model import DetectionModel
from msdetr.recipe import QueryGroupsRecipe, Recipe

SPACE = LabelSpace((1, 2, 3), ("a", "b", "c"), 3)
Load = Callable[..., Recipe]


def build(recipe: Recipe, num_classes: int = SPACE.num_classes) -> DetectionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(recipe.model, num_classes)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def save(folder: Path, recipe: Recipe, state: dict[str, Tensor], space: LabelSpace = SPACE) -> Path:
    save_checkpoint(folder, info=checkpoint_info(recipe, space), model=state)
    return folder


def test_groups_are_left_out_unless_asked_for(
    grouped_recipe: str, small_recipe: Load, tmp_path: Path
) -> None:
    recipe = small_recipe(grouped_recipe)
    state = unique_state(build(recipe))
    saved = save(tmp_path / "checkpoint", recipe, state)
    lean, whole = load_checkpoint(saved), load_checkpoint(saved, with_extra_groups=True)
    assert lean.recipe == whole.recipe == recipe
    assert lean.model.training_groups is None
    kept = {name for name in state if not name.startswith("training_groups.")}
    assert unique_state(lean.model).keys() == kept < state.keys()
    for loaded in (lean, whole):
        own = unique_state(loaded.model)
        assert all(torch.equal(value, state[name]) for name, value in own.items())
    assert unique_state(whole.model).keys() == state.keys()
    assert not whole.model.training


def test_loading_draws_nothing(small_recipe: Load, tmp_path: Path) -> None:
    recipe = small_recipe("ms_cdn_ddetr_pp_900q")
    saved = save(tmp_path / "checkpoint", recipe, unique_state(build(recipe)))
    before = torch.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("with_extra_groups", [True, False])
def test_strict_on_all_the_rest(
    *, with_extra_groups: bool, small_recipe: Load, tmp_path: Path
) -> None:
    recipe = small_recipe("ms_hybrid_cdn_ddetr_pp_300q")
    state = unique_state(build(recipe))
    broken = {
        "lacks a weight": {k: v for k, v in state.items() if k != "encoder.level_embed"},
        "has one too many": {**state, "stray.weight": torch.zeros(1)},
        "has one of another shape": {**state, "encoder.level_embed": torch.zeros(1)},
    }
    for name, weights in broken.items():
        saved = save(tmp_path / name, recipe, weights)
        with pytest.raises(CheckpointError, match=r"1 weights (missing|unexpected|of another)"):
            load_checkpoint(saved, with_extra_groups=with_extra_groups)


def test_weights_of_groups_may_be_missing_for_inference_alone(
    small_recipe: Load, tmp_path: Path
) -> None:
    recipe = small_recipe("ms_hybrid_cdn_ddetr_pp_300q")
    state = unique_state(build(recipe))
    lean = {name: v for name, v in state.items() if not name.startswith("training_groups.")}
    saved = save(tmp_path / "checkpoint", recipe, lean)
    assert load_checkpoint(saved).model.training_groups is None
    with pytest.raises(CheckpointError, match=r"2 weights missing: training_groups\.hybrid"):
        load_checkpoint(saved, with_extra_groups=True)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CocoIndex:
    root = shapes.ensure(tmp_path_factory.mktemp("shapes") / "root", 1, 4)
    return read_coco(root / "val2017", root / "annotations/instances_val2017.json")


def test_detects_what_the_plain_model_with_the_same_weights_detects(
    grouped_recipe: str, small_recipe: Load, tmp_path: Path, index: CocoIndex
) -> None:
    recipe = small_recipe(grouped_recipe, "data.eval_size=64", "data.eval_max_size=96")
    space = LabelSpace.contiguous(index.categories)
    variant_model = build(recipe, space.num_classes)
    saved = save(tmp_path / "checkpoint", recipe, unique_state(variant_model), space)
    plain = recipe.model.model_copy(update={"query_groups": QueryGroupsRecipe()})
    alone = build_model(plain, space.num_classes)
    state = variant_model.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    dataset = DetectionDataset(index, build_eval_transform(recipe.data), space, seed=0)
    loader = BatchLoader(dataset, build_collator(recipe, alone), num_workers=0)
    settings = DetectionSettings(
        limit=6,
        nms_threshold=None,
        batch_size=2,
        precision="fp32",
        category_id_of_label=space.category_id_by_label,
    )
    detector = DatasetDetector(dataset, loader, settings)
    models = (load_checkpoint(saved).model, variant_model.eval(), alone.eval())
    loaded, whole, expected = (detector.detect(model, every_layer=True) for model in models)
    assert len(expected) == 2
    assert len(expected[0]) == 24
    assert loaded == expected
    assert whole == expected
