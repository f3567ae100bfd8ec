"""The suppressor and the varifocal loss alone, against published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.interop.suppressor_names import decoder_aliases
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision, VarifocalLoss
from msdetr.model import LayerSizes, Suppressor
from msdetr.model.box_relation import relation_features
from msdetr.model.suppressor import more_confident
from msdetr.structures import Assigner, Assignment, ModelOutput, Predictions, Targets

pytestmark = pytest.mark.golden


def tensors_of(folder: Path, file: str, case: str) -> dict[str, Tensor]:
    stored = load_file(folder / f"{file}.safetensors")
    prefix = f"{case}/"
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def farthest(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours.detach() - theirs).abs().max())


class SuppressorCase:
    """A suppressor with its weights, inputs and what is expected."""

    def __init__(self, folder: Path, name: str, published_values: Any) -> None:
        self.settings = json.loads((folder / "suppressor.json").read_text())[name]
        self.tensors = tensors_of(folder, "suppressor", name)
        sizes = LayerSizes(
            width=self.settings["width"],
            heads=self.settings["heads"],
            levels=1,
            points=1,
            ffn_width=self.settings["ffn"],
            dropout=0.0,
        )
        assert self.settings["token_bias"] == self.settings["relation"]
        self.suppressor = Suppressor(
            sizes, learned_keys=self.settings["tokens"], relation=self.settings["relation"]
        )
        self.aliases = {
            name: decoder_aliases(f"decoder.suppressor.{name}")
            for name in self.suppressor.state_dict()
        }
        values = published_values(self.settings["state"], self.settings["salt"])
        taken = {alias for aliases in self.aliases.values() for alias in aliases}
        assert taken == set(values)
        state = {name: values[aliases[0]] for name, aliases in self.aliases.items()}
        self.suppressor.load_state_dict(state)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        content, position = (
            self.tensors[f"in/{name}"].clone().requires_grad_() for name in ("content", "position")
        )
        return content, position, self.tensors["in/boxes"], self.tensors["in/logits"]


@pytest.fixture(scope="module")
def case(mds_dir: Path, suppressor_name: str, published_values: Any) -> SuppressorCase:
    return SuppressorCase(mds_dir, suppressor_name, published_values)


def test_who_sees_whom(case: SuppressorCase) -> None:
    logits = case.tensors["in/logits"]
    assert torch.equal(logits.amax(dim=-1), case.tensors["out/confidence"])
    assert torch.equal(~more_confident(logits), case.tensors["out/blocked"].bool())


def test_attention(case: SuppressorCase) -> None:
    content, position, boxes, logits = case.inputs()
    attention = case.suppressor.attention
    weights = attention.weights(content, position, boxes, more_confident(logits))
    assert farthest(weights, case.tensors["out/attention"]) <= 2e-5
    hidden = case.tensors["out/blocked"].bool()[:, None].expand(-1, weights.shape[1], -1, -1)
    assert not weights[..., : hidden.shape[-1]][hidden].any()
    if case.settings["relation"]:
        assert farthest(relation_features(boxes, boxes), case.tensors["out/relation"]) <= 2e-5
        assert farthest(attention.bias(boxes), case.tensors["out/attention_bias"]) <= 2e-5


def test_output_and_gradients(case: SuppressorCase) -> None:
    content, position, boxes, logits = case.inputs()
    case.suppressor.zero_grad()
    output = case.suppressor(content, position, boxes, logits)
    assert farthest(output, case.tensors["out/output"]) <= 2e-5
    torch.autograd.backward((output * case.tensors["in/grad_output"]).sum())
    assert content.grad is not None
    assert farthest(content.grad, case.tensors["out/grad_content"]) <= 2e-5
    if not case.settings["relation"]:
        assert position.grad is not None
        assert farthest(position.grad, case.tensors["out/grad_position"]) <= 2e-5
    expected = case.settings["grad_norms"]
    norms = {}
    for name, parameter in case.suppressor.named_parameters():
        (alias,) = [alias for alias in case.aliases[name] if alias in expected]
        assert parameter.grad is not None, name
        norms[alias] = float(parameter.grad.double().norm())
    assert norms == pytest.approx(expected, rel=1e-4, abs=1e-6 * max(expected.values()))


def test_varifocal_elements(mds_dir: Path) -> None:
    tensors = tensors_of(mds_dir, "vfl", "elements")
    logits, target = tensors["in/logits"].requires_grad_(), tensors["in/target"]
    assert logits.dtype == torch.float64
    loss = VarifocalLoss()
    background = loss.background(logits.reshape(-1, 1)).view(logits.shape)
    values = background + loss.excess(logits, target)
    assert farthest(values, tensors["out/loss"]) <= 1e-12 * float(tensors["out/loss"].abs().max())
    (slope,) = torch.autograd.grad(values.sum(), logits)
    assert farthest(slope, tensors["out/grad"]) <= 1e-12


def test_varifocal_losses(mds_dir: Path, vfl_name: str) -> None:
    if vfl_name == "elements":
        return
    settings = json.loads((mds_dir / "vfl.json").read_text())[vfl_name]
    tensors = tensors_of(mds_dir, "vfl", vfl_name)
    images = range(tensors["in/logits"].shape[1])
    targets = Targets.from_lists(
        [tensors[f"in/target{b}.boxes"] for b in images],
        [tensors[f"in/target{b}.labels"] for b in images],
    )
    many = OneToManyAssigner(
        k=settings["k"],
        threshold=settings["threshold"],
        iou_weight=0.7,
        class_weight=0.3,
        max_positive_fraction=None,
    )
    rules: dict[str, Assigner] = {"one_to_one": HungarianAssigner(2, 5, 2), "one_to_many": many}
    for name, assigner in rules.items():
        _check_rule(settings, tensors, targets, name, assigner)


def _check_rule(
    settings: dict[str, Any],
    tensors: dict[str, Tensor],
    targets: Targets,
    name: str,
    assigner: Assigner,
) -> None:
    logits = tensors["in/logits"].clone().requires_grad_()
    predictions = Predictions(logits, tensors["in/boxes"])
    criterion = Criterion(
        Supervision(assign_together, BranchRule(assigner, LossWeights(1, 0, 0))), VarifocalLoss()
    )
    u = torch.zeros(logits.shape[:3])
    output = ModelOutput(predictions)
    (rows,) = assign_together(criterion.supervision.branches(output, targets, u))
    found, ious = _pairs(rows, predictions, targets)
    assert found == settings["pairs"][name]
    flat = [value for layer in settings["iou"][name] for image in layer for value in image]
    assert ious == pytest.approx(flat, abs=1e-6)
    terms = criterion(output, targets, num_targets=settings["normaliser"], u=u)
    classes = [term.value for term in terms if term.name == "class"]
    assert [v.item() for v in classes] == pytest.approx(settings["losses"][name], rel=1e-5)
    (slope,) = torch.autograd.grad(torch.stack(classes).sum(), logits)
    assert farthest(slope, tensors[f"out/grad_{name}"]) <= 1e-6
    norms = slope.double().flatten(1).norm(dim=1).tolist()
    assert norms == pytest.approx(settings["grad_norms"][name], rel=1e-4)


def _pairs(
    rows: Assignment, predictions: Predictions, targets: Targets
) -> tuple[list[list[list[list[int]]]], list[float]]:
    """Sorted pairs per layer and image, and the IoU of each in the same order."""
    num_layers, num_images = predictions.logits.shape[:2]
    pairs: list[list[list[list[int]]]] = [
        [[] for _ in range(num_images)] for _ in range(num_layers)
    ]
    columns = (rows.layer, rows.image, rows.query, rows.target)
    places = sorted(zip(*(column[rows.valid].tolist() for column in columns), strict=True))
    ious = []
    for layer, image, query, target in places:
        pairs[layer][image].append([query, target])
        box = predictions.boxes_cxcywh[layer, image, query]
        goal = targets.boxes_cxcywh[image, target]
        ious.append(float(iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(goal))[0]))
    return pairs, ious
