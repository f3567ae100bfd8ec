"""Recording of predictions, assignments and losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from msdetr.inspection.recording import Recorder
from msdetr.inspection.trace import BRANCHES, LOSS_NAMES
from msdetr.losses import Criterion

Scene = Any


def test_losses_of_the_images_add_up_to_those_of_the_batch(scene: Scene) -> None:
    made = scene(seed=3)
    terms = made.criterion(made.output, made.targets, num_targets=1.0, u=made.u)
    for term in terms:
        recorded = [
            getattr(image, term.branch).losses[term.layer, LOSS_NAMES.index(term.name)]
            for image in made.trace.images
        ]
        torch.testing.assert_close(torch.stack(recorded).sum(), term.value)
    assert {term.branch for term in terms} == set(BRANCHES)


def test_probabilities_are_those_of_the_targets_classes(scene: Scene) -> None:
    made = scene(counts=(4, 2))
    for index, image in enumerate(made.trace.images):
        for name in BRANCHES:
            logits = getattr(made.output, name).logits[:, index]
            expected = logits[..., image.labels].sigmoid().transpose(1, 2)
            torch.testing.assert_close(getattr(image, name).probabilities, expected)


def test_hungarian_costs_are_the_assigners_own(scene: Scene) -> None:
    made = scene(counts=(4,))
    cost = made.trace.info.one_to_one.cost(made.output.one_to_one, made.targets)[:, 0]
    assert torch.equal(made.trace.images[0].hungarian_cost, cost)


def test_without_a_branch_the_predictions_stand_for_both(scene: Scene) -> None:
    image = scene(has_one_to_many=False).trace.images[0]
    assert torch.equal(image.one_to_one.boxes_cxcywh, image.one_to_many.boxes_cxcywh)
    assert torch.equal(image.one_to_one.probabilities, image.one_to_many.probabilities)


def test_criterion_without_one_to_many_rule_is_refused(scene: Scene) -> None:
    supervision = replace(scene().criterion.supervision, one_to_many=None)
    with pytest.raises(ValueError, match="needs a Hungarian and a one-to-many assigner"):
        Recorder(Criterion(supervision))
