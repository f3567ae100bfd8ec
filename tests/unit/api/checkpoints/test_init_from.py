"""Starting a training from weights of a model with other query groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from msdetr.api.checkpoints.init_from import Initialisation, initialise_from
from msdetr.api.checkpoints.loaded import checkpoint_info
from msdetr.build import build_model
from msdetr.data.labels import LabelSpace
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.weights import unique_state
from msdetr.interop.official import to_published
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe

SPACE = LabelSpace((1, 2, 3), ("a", "b", "c"), 3)
CONTENT, HYBRID = "query_source.content.weight", "training_groups.hybrid.content.weight"
Load = Callable[..., Recipe]
NO_GROUPS = tuple(
    f"{section}.{name}=null"
    for section in ("model.query_groups", "supervision")
    for name in ("hybrid", "group", "denoising")
)


def build(recipe: Recipe) -> DetectionModel:
    return build_model(recipe.model, SPACE.num_classes)


def ours(folder: Path, recipe: Recipe, model: DetectionModel) -> Path:
    save_checkpoint(folder, info=checkpoint_info(recipe, SPACE), model=unique_state(model))
    return folder


def published(path: Path, model: DetectionModel) -> Path:
    torch.save({"model": to_published(model.state_dict())}, path)
    return path


def start(model: DetectionModel, source: Path) -> Initialisation:
    return initialise_from(model, source, quiet=True)


def assert_same(model: DetectionModel, other: DetectionModel, names: tuple[str, ...]) -> None:
    first, second = unique_state(model), unique_state(other)
    assert names
    assert all(torch.equal(first[name], second[name]) for name in names)


def groups_of(model: DetectionModel) -> set[str]:
    return {name for name in unique_state(model) if name.startswith("training_groups.")}


def test_variant_into_a_plain_model(
    grouped_recipe: str, small_recipe: Load, tmp_path: Path
) -> None:
    given = build(small_recipe(grouped_recipe))
    plain = build(small_recipe(grouped_recipe, *NO_GROUPS))
    result = start(plain, ours(tmp_path / "checkpoint", small_recipe(grouped_recipe), given))
    assert result.reinitialised == ()
    assert set(result.skipped) == groups_of(given)
    assert set(result.loaded) == set(unique_state(plain))
    assert_same(plain, given, result.loaded)


def test_plain_model_into_a_variant(
    grouped_recipe: str, small_recipe: Load, tmp_path: Path
) -> None:
    recipe = small_recipe(grouped_recipe, *NO_GROUPS)
    given, model = build(recipe), build(small_recipe(grouped_recipe))
    result = start(model, ours(tmp_path / "checkpoint", recipe, given))
    assert result.skipped == ()
    assert {name for name, _ in result.reinitialised} == groups_of(model)
    assert {reason for _, reason in result.reinitialised} == {"not in the file"}
    assert_same(model, given, result.loaded)


class TestPublishedHybrid:
    @pytest.fixture
    def given(self, small_recipe: Load) -> DetectionModel:
        return build(small_recipe("hybrid_ddetr_pp_300q"))

    def test_plain_model_takes_the_first_rows(
        self, given: DetectionModel, small_recipe: Load, tmp_path: Path
    ) -> None:
        plain = build(small_recipe("hybrid_ddetr_pp_300q", *NO_GROUPS))
        result = start(plain, published(tmp_path / "hybrid.pth", given))
        assert result.reinitialised == ()
        assert result.skipped == ("query_embed.weight[6:]",)
        assert CONTENT in result.loaded
        assert_same(plain, given, result.loaded)

    def test_variant_takes_all(
        self, given: DetectionModel, small_recipe: Load, tmp_path: Path
    ) -> None:
        model = build(small_recipe("hybrid_ddetr_pp_300q"))
        result = start(model, published(tmp_path / "hybrid.pth", given))
        assert (result.reinitialised, result.skipped) == ((), ())
        assert HYBRID in result.loaded
        assert_same(model, given, result.loaded)

    def test_published_plain_model_into_the_variant(
        self, given: DetectionModel, small_recipe: Load, tmp_path: Path
    ) -> None:
        plain = build(small_recipe("hybrid_ddetr_pp_300q", *NO_GROUPS))
        result = start(given, published(tmp_path / "plain.pth", plain))
        assert result.skipped == ()
        assert result.reinitialised == ((HYBRID, "not in the file"),)
        assert_same(given, plain, result.loaded)


def test_damaged_table_is_no_crash(small_recipe: Load, tmp_path: Path) -> None:
    model = build(small_recipe("hybrid_ddetr_pp_300q"))
    state = {**to_published(model.state_dict()), "query_embed.weight": torch.tensor(1.0)}
    torch.save({"model": state}, tmp_path / "odd.pth")
    result = start(model, tmp_path / "odd.pth")
    assert (CONTENT, "shape [6, 32] here, [] in the file") in result.reinitialised


def test_a_file_of_a_wrapped_model_is_read_and_says_so(
    small_recipe: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe("ddetr_300q")
    model, other = build(recipe), build(recipe)
    state = {f"module.{k}": v for k, v in to_published(model.state_dict()).items()}
    torch.save({"model": state}, tmp_path / "wrapped.pth")
    result = initialise_from(other, tmp_path / "wrapped.pth")
    assert not result.reinitialised
    assert_same(model, other, result.loaded)
    assert "wrapped.pth: its names begin with 'module.'" in capsys.readouterr().err
