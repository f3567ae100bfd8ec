"""Whole models with several query groups, every case of the folder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.assignment import assign_together
from msdetr.build import build_criterion, build_model
from msdetr.data.denoising import DenoisingNoise, NoiseDraws
from msdetr.interop.official import from_published, published_names
from msdetr.losses import SupervisionBranch, total_loss
from msdetr.model import DetectionModel, Neck
from msdetr.recipe import ModelRecipe, QueryGroupsRecipe, Recipe
from msdetr.structures import (
    Assignment,
    LossTerm,
    ModelOutput,
    NoisedTargets,
    Predictions,
    Targets,
)

pytestmark = pytest.mark.golden

LOSS_NAMES = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


def recipe_of(config: dict[str, Any]) -> Recipe:
    """The recipe that a case's config describes."""
    hybrid, denoising, group = (config.get(k) for k in ("hybrid_queries", "denoising", "group"))
    many = config.get("one_to_many")
    cross_first = config["decoder_order"] == "cross_first"
    assert cross_first == bool(many)
    model = {
        **{k: config[k] for k in ("encoder_layers", "decoder_layers", "width", "heads")},
        "levels": config["levels"],
        "points": config["points"],
        "ffn_width": config["ffn"],
        "num_queries": config["queries"],
        "dropout": 0.0,
        "mixed_query_selection": config["mixed_selection"],
        "look_forward_twice": config["look_forward_twice"],
        "placement": "c" if many else "baseline",
        "extra_ffn": bool(many) and many["aux_ffn"],
        "query_groups": {
            "hybrid": hybrid and {"queries": hybrid},
            "group": group and {"groups": group["groups"]},
            "denoising": denoising
            and {
                "contrastive": denoising["contrastive"],
                "groups": denoising["groups"],
                "label_redraw": denoising["redraw_probability"],
                "box_noise": denoising["box_noise"],
            },
        },
    }
    on_predictions = config["proposal_matching"] == "predictions"
    supervision = {
        "one_to_one": {"loss": {"class_weight": config["class_weight"]}},
        "one_to_many": many and {"k": many["k"], "threshold": many["threshold"]},
        "proposals": {
            "match_on": config["proposal_matching"],
            "cost": {"class_weight": 2.0 if on_predictions else 0.0},
        },
        "hybrid": hybrid and {"copies": config["hybrid_copies"], "scale": config["hybrid_scale"]},
        "group": group
        and {
            "reduction": group["reduction"],
            "one_to_many": many["apply_to"] if many else "primary",
        },
        "denoising": denoising and {"padding": denoising["padding_loss"]},
    }
    return Recipe.model_validate({"model": model, "supervision": supervision})


class Case:
    """Model, inputs and everything that one training step yields."""

    def __init__(
        self, folder: Path, name: str, values: Callable[..., dict[str, Tensor]], stored_maps: Any
    ) -> None:
        self.name = name
        self.expected = json.loads((folder / "expected.json").read_text())[name]
        self.config = self.expected["config"]
        self.tensors = load_file(folder / f"{name}.safetensors")
        self.recipe = recipe_of(self.config)
        self.model = self._build(values, stored_maps)
        self.targets = self._read_targets()
        self.noised = self._noise()
        self.output = self._predict()
        self.criterion = build_criterion(self.recipe.supervision, self.recipe.model.query_groups)
        queries = sum(group.one_to_one.logits.shape[2] for group in self.output.groups)
        shape = (*self.output.one_to_one.logits.shape[:2], queries)
        self.u = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        self.terms = self.criterion(
            self.output, self.targets, num_targets=float(self.targets.counts.sum()), u=self.u
        )
        self.total = total_loss(self.terms)
        torch.autograd.backward(self.total)

    def _build(self, values: Callable[..., dict[str, Tensor]], stored_maps: Any) -> DetectionModel:
        config, recipe = self.config, self.recipe.model
        group = self.recipe.supervision.group
        model = build_model(
            recipe,
            config["classes"],
            one_to_many_groups="primary" if group is None else group.one_to_many,
        )
        maps = tuple(
            self.tensors[f"in/feature{i}"] for i in range(len(config["backbone_channels"]))
        )
        stored = stored_maps(maps, tuple(config["backbone_strides"]))
        model.backbone = stored
        model.neck = Neck(stored.channels, recipe.width, recipe.levels)
        published = values(self.expected["state"], config["salt"])
        model.load_state_dict(from_published(published, model.state_dict(), self.name))
        return model.train()

    def _read_targets(self) -> Targets:
        images = range(self.tensors["in/mask"].shape[0])
        return Targets.from_lists(
            [self.tensors[f"in/target{b}.boxes"] for b in images],
            [self.tensors[f"in/target{b}.labels"] for b in images],
        )

    def _noise(self) -> NoisedTargets | None:
        denoising = self.recipe.model.query_groups.denoising
        if denoising is None:
            return None
        noise = DenoisingNoise(
            contrastive=denoising.contrastive,
            budget=denoising.budget,
            groups=denoising.groups,
            label_redraw=denoising.label_redraw,
            box_noise=denoising.box_noise,
            max_targets=None,
            labels=tuple(range(self.config["classes"])),
            seed=0,
        )
        size = self.tensors["draw/size"]
        draws = NoiseDraws(
            self.tensors["draw/redraw_u"],
            self.tensors["draw/class"].clamp(min=0),
            size,
            self.tensors.get("draw/sign", torch.ones_like(size)),
        )
        slots = noise.arrange(self.targets.counts.tolist())
        assert slots.target.shape[1] == self.config["denoising"]["rows"]
        return noise.apply(self.targets, slots, draws)

    def _predict(self) -> ModelOutput:
        levels = self.model.neck(self.model.backbone(None), self.tensors["in/mask"])
        return self.model.forward_features(levels, noised=self.noised)

    def published_name(self, term: LossTerm) -> str:
        stem, branch = LOSS_NAMES[term.name], term.branch
        layer = "" if term.layer == self.config["decoder_layers"] - 1 else f"_{term.layer}"
        match branch.split("_"):
            case ["proposals"]:
                return f"{stem}_enc"
            case ["group", number, "proposals"]:
                return f"{stem}_enc_group{number}"
            case ["group", number, "one", "to", "many"]:
                return f"{stem}{layer}_o2m_group{number}"
            case ["group", number]:
                return f"{stem}{layer}_group{number}"
        suffix = {
            "one_to_one": "",
            "one_to_many": "_o2m",
            "hybrid": "_one2many",
            "denoising": "_dn",
        }
        return stem + layer + suffix[branch]


@pytest.fixture(scope="session")
def load_group_case(
    query_groups_dir: Path, published_values: Any, stored_maps: Any
) -> Callable[[str], Case]:
    loaded: dict[str, Case] = {}

    def load(name: str) -> Case:
        if name not in loaded:
            loaded[name] = Case(query_groups_dir, name, published_values, stored_maps)
        return loaded[name]

    return load


@pytest.fixture
def case(group_case_name: str, load_group_case: Callable[[str], Case]) -> Case:
    return load_group_case(group_case_name)


def flatten(prefix: str, predictions: Predictions) -> Iterator[tuple[str, Tensor]]:
    last = predictions.logits.shape[0] - 1
    for layer in range(last + 1):
        place = prefix if layer == last else f"{prefix}aux_outputs.{layer}."
        yield f"out/{place}pred_logits", predictions.logits[layer]
        yield f"out/{place}pred_boxes", predictions.boxes_cxcywh[layer]


def outputs_of(output: ModelOutput) -> dict[str, Tensor]:
    """Our outputs under the names of the stored ones."""
    found = dict(flatten("", output.one_to_one))
    if output.one_to_many is not None:
        found |= flatten("o2m_outputs.", output.one_to_many)
    if output.proposals is not None:
        found["out/enc_outputs.pred_logits"] = output.proposals.logits
        found["out/enc_outputs.pred_boxes"] = output.proposals.boxes_cxcywh
        found["out/enc_outputs.anchors"] = output.proposals.anchors_cxcywh
    for group in output.extra_groups:
        if group.name == "hybrid":
            plain = dict(flatten("", group.one_to_one))
            found |= {_hybrid_name(key): value for key, value in plain.items()}
        elif group.name == "denoising":
            found |= flatten("dn_outputs.", group.one_to_one)
        else:
            found |= flatten(
                f"group_outputs.{group.name.removeprefix('group_')}.", group.one_to_one
            )
    return found


def _hybrid_name(key: str) -> str:
    if key.startswith("out/aux_outputs"):
        return key.replace("aux_outputs", "aux_outputs_one2many")
    return f"{key}_one2many"


def test_outputs(case: Case) -> None:
    ours = outputs_of(case.output)
    compared = 0
    for key, value in case.tensors.items():
        if "pred_" not in key and key != "out/enc_outputs.anchors":
            continue
        assert float((ours[key].detach() - value).abs().max()) <= 2e-5, key
        compared += 1
    assert compared >= 4 * case.config["decoder_layers"] - 2


def test_loss_terms_weights_and_total(case: Case) -> None:
    values = {case.published_name(term): term.value.item() for term in case.terms}
    weights = {case.published_name(term): term.weight for term in case.terms}
    assert len(values) == len(case.terms)
    assert values == pytest.approx(case.expected["losses"], rel=1e-5, abs=1e-7)
    assert weights == pytest.approx(case.expected["weights"])
    assert case.total.item() == pytest.approx(case.expected["total"], rel=1e-5)


def test_gradient_norms(case: Case) -> None:
    expected = case.expected["grad_norms"]
    names = published_names(case.model.state_dict())
    squares: dict[str, float] = defaultdict(float)
    for name, parameter in case.model.named_parameters():
        stored = [alias for alias in names[name] if alias in expected]
        assert len(stored) == (0 if parameter.grad is None else 1), name
        if parameter.grad is not None:
            # The learned rows of all groups stand in one published table.
            squares[stored[0]] += float(parameter.grad.double().norm()) ** 2
    norms = {name: square**0.5 for name, square in squares.items()}
    floor = 1e-6 * max(expected.values())
    assert norms == pytest.approx(expected, rel=1e-4, abs=floor)


def pairs_of(rows: Assignment, layer: int, num_images: int) -> list[list[list[int]]]:
    columns = torch.stack([rows.query, rows.target], dim=1)
    chosen = rows.valid & (rows.layer == layer)
    return [sorted(columns[chosen & (rows.image == b)].tolist()) for b in range(num_images)]


def assigned(case: Case) -> dict[str, Assignment]:
    branches: list[SupervisionBranch] = case.criterion.supervision.branches(
        case.output, case.targets, case.u
    )
    rows = assign_together(branches)
    return {branch.name: found for branch, found in zip(branches, rows, strict=True)}


def our_branch(stored: str) -> str:
    """Our name of a stored list of pairs."""
    kind, _, number = stored.partition("_group")
    if number:
        return f"group_{number}_{kind}"
    return stored.replace("group", "group_") if stored.startswith("group") else stored


def test_pairs(case: Case) -> None:
    found, num_images = assigned(case), len(case.targets.counts)
    compared = 0
    for stored, expected in case.expected["matching"].items():
        if stored in ("hungarian_last", "one_to_many_last", "one_to_many_layer0"):
            continue  # repetitions
        rows = found[our_branch(stored)]
        layers = expected if isinstance(expected, dict) else {"layer0": expected}
        for layer, pairs in layers.items():
            number = int(layer.removeprefix("layer"))
            assert pairs_of(rows, number, num_images) == pairs, (stored, layer)
            compared += 1
    assert compared


def test_selected_cells_of_independent_groups(case: Case) -> None:
    keys = [key for key in case.tensors if key.startswith("out/group_proposals.")]
    if not keys:
        assert case.config.get("group") is None
        return
    for key in keys:
        number = int(key.rsplit(".", 1)[1])
        group = case.output.groups[number]
        assert group.proposals is not None
        cells = group.proposals.logits[..., 0].topk(case.config["queries"], dim=1).indices
        assert torch.equal(cells, case.tensors[key].long()), key


def test_noised_targets(case: Case) -> None:
    if case.noised is None:
        assert case.config.get("denoising") is None
        return
    stored, noised = case.tensors, case.noised
    labels = torch.where(noised.valid, noised.labels, -1)
    assert torch.equal(labels, stored["out/dn_queries.labels"])
    assert float((noised.logits - stored["out/dn_queries.logits"]).abs().max()) <= 2e-4
    assert float((noised.boxes_cxcywh - stored["out/dn_queries.boxes"]).abs().max()) <= 1e-6


def test_anchor_matched_proposals(case: Case) -> None:
    other = case.expected.get("with_anchor_matched_proposals")
    if other is None:
        assert case.config["proposal_matching"] == "anchors"
        return
    config = {**case.config, "proposal_matching": "anchors"}
    recipe = recipe_of(config)
    criterion = build_criterion(recipe.supervision, recipe.model.query_groups)
    terms = criterion(
        case.output, case.targets, num_targets=float(case.targets.counts.sum()), u=case.u
    )
    values = {
        case.published_name(term): term.value.item() for term in terms if term.branch == "proposals"
    }
    assert values == pytest.approx(other["losses"], rel=1e-5, abs=1e-7)
    assert total_loss(terms).item() == pytest.approx(other["total"], rel=1e-5)


def test_evaluation_equals_the_model_without_the_groups(case: Case) -> None:
    plain = case.recipe.model.model_copy(update={"query_groups": QueryGroupsRecipe()})
    model = build_plain(case, plain)
    levels = case.model.neck(case.model.backbone(None), case.tensors["in/mask"])
    with torch.inference_mode():
        case.model.eval()
        ours = case.model.forward_features(levels)
        case.model.train()
        theirs = model.forward_features(levels)
    assert ours.extra_groups == ()
    assert torch.equal(ours.one_to_one.logits, theirs.one_to_one.logits)
    assert torch.equal(ours.one_to_one.boxes_cxcywh, theirs.one_to_one.boxes_cxcywh)


def build_plain(case: Case, recipe: ModelRecipe) -> DetectionModel:
    model = build_model(recipe, case.config["classes"])
    model.backbone, model.neck = case.model.backbone, case.model.neck
    state = case.model.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model.eval()
