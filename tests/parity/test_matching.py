"""Assignments and loss terms against the golden numbers; no model is involved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision, total_loss
from msdetr.structures import Assignment, LossTerm, ModelOutput, Predictions, Proposals, Targets

pytestmark = pytest.mark.golden

ONE_TO_ONE = HungarianAssigner(class_weight=2, l1_weight=5, giou_weight=2)
BOXES_ONLY = HungarianAssigner(class_weight=0, l1_weight=5, giou_weight=2)


def one_to_many(k: int = 6, threshold: float = 0.4) -> OneToManyAssigner:
    return OneToManyAssigner(
        k=k, threshold=threshold, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
    )


def assigner_named(rule: str) -> HungarianAssigner | OneToManyAssigner:
    if rule == "hungarian":
        return ONE_TO_ONE
    if rule == "hungarian_boxes_only":
        return BOXES_ONLY
    numbers = re.fullmatch(r"one_to_many_k(\d+)_t([\d.]+)", rule)
    assert numbers, f"no assigner is known for the rule {rule}"
    return one_to_many(int(numbers[1]), float(numbers[2]))


def pairs(assignment: Assignment, layer: int, num_images: int) -> list[list[list[int]]]:
    rows = torch.stack([assignment.query, assignment.target], dim=1)
    chosen = assignment.valid & (assignment.layer == layer)
    return [sorted(rows[chosen & (assignment.image == b)].tolist()) for b in range(num_images)]


def read_targets(tensors: dict[str, Tensor], prefix: str, num_images: int) -> Targets:
    return Targets.from_lists(
        [tensors[f"{prefix}target{b}.boxes"] for b in range(num_images)],
        [tensors[f"{prefix}target{b}.labels"] for b in range(num_images)],
    )


@pytest.fixture(scope="module")
def matching(golden_dir: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = load_file(golden_dir / "matching.safetensors")
    return tensors, json.loads((golden_dir / "matching.json").read_text())


def test_pairs_are_the_published_ones(
    matching: tuple[dict[str, Tensor], dict[str, Any]], matching_case: tuple[str, str]
) -> None:
    tensors, expected = matching
    name, rule = matching_case
    logits, boxes = tensors[f"{name}/pred_logits"], tensors[f"{name}/pred_boxes"]
    targets = read_targets(tensors, f"{name}/", len(logits))
    u = torch.rand(1, *logits.shape[:2], generator=torch.Generator().manual_seed(0))
    found = assigner_named(rule).assign(Predictions(logits[None], boxes[None]), targets, u)
    assert pairs(found, 0, len(logits)) == expected[name][rule]


class Variant:
    """One golden case: the stored predictions, targets and expectations."""

    def __init__(self, folder: Path, name: str) -> None:
        self.tensors = load_file(folder / f"{name}.safetensors")
        self.expected = json.loads((folder / "expected.json").read_text())[name]
        self.num_layers = self.expected["config"]["decoder_layers"]
        self.num_images = len(self.tensors["out/pred_logits"])
        self.targets = read_targets(self.tensors, "in/", self.num_images)

    def output(self) -> ModelOutput:
        stored = {key.split("/")[1].split(".")[0] for key in self.tensors}
        proposals = None
        if "enc_outputs" in stored:
            parts = [f"out/enc_outputs.{name}" for name in ("pred_logits", "pred_boxes", "anchors")]
            proposals = Proposals(*(self.tensors[part] for part in parts))
        return ModelOutput(
            one_to_one=self._stacked("out/"),
            one_to_many=self._stacked("out/o2m_outputs.") if "o2m_outputs" in stored else None,
            proposals=proposals,
        )

    def _stacked(self, prefix: str) -> Predictions:
        names = [f"{prefix}aux_outputs.{i}." for i in range(self.num_layers - 1)] + [prefix]
        logits = torch.stack([self.tensors[f"{name}pred_logits"] for name in names])
        return Predictions(
            logits, torch.stack([self.tensors[f"{name}pred_boxes"] for name in names])
        )

    def published_name(self, term: LossTerm) -> str:
        stem = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}[term.name]
        if term.branch == "proposals":
            return f"{stem}_enc"
        layer = "" if term.layer == self.num_layers - 1 else f"_{term.layer}"
        return stem + layer + ("_o2m" if term.branch == "one_to_many" else "")

    def supervision(self, output: ModelOutput) -> Supervision:
        mixed = output.one_to_many is not None
        doubled = LossWeights(class_weight=2, box_weight=5, giou_weight=2)
        single = LossWeights(class_weight=1 if mixed else 2, box_weight=5, giou_weight=2)
        return Supervision(
            assign=assign_together,
            one_to_one=BranchRule(ONE_TO_ONE, single),
            one_to_many=BranchRule(one_to_many(), doubled) if mixed else None,
            proposals=BranchRule(BOXES_ONLY, doubled) if output.proposals is not None else None,
        )


@pytest.fixture(scope="module")
def variant(golden_dir: Path, small_name: str) -> Variant:
    return Variant(golden_dir, small_name)


def draw(output: ModelOutput) -> Tensor:
    shape = output.one_to_one.logits.shape[:3]
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_loss_terms_weights_and_total(variant: Variant) -> None:
    output = variant.output()
    criterion = Criterion(variant.supervision(output))
    num_targets = float(variant.targets.counts.sum())
    terms = criterion(output, variant.targets, num_targets=num_targets, u=draw(output))
    values = {variant.published_name(term): term.value.item() for term in terms}
    weights = {variant.published_name(term): term.weight for term in terms}
    assert len(values) == len(terms)
    assert values == pytest.approx(variant.expected["losses"], rel=1e-5)
    assert weights == variant.expected["weights"]
    assert total_loss(terms).item() == pytest.approx(variant.expected["total"], rel=1e-5)


def test_pairs_of_variants(variant: Variant) -> None:
    output = variant.output()
    branches = variant.supervision(output).branches(output, variant.targets, draw(output))
    found = dict(zip([b.name for b in branches], assign_together(branches), strict=True))
    last = variant.num_layers - 1
    stored = variant.expected["matching"]
    actual = {"hungarian_last": pairs(found["one_to_one"], last, variant.num_images)}
    if "one_to_many" in found:
        actual["one_to_many_last"] = pairs(found["one_to_many"], last, variant.num_images)
        actual["one_to_many_layer0"] = pairs(found["one_to_many"], 0, variant.num_images)
    assert actual == stored
