"""Whole models with a suppressor, and one with the varifocal loss, against published numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.assignment import assign_together
from msdetr.build import build_criterion, build_model
from msdetr.interop.official import from_published, published_names, to_published
from msdetr.losses import total_loss
from msdetr.model import SuppressingDecoder, parameter_group, select_detections
from msdetr.model.suppressor import more_confident
from msdetr.recipe import SupervisionRecipe, load_recipe
from msdetr.structures import Assignment, LossTerm, ModelOutput, Predictions

pytestmark = pytest.mark.golden

STEMS = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


def supervision_of(config: Mapping[str, Any], weights: Mapping[str, float]) -> SupervisionRecipe:
    def loss(suffix: str) -> dict[str, float]:
        names = {"class_weight": "loss_ce", "box_weight": "loss_bbox", "giou_weight": "loss_giou"}
        return {key: weights[name + suffix] for key, name in names.items()}

    rule = {**config["one_to_many"], "loss": loss("_o2m")}
    return SupervisionRecipe.model_validate(
        {
            "class_loss": config["class_loss"],
            "one_to_one": {"loss": loss("")},
            "one_to_many": rule,
            "proposals": {"loss": loss("_enc")},
        }
    )


class Step:
    """Forward, assignment, losses and backward of one case."""

    def __init__(self, case: Any) -> None:
        self.case = case
        case.model.zero_grad()
        self.output: ModelOutput = case.predict()
        criterion = build_criterion(
            supervision_of(case.expected["config"], case.expected["weights"])
        )
        shape = (self.output.num_layers, *self.output.one_to_one.logits.shape[1:3])
        u = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        num_targets = max(1.0, float(case.targets.counts.sum()))
        branches = criterion.supervision.branches(self.output, case.targets, u)
        pairs = assign_together(branches)
        self.pairs = {b.name: rows for b, rows in zip(branches, pairs, strict=True)}
        self.terms = criterion(self.output, case.targets, num_targets=num_targets, u=u)
        self.total = total_loss(self.terms)
        torch.autograd.backward(self.total)

    def layers_of(self, branch: str) -> int:
        predictions: Predictions = getattr(self.output, branch)
        return predictions.logits.shape[0]

    def published_name(self, term: LossTerm) -> str:
        if term.branch == "proposals":
            return f"{STEMS[term.name]}_enc"
        layer = "" if term.layer == self.layers_of(term.branch) - 1 else f"_{term.layer}"
        return STEMS[term.name] + layer + ("_o2m" if term.branch == "one_to_many" else "")


@pytest.fixture(scope="module")
def step(mds_case: Callable[[str], Any], mds_name: str) -> Step:
    return Step(mds_case(mds_name))


def _named(prefix: str, branch: Predictions) -> Iterator[tuple[str, Tensor]]:
    last = branch.logits.shape[0] - 1
    for layer in range(last + 1):
        place = prefix if layer == last else f"{prefix}aux_outputs.{layer}."
        yield f"out/{place}pred_logits", branch.logits[layer]
        yield f"out/{place}pred_boxes", branch.boxes_cxcywh[layer]


def test_outputs(step: Step) -> None:
    assert step.output.one_to_many is not None
    assert step.output.proposals is not None
    ours = dict(_named("", step.output.one_to_one))
    ours |= _named("o2m_outputs.", step.output.one_to_many)
    proposals = step.output.proposals
    ours["out/enc_outputs.pred_logits"] = proposals.logits
    ours["out/enc_outputs.pred_boxes"] = proposals.boxes_cxcywh
    ours["out/enc_outputs.anchors"] = proposals.anchors_cxcywh
    inner = ("confidence", "blocked", "attention", "attention_bias")
    theirs = {k: v for k, v in step.case.tensors.items() if k.startswith("out/")}
    outputs = {k: v for k, v in theirs.items() if k.removeprefix("out/") not in inner}
    assert ours.keys() == outputs.keys()
    for key, value in outputs.items():
        assert float((ours[key] - value).detach().abs().max()) <= 2e-5, key


def test_suppression(step: Step) -> None:
    """What the suppressor sees, from the published values of the layer before it."""
    tensors, decoder = step.case.tensors, step.case.model.decoder
    if "out/blocked" not in tensors:
        assert not isinstance(decoder, SuppressingDecoder)
        return
    seen: dict[str, Tensor] = {}

    def listen(_: Any, given: tuple[Tensor, ...]) -> None:
        attention = decoder.suppressor.attention
        content, position, boxes, logits = given
        visible = more_confident(logits)
        seen["blocked"] = ~visible
        seen["confidence"] = logits.amax(dim=-1)
        seen["attention"] = attention.weights(content, position, boxes, visible)
        if attention.relation is not None:
            seen["attention_bias"] = attention.bias(boxes)

    handle = decoder.suppressor.register_forward_pre_hook(listen)
    with torch.no_grad():
        step.case.predict()
    handle.remove()
    assert torch.equal(seen.pop("blocked"), tensors["out/blocked"].bool())
    for name, value in seen.items():
        assert float((value - tensors[f"out/{name}"]).abs().max()) <= 2e-5, name


def test_names_with_their_aliases(step: Step) -> None:
    ours = to_published(step.case.model.state_dict())
    state = step.case.expected["state"]
    assert {k: list(v.shape) for k, v in ours.items()} == {k: v["shape"] for k, v in state.items()}
    for key, entry in state.items():
        assert torch.equal(ours[key], ours[entry["values_of"]]), key


def test_loss_terms_weights_and_total(step: Step) -> None:
    expected = step.case.expected
    values = {step.published_name(term): term.value.item() for term in step.terms}
    weights = {step.published_name(term): term.weight for term in step.terms}
    assert len(values) == len(step.terms)
    assert values == pytest.approx(expected["losses"], rel=1e-5)
    assert weights == expected["weights"]
    assert step.total.item() == pytest.approx(expected["total"], rel=1e-5)


def test_gradient_norms(step: Step) -> None:
    expected = step.case.expected["grad_norms"]
    names = published_names(step.case.model.state_dict())
    norms: dict[str, float] = {}
    for name, parameter in step.case.model.named_parameters():
        stored = [alias for alias in names[name] if alias in expected]
        assert len(stored) == (0 if parameter.grad is None else 1), name
        norms.update({alias: float(parameter.grad.double().norm()) for alias in stored})
    tiny = 1e-6 * max(expected.values())
    assert norms == pytest.approx(expected, rel=1e-4, abs=tiny)


def _sorted_pairs(rows: Assignment, layer: int, num_images: int) -> list[list[list[int]]]:
    pairs = torch.stack([rows.query, rows.target], dim=1)
    chosen = rows.valid & (rows.layer == layer)
    return [sorted(pairs[chosen & (rows.image == b)].tolist()) for b in range(num_images)]


def test_pairs(step: Step) -> None:
    branch_of = {"hungarian": "one_to_one", "one_to_many": "one_to_many"}
    num_images = len(step.case.targets.counts)
    expected = dict(step.case.expected["matching"])
    proposals = _sorted_pairs(step.pairs["proposals"], 0, num_images)
    assert proposals == expected.pop("proposals")
    for key, pairs in expected.items():
        kind, place = key.rsplit("_", 1)
        branch = branch_of[kind]
        last = step.layers_of(branch) - 1
        layer = last if place == "last" else int(place.removeprefix("layer"))
        assert _sorted_pairs(step.pairs[branch], layer, num_images) == pairs, key


def test_detections(step: Step) -> None:
    expected, last = step.case.expected["detections"], step.output.one_to_one
    found = select_detections(
        last.logits[-1].detach(),
        last.boxes_cxcywh[-1].detach(),
        torch.tensor(expected["image_sizes_hw"]),
        expected["top"],
    )
    torch.testing.assert_close(found.scores, torch.tensor(expected["scores"]), atol=1e-5, rtol=0)
    for image, scores in enumerate(found.scores):
        labels = torch.tensor(expected["labels"][image])[:, None]
        ours = torch.cat([found.boxes_xyxy_px[image], found.labels[image, :, None]], dim=-1)
        theirs = torch.cat([torch.tensor(expected["boxes_xyxy"][image]), labels], dim=-1)
        tied = (scores[:, None] - scores[None]).abs() < 1e-5
        equal = ((ours[:, None] - theirs[None]).abs() <= 1e-3).all(-1) & tied
        assert equal.any(1).all()
        assert equal.any(0).all()


def test_manifest(mds_dir: Path) -> None:
    """Names, shapes, parameter groups and loss weights of the full-size models."""
    (entry,) = json.loads((mds_dir / "mds_manifest.json").read_text()).values()
    for name in ("mds_ddetr_300q", "mds_ddetr_900q"):
        recipe = load_recipe(name)
        with torch.device("meta"):
            model = build_model(recipe.model, 91)
        ours = {k: list(v.shape) for k, v in to_published(model.state_dict()).items()}
        assert ours == entry["state_dict"]
        zeros = {k: torch.zeros(()).expand(shape) for k, shape in entry["state_dict"].items()}
        model.load_state_dict(from_published(zeros, model.state_dict(), name), assign=True)
        parameters = list(model.parameters())
        assert sum(p.numel() for p in parameters) == entry["total"]
        assert sum(p.numel() for p in parameters if p.requires_grad) == entry["trainable"]
        aliases, groups = published_names(model.state_dict()), {}
        for key, parameter in model.named_parameters():
            (alias,) = [a for a in aliases[key] if a in entry["parameter_groups"]]
            groups[alias] = parameter_group(key) if parameter.requires_grad else "frozen"
        assert groups == entry["parameter_groups"]
        supervision = supervision_of(
            {
                "class_loss": "varifocal",
                "one_to_many": {"k": 6, "threshold": 0.4, "max_positive_fraction": None},
            },
            entry["loss_weights"],
        )
        assert recipe.supervision == supervision
