"""A training step of recipes with query groups or a suppressor, at its edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from msdetr.api.training.detection_task import DetectionTask
from msdetr.build import (
    build_criterion,
    build_model,
    build_train_collator,
    groups_with_one_to_many,
)
from msdetr.data.batching import Batch
from msdetr.data.labels import LabelSpace
from msdetr.data.sample import Sample
from msdetr.engine.step import MicroBatchPlace, StepLoss
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe

SPACE = LabelSpace((1, 2, 3), ("a", "b", "c"), 3)
PLACE = MicroBatchPlace(seed=0, epoch=0, step=0, index=0)
Load = Callable[..., Recipe]

# Targets of the images of a batch.
EDGES = {
    "none in an image": (2, 0),
    "none in the batch": (0, 0),
    "one in all": (0, 1),
    "more than queries": (11, 7),
    "many": (250, 1),
}


@pytest.fixture(autouse=True)
def _fixed_weights() -> None:
    torch.manual_seed(0)


class Training:
    """A model of a recipe, its task and its collator."""

    def __init__(self, recipe: Recipe) -> None:
        matched = groups_with_one_to_many(recipe.supervision)
        self.model: DetectionModel = build_model(
            recipe.model, SPACE.num_classes, one_to_many_groups=matched
        ).train()
        criterion = build_criterion(recipe.supervision, recipe.model.query_groups)
        self.task = DetectionTask(criterion)
        self._collate = build_train_collator(recipe, self.model, SPACE)

    def batch(self, counts: Sequence[int], hw: tuple[int, int] = (64, 64)) -> Batch:
        generator = torch.Generator().manual_seed(1)
        return self._collate(
            [
                Sample(
                    pixels=torch.randint(256, (3, *hw), generator=generator, dtype=torch.uint8),
                    boxes_cxcywh=torch.rand(count, 4, generator=generator) * 0.4 + 0.1,
                    labels=torch.randint(3, (count,), generator=generator),
                    image_id=image,
                    original_hw=hw,
                )
                for image, count in enumerate(counts)
            ]
        )

    def step(self, counts: Sequence[int], hw: tuple[int, int] = (64, 64)) -> StepLoss:
        """Forward and backward; everything must be finite and reach every parameter."""
        batch = self.batch(counts, hw)
        loss = self.task.loss(self.model, batch, num_targets=float(sum(counts)), place=PLACE)
        assert loss.total.isfinite()
        assert all(value.isfinite() for value in loss.terms.values())
        self.model.zero_grad()
        torch.autograd.backward(loss.total)
        for name, parameter in self.model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        return loss


@pytest.mark.parametrize("edge", EDGES)
def test_finite_and_the_same_terms_and_parameters_whatever_the_targets(
    grouped_recipe: str, edge: str, small_recipe: Load
) -> None:
    training = Training(small_recipe(grouped_recipe))
    usual = training.step((2, 1))
    found = training.step(EDGES[edge])
    assert list(found.terms) == list(usual.terms)
    assert found.weights == usual.weights
    groups = training.model(training.batch((1, 1)).images, noised=training.batch((1, 1)).noised)
    names = {group.name for group in groups.extra_groups}
    assert names
    assert names <= {name.split("/")[0] for name in found.terms}


def test_denoising_without_targets_is_zero_and_yet_has_gradients(
    grouped_recipe: str, small_recipe: Load
) -> None:
    recipe = small_recipe(grouped_recipe)
    if recipe.model.query_groups.denoising is None:
        assert not any(name.startswith("denoising") for name in Training(recipe).step((0, 0)).terms)
        return
    training = Training(recipe)
    terms = training.step((0, 0)).terms
    values = [value.item() for name, value in terms.items() if name.startswith("denoising/")]
    assert values == [0.0] * 3 * recipe.model.decoder_layers
    assert training.model.training_groups is not None
    (labels,) = training.model.training_groups.denoising.parameters()  # type: ignore[union-attr]
    assert not labels.grad.any()
    training.step((1, 0))
    assert labels.grad.any()


def test_fewer_cells_than_queries(grouped_recipe: str, small_recipe: Load) -> None:
    """The collator sees to the primary queries; what is left is for the hybrid ones, if any."""
    recipe = small_recipe(grouped_recipe, "model.num_queries=8", "data.pad_multiple=1")
    training = Training(recipe)
    loss = training.step((3, 1), hw=(8, 16))
    batch = training.batch((3, 1), hw=(8, 16))
    groups = {g.name: g for g in training.model(batch.images, noised=batch.noised).groups}
    assert groups["primary"].one_to_one.logits.shape[2] == 8
    if recipe.model.query_groups.hybrid is not None:
        hybrid = groups["hybrid"].one_to_one.logits.shape[2]
        assert hybrid < recipe.model.query_groups.hybrid.queries
        values = [v.item() for name, v in loss.terms.items() if name.startswith("hybrid/")]
        assert (hybrid == 0) == (not any(values))


@pytest.mark.parametrize("max_targets", [1, 3, 250])
def test_noised_targets_may_be_limited(max_targets: int, small_recipe: Load) -> None:
    field = f"model.query_groups.denoising.max_targets={max_targets}"
    training = Training(small_recipe("ms_cdn_ddetr_pp_900q", field))
    noised = training.batch((250, 2)).noised
    assert noised is not None
    assert noised.labels.shape[1] == 2 * max_targets * max(1, 100 // max_targets)
    assert len(noised.target[0].unique()) == max_targets
    training.step((250, 2))


SUPPRESSORS = ("mds_ddetr_300q", "mds_ddetr_300q_focal", "shapes_tiny_mds")


@pytest.mark.parametrize("name", SUPPRESSORS)
@pytest.mark.parametrize("edge", EDGES)
def test_suppressor_at_the_edges(name: str, edge: str, small_recipe: Load) -> None:
    training = Training(small_recipe(name, "model.decoder_layers=3"))
    usual = training.step((2, 1))
    found = training.step(EDGES[edge])
    assert list(found.terms) == list(usual.terms)
    layers: dict[str, set[str]] = {
        branch: set() for branch in ("one_to_one", "one_to_many", "proposals")
    }
    for key in found.terms:
        branch, _, layer = key.split("/")
        layers[branch].add(layer)
    assert layers == {"one_to_one": {"0"}, "one_to_many": {"0", "1", "2"}, "proposals": {"0"}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SUPPRESSORS)
def test_suppressor_in_reduced_precision(name: str, dtype: torch.dtype, small_recipe: Load) -> None:
    training = Training(small_recipe(name))
    with torch.autocast("cpu", dtype=dtype):
        for counts in ((2, 1), (0, 0), (9, 0)):
            training.step(counts)


@pytest.mark.parametrize("name", ["ddetr_300q", "baseline_ddetr_300q", "ddetr_300q_arch_a"])
def test_varifocal_at_the_edges(name: str, small_recipe: Load) -> None:
    for counts in EDGES.values():
        Training(small_recipe(name, "supervision.class_loss=varifocal")).step(counts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_finite(
    grouped_recipe: str, dtype: torch.dtype, small_recipe: Load
) -> None:
    training = Training(small_recipe(grouped_recipe))
    with torch.autocast("cpu", dtype=dtype):
        for counts in ((2, 1), (0, 0), (9, 0)):
            training.step(counts)


def test_the_primary_terms_are_those_of_the_plain_model(
    grouped_recipe: str, small_recipe: Load
) -> None:
    recipe = small_recipe(grouped_recipe)
    if recipe.supervision.group is not None:
        pytest.skip("its groups share the weights of the primary one")
    training = Training(recipe)
    terms = training.step((2, 1)).terms
    plain = without_groups(recipe)
    alone = Training(plain)
    state = training.model.state_dict()
    alone.model.load_state_dict({name: state[name] for name in alone.model.state_dict()})
    for name, value in alone.step((2, 1)).terms.items():
        torch.testing.assert_close(terms[name], value, atol=1e-5, rtol=1e-5)


def without_groups(recipe: Recipe) -> Recipe:
    empty = dict.fromkeys(("hybrid", "group", "denoising"))
    groups = recipe.model.query_groups.model_copy(update=empty)
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"query_groups": groups}),
            "supervision": recipe.supervision.model_copy(update=empty),
        }
    )
