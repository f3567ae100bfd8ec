"""Query groups beside the primary one: what they are made of, and who sees whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from msdetr import build as composition
from msdetr.build import build_criterion, groups_with_one_to_many
from msdetr.data.denoising import DenoisingNoise
from msdetr.model import DetectionModel
from msdetr.model.memory import Memory
from msdetr.model.queries import QueryGroup, blocks_of
from msdetr.model.training_groups import name_group
from msdetr.recipe import Recipe
from msdetr.structures import FeatureLevels, ModelOutput, NoisedTargets, Predictions, Targets

NUM_CLASSES = 5
INPUTS = ("content", "position", "references")
Load = Callable[..., Recipe]
Levels = Callable[..., FeatureLevels]


def build(recipe: Recipe) -> DetectionModel:
    matched = groups_with_one_to_many(recipe.supervision)
    model = composition.build_model(recipe.model, NUM_CLASSES, one_to_many_groups=matched)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.train()


def make_targets(*counts: int) -> Targets:
    boxes = [torch.rand(count, 4) * 0.4 + 0.1 for count in counts]
    return Targets.from_lists(boxes, [torch.randint(NUM_CLASSES, (count,)) for count in counts])


def noise(recipe: Recipe, targets: Targets) -> NoisedTargets | None:
    denoising = recipe.model.query_groups.denoising
    if denoising is None:
        return None
    make = DenoisingNoise(
        contrastive=denoising.contrastive,
        # Few slots, so that a mask can be read.
        budget=None,
        groups=2,
        label_redraw=denoising.label_redraw,
        box_noise=denoising.box_noise,
        max_targets=None,
        labels=tuple(range(NUM_CLASSES)),
        seed=0,
    )
    return make(targets, [0] * len(targets.counts))


def make_groups(
    model: DetectionModel, recipe: Recipe, levels: FeatureLevels, targets: Targets
) -> tuple[tuple[QueryGroup, ...], Memory]:
    memory = model.encoder(levels)
    primary = model.query_source(memory)
    assert model.training_groups is not None
    extra = model.training_groups(model.query_source, memory, primary, noise(recipe, targets))
    return (primary, *extra), memory


def block_names(groups: tuple[QueryGroup, ...]) -> Iterator[str]:
    """Name of the block of every query; what counts as one block is said here again."""
    for group in groups:
        if group.noised is None:
            yield from [group.name] * group.num_queries
        else:
            number = group.noised.num_groups
            for index in range(number):
                yield from [f"denoising {index}"] * (group.num_queries // number)


def test_mask_is_the_literal_matrix(
    grouped_recipe: str, small_recipe: Load, levels: FeatureLevels
) -> None:
    recipe = small_recipe(grouped_recipe)
    groups, _ = make_groups(build(recipe), recipe, levels, make_targets(2, 1))
    blocks = blocks_of(groups)
    assert blocks is not None
    names = list(block_names(groups))
    assert len(set(names)) > 1
    expected = [
        [row == column or (column == "primary" and row[:9] == "denoising") for column in names]
        for row in names
    ]
    assert blocks.mask().tolist() == expected


def test_three_in_one_by_hand(small_recipe: Load, levels: FeatureLevels) -> None:
    sizes = (
        "supervision.one_to_many.k=2",
        "model.num_queries=2",
        "model.query_groups.hybrid.queries=1",
    )
    recipe = small_recipe("ms_hybrid_cdn_ddetr_pp_300q", *sizes)
    groups, _ = make_groups(build(recipe), recipe, levels, make_targets(1, 0))
    assert [group.name for group in groups] == ["primary", "hybrid", "denoising"]
    blocks = blocks_of(groups)
    assert blocks is not None
    # Two primary queries, a hybrid one, and twice a positive and a negative slot.
    assert blocks.mask().int().tolist() == [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 1],
        [1, 1, 0, 0, 0, 1, 1],
    ]


def as_leaves(group: QueryGroup) -> QueryGroup:
    inputs = {name: getattr(group, name).detach().clone().requires_grad_() for name in INPUTS}
    return replace(group, **inputs)


def dependences(outputs: list[Tensor], groups: tuple[QueryGroup, ...]) -> set[str]:
    """Names of the groups that one of the outputs depends on."""
    inputs = [getattr(group, name) for group in groups for name in INPUTS]
    found: set[str] = set()
    for output in outputs:
        grads = torch.autograd.grad(
            (output * torch.rand_like(output)).sum(), inputs, retain_graph=True, allow_unused=True
        )
        nonzero = [grad is not None and bool(grad.any()) for grad in grads]
        width = len(INPUTS)
        found |= {g.name for i, g in enumerate(groups) if any(nonzero[i * width : (i + 1) * width])}
    return found


def tensors_of(predictions: Predictions | None) -> list[Tensor]:
    if predictions is None:
        return []
    layers = (getattr(predictions, field.name).unbind() for field in fields(predictions))
    return [tensor for each in layers for tensor in each]


def test_no_group_depends_on_what_it_must_not_see(
    grouped_recipe: str, small_recipe: Load, levels: FeatureLevels
) -> None:
    recipe = small_recipe(grouped_recipe)
    model = build(recipe)
    made, memory = make_groups(model, recipe, levels, make_targets(2, 1))
    groups = tuple(as_leaves(group) for group in made)
    decoded = model.decoder(groups, memory, with_one_to_many=True)
    seen = {
        group.name: dependences(
            [*tensors_of(found.one_to_one), *tensors_of(found.one_to_many)], groups
        )
        for group, found in zip(groups, decoded, strict=True)
    }
    beside = {"denoising": {"primary"}}
    assert seen == {name: {name} | beside.get(name, set()) for name in seen}
    assert len(seen) >= 2


def test_groups_of_denoising_do_not_see_each_other(
    small_recipe: Load, levels: FeatureLevels
) -> None:
    recipe = small_recipe("shapes_tiny_cdn")
    model = build(recipe)
    made, memory = make_groups(model, recipe, levels, make_targets(2, 1))
    primary, denoising = (as_leaves(group) for group in made)
    *_, found = model.decoder((primary, denoising), memory)
    half = denoising.num_queries // 2
    found.one_to_one.logits[:, :, :half].sum().backward()
    for name in INPUTS:
        grad = getattr(denoising, name).grad
        assert grad[:, :half].any(), name
        assert not grad[:, half:].any(), name


class TestHybrid:
    @pytest.mark.parametrize("mixed", ["true", "false"])
    def test_follows_the_ranking_of_the_primary_queries(
        self, mixed: str, small_recipe: Load, levels: FeatureLevels
    ) -> None:
        field = f"model.mixed_query_selection={mixed}"
        recipe = small_recipe("hybrid_ddetr_pp_300q", field)
        model = build(recipe)
        (primary, hybrid), memory = make_groups(model, recipe, levels, make_targets(1, 1))
        assert primary.proposals is not None
        assert primary.cells is not None
        assert hybrid.cells is not None
        cells = torch.cat([primary.cells, hybrid.cells], dim=1)
        logits = primary.proposals.logits[..., 0]
        assert torch.equal(cells, logits.topk(6 + 9, dim=1).indices)
        assert (hybrid.proposals, hybrid.one_to_many) == (None, False)
        assert memory.features.shape[0] == 2
        own = model.training_groups.hybrid.content  # type: ignore[union-attr]
        assert (own is not None) == (mixed == "true")
        if own is not None:
            assert torch.equal(hybrid.content[1], own.weight)

    def test_shrinks_where_there_are_too_few_cells(
        self, small_recipe: Load, make_levels: Levels
    ) -> None:
        recipe = small_recipe("ms_hybrid_ddetr_pp_300q")
        model = build(recipe)
        sizes = {
            8: [(1, 2), (1, 2), (1, 2), (1, 2)],
            6: [(1, 2), (1, 2), (1, 1), (1, 1)],
        }
        for cells, hw in sizes.items():
            levels = make_levels([hw, hw], hw)
            groups, _ = make_groups(model, recipe, levels, make_targets(1, 0))
            assert [group.num_queries for group in groups] == [6, cells - 6]
            model.zero_grad()
            assert_trains(model, recipe, levels, make_targets(3, 0))

    def test_padding_cells_are_taken_when_nothing_else_is_left(
        self, small_recipe: Load, make_levels: Levels
    ) -> None:
        recipe = small_recipe("ms_hybrid_ddetr_pp_300q")
        full, part = [(2, 3), (2, 2), (1, 2), (1, 1)], [(1, 1), (1, 1), (1, 1), (1, 1)]
        assert_trains(build(recipe), recipe, make_levels([full, part], full), make_targets(2, 2))


class TestIndependent:
    def test_each_has_proposals_of_its_own(self, small_recipe: Load, levels: FeatureLevels) -> None:
        recipe = small_recipe("ms_group_ddetr_pp_300q")
        groups, _ = make_groups(build(recipe), recipe, levels, make_targets(1, 1))
        assert [group.name for group in groups] == ["primary", name_group(1), name_group(2)]
        for first, second in pairwise(groups):
            assert first.proposals is not None
            assert second.proposals is not None
            assert not torch.equal(first.proposals.logits, second.proposals.logits)

    def test_start_apart_from_one_another_and_from_the_primary(self, small_recipe: Load) -> None:
        """Copies would choose the same cells for ever."""
        recipe = small_recipe("group_ddetr_pp_300q")
        model = composition.build_model(recipe.model, NUM_CLASSES)
        assert model.training_groups is not None
        stages = model.training_groups.independent.stages  # type: ignore[union-attr]
        assert stages is not None
        projections = [stage.memory_proj.weight for stage in stages]
        projections.append(model.query_source.memory_proj.weight)  # type: ignore[union-attr]
        contents = [each.weight for each in model.training_groups.independent.content]  # type: ignore[union-attr]
        contents.append(model.query_source.content.weight)  # type: ignore[union-attr]
        for tensors in (projections, contents):
            assert len({tuple(t.flatten().tolist()) for t in tensors}) == 3
            spread = [float(t.detach().std()) for t in tensors]
            assert max(spread) < 1.4 * min(spread)

    @pytest.mark.parametrize("one_to_many", ["primary", "matched"])
    def test_one_to_many_is_for_the_primary_or_for_all(
        self, one_to_many: str, small_recipe: Load, levels: FeatureLevels
    ) -> None:
        recipe = small_recipe(
            "ms_group_ddetr_pp_300q", f"supervision.group.one_to_many={one_to_many}"
        )
        output: ModelOutput = build(recipe).forward_features(levels)
        branches = [group.one_to_many is not None for group in output.groups]
        assert branches == [True] + [one_to_many == "matched"] * 2


@pytest.mark.parametrize("name", ["ms_hybrid_ddetr_pp_300q", "ms_group_ddetr_pp_300q"])
def test_groups_of_a_one_stage_model_are_learned(
    name: str, small_recipe: Load, levels: FeatureLevels
) -> None:
    recipe = small_recipe(
        name,
        *("model.two_stage=false", "model.mixed_query_selection=false"),
        "supervision.proposals=null",
    )
    model = build(recipe)
    (primary, *extra), _ = make_groups(model, recipe, levels, make_targets(1, 1))
    for group in extra:
        assert group.references.shape == (2, group.num_queries, 2)
        assert (group.proposals, group.cells) == (None, None)
        assert torch.equal(group.content[0], group.content[1])
        shared = min(group.num_queries, primary.num_queries)
        assert not torch.equal(group.content[:, :shared], primary.content[:, :shared])
    assert_trains(model, recipe, levels, make_targets(2, 0))


class TestDenoising:
    def test_content_is_the_noised_class_and_nothing_on_padding(
        self, small_recipe: Load, levels: FeatureLevels
    ) -> None:
        recipe = small_recipe("ms_cdn_ddetr_pp_900q")
        model = build(recipe)
        (_, group), _ = make_groups(model, recipe, levels, make_targets(2, 1))
        noised = group.noised
        assert noised is not None
        table = model.training_groups.denoising.labels.weight  # type: ignore[union-attr]
        for image, slot in noised.valid.nonzero().tolist():
            assert torch.equal(group.content[image, slot], table[noised.labels[image, slot]])
        padding = ~noised.valid
        assert padding.sum() == 4
        assert not group.content[padding].any()
        assert (group.references[padding] == 0.5).all()

    def test_there_are_none_without_noised_targets_and_in_evaluation(
        self, small_recipe: Load, levels: FeatureLevels
    ) -> None:
        recipe = small_recipe("ms_hybrid_cdn_ddetr_pp_300q")
        model, noised = build(recipe), noise(recipe, make_targets(1, 1))
        names = {
            (training, given): [
                group.name
                for group in model.train(training)
                .forward_features(levels, noised=noised if given else None)
                .extra_groups
            ]
            for training in (True, False)
            for given in (True, False)
        }
        assert names == {
            (True, True): ["hybrid", "denoising"],
            (True, False): ["hybrid"],
            (False, True): [],
            (False, False): [],
        }
        asked = model.eval().forward_features(levels, with_extra_groups=True, noised=noised)
        assert len(asked.extra_groups) == 2


def assert_trains(
    model: DetectionModel, recipe: Recipe, levels: FeatureLevels, targets: Targets
) -> None:
    """Forward, losses and backward are finite, and no parameter behind the neck is left out."""
    output = model.forward_features(levels, noised=noise(recipe, targets))
    criterion = build_criterion(recipe.supervision, recipe.model.query_groups)
    queries = sum(group.one_to_one.logits.shape[2] for group in output.groups)
    u = torch.rand(*output.one_to_one.logits.shape[:2], queries)
    terms = criterion(output, targets, num_targets=float(targets.counts.sum()), u=u)
    total = torch.stack([term.value * term.weight for term in terms]).sum()
    assert total.isfinite()
    total.backward()  # type: ignore[no-untyped-call]
    parts = (model.encoder, model.query_source, model.decoder, model.training_groups)
    for part in parts:
        assert part is not None
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
