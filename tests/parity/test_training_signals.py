"""Loss terms, gradients, pairs and detections of whole models against the published ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.interop.official import published_names
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision, total_loss
from msdetr.model import select_detections
from msdetr.structures import Assignment, LossTerm, ModelOutput

pytestmark = pytest.mark.golden

LOSS_NAMES = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


def supervise(output: ModelOutput) -> Supervision:
    mixed = output.one_to_many is not None
    many = OneToManyAssigner(
        k=6, threshold=0.4, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
    )
    one = HungarianAssigner(class_weight=2, l1_weight=5, giou_weight=2)
    objects = HungarianAssigner(class_weight=0, l1_weight=5, giou_weight=2)
    double, single = (LossWeights(class_weight=w, box_weight=5, giou_weight=2) for w in (2, 1))
    return Supervision(
        assign=assign_together,
        one_to_one=BranchRule(one, single if mixed else double),
        one_to_many=BranchRule(many, double) if mixed else None,
        proposals=BranchRule(objects, double) if output.proposals is not None else None,
    )


class Step:
    """Forward, assignment, losses and backward of one case."""

    def __init__(self, case: Any) -> None:
        self.case = case
        case.model.zero_grad()
        self.output = case.predict()
        self.supervision = supervise(self.output)
        shape = self.output.one_to_one.logits.shape[:3]
        self.u = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        num_targets = float(case.targets.counts.sum())
        criterion = Criterion(self.supervision)
        self.terms = criterion(self.output, case.targets, num_targets=num_targets, u=self.u)
        self.total = total_loss(self.terms)
        torch.autograd.backward(self.total)

    def published_name(self, term: LossTerm) -> str:
        stem = LOSS_NAMES[term.name]
        if term.branch == "proposals":
            return f"{stem}_enc"
        last = self.output.one_to_one.logits.shape[0] - 1
        layer = "" if term.layer == last else f"_{term.layer}"
        return stem + layer + ("_o2m" if term.branch == "one_to_many" else "")


@pytest.fixture(scope="module")
def step(golden_case: Callable[[str], Any], small_name: str) -> Step:
    return Step(golden_case(small_name))


def test_loss_terms_and_total(step: Step) -> None:
    values = {step.published_name(term): term.value.item() for term in step.terms}
    assert values == pytest.approx(step.case.expected["losses"], rel=1e-5)
    assert step.total.item() == pytest.approx(step.case.expected["total"], rel=1e-5)


def test_gradient_norms(step: Step) -> None:
    names = published_names(step.case.model.state_dict())
    norms: dict[str, float] = {}
    for name, parameter in step.case.model.named_parameters():
        stored = [alias for alias in names[name] if alias in step.case.expected["grad_norms"]]
        assert len(stored) == (0 if parameter.grad is None else 1), name
        norms.update({alias: float(parameter.grad.norm()) for alias in stored})
    assert norms == pytest.approx(step.case.expected["grad_norms"], rel=1e-4, abs=0)


def _pairs(assignment: Assignment, layer: int, num_images: int) -> list[list[list[int]]]:
    rows = torch.stack([assignment.query, assignment.target], dim=1)
    chosen = assignment.valid & (assignment.layer == layer)
    return [sorted(rows[chosen & (assignment.image == b)].tolist()) for b in range(num_images)]


def test_matched_pairs(step: Step) -> None:
    branches = step.supervision.branches(step.output, step.case.targets, step.u)
    assigned = assign_together(branches)
    found = dict(zip([branch.name for branch in branches], assigned, strict=True))
    num_layers, num_images = step.output.one_to_one.logits.shape[:2]
    pairs = {"hungarian_last": _pairs(found["one_to_one"], num_layers - 1, num_images)}
    if "one_to_many" in found:
        pairs["one_to_many_last"] = _pairs(found["one_to_many"], num_layers - 1, num_images)
        pairs["one_to_many_layer0"] = _pairs(found["one_to_many"], 0, num_images)
    assert pairs == step.case.expected["matching"]


def _same_up_to_ties(scores: Tensor, ours: Tensor, theirs: Tensor, atol: float) -> bool:
    """Rows of ``ours`` equal those of ``theirs``, in any order where scores differ by < 1e-5."""
    tied = (scores[:, None] - scores[None]).abs() < 1e-5
    equal = ((ours[:, None] - theirs[None]).abs() <= atol).all(-1) & tied
    return bool(equal.any(1).all() and equal.any(0).all())


def test_detections(step: Step) -> None:
    expected = step.case.expected["detections"]
    last = step.output.one_to_one
    found = select_detections(
        last.logits[-1].detach(),
        last.boxes_cxcywh[-1].detach(),
        torch.tensor(expected["image_sizes_hw"]),
        expected["top"],
    )
    torch.testing.assert_close(found.scores, torch.tensor(expected["scores"]), atol=1e-5, rtol=0)
    for image in range(found.scores.shape[0]):
        labels = torch.tensor(expected["labels"][image])[:, None]
        ours = torch.cat([found.boxes_xyxy_px[image], found.labels[image, :, None]], dim=-1)
        theirs = torch.cat([torch.tensor(expected["boxes_xyxy"][image]), labels], dim=-1)
        # Labels are whole numbers, so the tolerance of the boxes compares them exactly.
        assert _same_up_to_ties(found.scores[image], ours, theirs, atol=1e-3)
