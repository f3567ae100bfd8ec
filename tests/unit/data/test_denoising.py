"""Noised targets: what the noise depends on, and how it is distributed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from msdetr.boxes import cxcywh_to_xyxy
from msdetr.build import build_collator, build_model, build_train_collator
from msdetr.data.denoising import DenoisingNoise
from msdetr.data.labels import Category, LabelSpace
from msdetr.data.sample import Sample
from msdetr.recipe import Recipe
from msdetr.structures import NoisedTargets, Targets

CDN = DenoisingNoise(
    contrastive=True,
    budget=100,
    groups=None,
    label_redraw=0.25,
    box_noise=1.0,
    max_targets=None,
    labels=tuple(range(7)),
    seed=3,
)
DN = replace(CDN, contrastive=False, budget=None, groups=5, label_redraw=0.2, box_noise=0.4)
KINDS = {"contrastive": CDN, "plain": DN}


@pytest.fixture(params=KINDS)
def noise(request: pytest.FixtureRequest) -> DenoisingNoise:
    return KINDS[request.param]


def make_targets(counts: dict[int, int]) -> Targets:
    """Targets of images by id, the same ones for an id wherever it stands."""
    boxes, labels = [], []
    for image_id, count in counts.items():
        generator = torch.Generator().manual_seed(image_id)
        centre_and_sides = torch.rand(count, 4, generator=generator)
        # Half a side of noise leaves them within the image.
        scale, least = torch.tensor([0.4, 0.4, 0.2, 0.2]), torch.tensor([0.3, 0.3, 0.05, 0.05])
        boxes.append(centre_and_sides * scale + least)
        labels.append(torch.randint(7, (count,), generator=generator))
    return Targets.from_lists(boxes, labels, list(counts))


def of_image(noised: NoisedTargets, index: int) -> list[Tensor]:
    fields = (noised.labels, noised.boxes_cxcywh, noised.logits, noised.target, noised.valid)
    return [field[index] for field in fields]


def same(first: NoisedTargets, i: int, second: NoisedTargets, j: int) -> bool:
    pairs = zip(of_image(first, i), of_image(second, j), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class TestNoiseDependsOn:
    def test_neither_the_place_in_the_batch_nor_the_other_images(
        self, noise: DenoisingNoise
    ) -> None:
        first = noise(make_targets({11: 3, 12: 4, 13: 0}), [2, 2, 2])
        second = noise(make_targets({20: 4, 11: 3}), [2, 1])
        third = noise(make_targets({20: 4, 11: 3}), [1, 2])
        assert same(first, 0, third, 1)
        assert not same(first, 0, second, 1)

    def test_epoch_seed_and_image_id(self, noise: DenoisingNoise) -> None:
        targets = make_targets({11: 3, 12: 3})
        usual = noise(targets, [2, 2])
        assert same(usual, 0, noise(targets, [2, 3]), 0)
        assert not same(usual, 1, noise(targets, [2, 3]), 1)
        assert not same(usual, 0, replace(noise, seed=4)(targets, [2, 2]), 0)
        renamed = replace(targets, image_ids=torch.tensor([11, 15]))
        assert not same(usual, 1, noise(renamed, [2, 2]), 1)

    def test_no_global_generator(self, noise: DenoisingNoise) -> None:
        before = torch.get_rng_state()
        noise(make_targets({1: 3}), [0])
        assert torch.equal(torch.get_rng_state(), before)

    def test_no_process(self, noise: DenoisingNoise) -> None:
        targets = make_targets({1: 3, 2: 1})
        copied: DenoisingNoise = pickle.loads(pickle.dumps(noise))  # noqa: S301 - made here
        assert same(noise(targets, [0, 0]), 0, copied(targets, [0, 0]), 0)


class TestSlots:
    @pytest.mark.parametrize(
        ("most", "groups", "rows"),
        [(0, 0, 0), (1, 100, 200), (3, 33, 198), (50, 2, 200), (51, 1, 102), (250, 1, 500)],
    )
    def test_budget_divides_among_groups(self, most: int, groups: int, rows: int) -> None:
        found = CDN(make_targets({1: most, 2: min(most, 1)}), [0, 0])
        assert (found.num_groups, found.labels.shape) == (groups, (2, rows))
        assert int(found.positive.sum()) == groups * (most + min(most, 1))

    @pytest.mark.parametrize(("most", "groups", "rows"), [(0, 0, 0), (1, 5, 5), (250, 5, 1250)])
    def test_fixed_number_of_groups(self, most: int, groups: int, rows: int) -> None:
        found = DN(make_targets({1: most}), [0])
        assert (found.num_groups, found.labels.shape) == (groups, (1, rows))
        assert found.positive.all()

    def test_order_by_hand(self) -> None:
        found = replace(CDN, budget=4)(make_targets({1: 2, 2: 1}), [0, 0])
        assert found.num_groups == 2
        assert found.target.tolist() == [[0, 1] * 4, [0] * 8]
        assert found.valid.tolist() == [[True] * 8, [True, False] * 4]
        positive = [True, True, False, False] * 2
        assert found.positive.tolist() == [
            positive,
            [p and slot % 2 == 0 for slot, p in enumerate(positive)],
        ]

    def test_padding_is_zero(self, noise: DenoisingNoise) -> None:
        found = noise(make_targets({1: 4, 2: 1, 3: 0}), [0, 0, 0])
        padding = ~found.valid
        assert padding[2].all()
        for field in (found.labels, found.boxes_cxcywh, found.logits, found.target):
            assert not field[padding].any()

    @pytest.mark.parametrize("limit", [1, 5, 249])
    def test_random_subset_of_many_targets(self, noise: DenoisingNoise, limit: int) -> None:
        limited = replace(noise, max_targets=limit)
        targets = make_targets({1: 250, 2: 1})
        found = limited(targets, [0, 0])
        halves = 2 if noise.contrastive else 1
        assert found.labels.shape[1] == found.num_groups * halves * limit
        chosen = found.target[0].unique()
        assert len(chosen) == limit
        assert found.target[0, :limit].tolist() == chosen.tolist()
        other = limited(targets, [1, 1]).target[0].unique()
        assert chosen.tolist() != other.tolist()
        plain = replace(limited, label_redraw=0.0, box_noise=0.0)(targets, [0, 0])
        own = targets.boxes_cxcywh[0][plain.target[0]]
        torch.testing.assert_close(plain.boxes_cxcywh[0], own)
        assert torch.equal(plain.labels[0], targets.labels[0][plain.target[0]])

    def test_limit_that_is_not_reached_changes_nothing(self, noise: DenoisingNoise) -> None:
        targets = make_targets({1: 4, 2: 2})
        found, plain = (n(targets, [0, 0]) for n in (replace(noise, max_targets=4), noise))
        assert same(found, 0, plain, 0)
        assert same(found, 1, plain, 1)


class TestBoxes:
    def test_positive_corners_move_by_less_than_half_a_side_and_negative_ones_by_more(
        self,
    ) -> None:
        targets = make_targets({1: 10})
        found = CDN(targets, [0])
        own = targets.boxes_cxcywh[0][found.target[0]]
        # Noised negatives may be clamped; the targets lie far enough inside for positives.
        moved = cxcywh_to_xyxy(found.boxes_cxcywh[0]) - cxcywh_to_xyxy(own)
        distance = moved.abs() / (own[:, 2:].repeat(1, 2) / 2)
        positive = found.positive[0]
        assert distance[positive].max() < 1 + 1e-5
        assert distance[positive].min() < 0.05
        corners = cxcywh_to_xyxy(found.boxes_cxcywh[0][~positive])
        inside = ((corners > 0) & (corners < 1)).all(1)
        assert inside.any()
        # Far noise may turn a box inside out, which the conversion of corners undoes.
        upright = (found.boxes_cxcywh[0][~positive][:, 2:] > 0).all(1) & inside
        assert distance[~positive][upright].min() > 1 - 1e-5

    def test_plain_noise_stays_within_its_scale(self) -> None:
        targets = make_targets({1: 40})
        found = DN(targets, [0])
        own = targets.boxes_cxcywh[0][found.target[0]]
        moved = (found.boxes_cxcywh[0] - own).abs() / own[:, 2:].repeat(1, 2)
        assert 0.19 < moved[:, :2].max() <= 0.2 + 1e-5
        assert 0.38 < moved[:, 2:].max() <= 0.4 + 1e-5

    def test_logits_are_clamped_at_a_thousandth(self, noise: DenoisingNoise) -> None:
        whole = Targets.from_lists([torch.tensor([[0.5, 0.5, 1.0, 1.0]])], [torch.tensor([0])])
        found = replace(noise, box_noise=0.0)(whole, [0]).logits[0, 0].sigmoid()
        torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.999, 0.999]), atol=1e-4, rtol=0)


class TestLabels:
    @pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
    def test_redrawn_with_the_probability_and_uniformly(
        self, noise: DenoisingNoise, probability: float
    ) -> None:
        targets = make_targets(dict.fromkeys(range(1, 61), 50))
        made = replace(noise, label_redraw=probability)
        found = made(targets, [0] * 60)
        own = targets.labels.gather(1, found.target)
        changed = (found.labels != own).float().mean().item()
        # One of seven draws hits the label there was.
        assert changed == pytest.approx(probability * 6 / 7, abs=0.02)
        if probability == 1.0:
            share = found.labels.flatten().bincount(minlength=7) / found.labels.numel()
            torch.testing.assert_close(share, torch.full((7,), 1 / 7), atol=0.02, rtol=0)

    def test_only_labels_that_classes_have(self, small_recipe: Callable[..., Recipe]) -> None:
        categories = [Category(id_, str(id_)) for id_ in (1, 13, 90)]
        space = LabelSpace.coco91(categories)
        recipe = small_recipe("cdn_ddetr_pp_900q", "model.query_groups.denoising.label_redraw=1.0")
        model = build_model(recipe.model, space.num_classes)
        sample = Sample(
            pixels=torch.zeros(3, 32, 32, dtype=torch.uint8),
            boxes_cxcywh=torch.full((5, 4), 0.5),
            labels=torch.full((5,), 13),
            image_id=1,
            original_hw=(32, 32),
        )
        noised = build_train_collator(recipe, model, space)([sample]).noised
        assert noised is not None
        assert noised.labels.unique().tolist() == [1, 13, 90]


def test_evaluation_draws_nothing(grouped_recipe: str, small_recipe: Callable[..., Recipe]) -> None:
    recipe = small_recipe(grouped_recipe)
    model = build_model(recipe.model, 3)
    assert build_collator(recipe, model).noise is None
    space = LabelSpace((1, 2, 3), ("a", "b", "c"), 3)
    noise = build_train_collator(recipe, model, space).noise
    assert (noise is None) == (recipe.model.query_groups.denoising is None)
