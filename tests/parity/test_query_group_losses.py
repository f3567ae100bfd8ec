"""Losses of given outputs of query groups: hybrid, independent groups, denoising."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.assignment import HungarianAssigner, RepeatedHungarianAssigner, assign_together
from msdetr.data.denoising import DenoisingNoise
from msdetr.losses import (
    BranchRule,
    Criterion,
    DenoisingRule,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
    total_loss,
)
from msdetr.structures import (
    GroupOutput,
    LossTerm,
    ModelOutput,
    NoisedTargets,
    Predictions,
    Targets,
)

pytestmark = pytest.mark.golden

COST = {"class_weight": 2.0, "l1_weight": 5.0, "giou_weight": 2.0}
STEMS = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


class Case:
    """Settings, given outputs (with gradients) and targets of one case."""

    def __init__(self, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.settings = settings
        self.tensors = {
            key: value.requires_grad_() if key.startswith("in/") and "target" not in key else value
            for key, value in tensors.items()
        }
        images = range(len(settings["counts"]))
        self.targets = Targets.from_lists(
            [self.tensors[f"in/target{b}.boxes"] for b in images],
            [self.tensors[f"in/target{b}.labels"] for b in images],
        )
        # Gradients are averaged over processes, so that a process counts the mean.
        others = settings.get("targets_of_the_other_processes", 0)
        self.mean_targets = (sum(settings["counts"]) + others) / settings.get("processes", 1)

    def predictions(self, prefix: str = "") -> Predictions:
        if f"in/{prefix}logits" not in self.tensors:
            # Without targets there are no denoising queries.
            layers, images = self.settings["layers"], len(self.settings["counts"])
            logits = torch.zeros(layers, images, 0, self.settings["classes"])
            return Predictions(logits, torch.zeros(layers, images, 0, 4))
        return Predictions(self.tensors[f"in/{prefix}logits"], self.tensors[f"in/{prefix}boxes"])

    def run(self, supervision: Supervision, output: ModelOutput) -> list[LossTerm]:
        queries = sum(group.one_to_one.logits.shape[2] for group in output.groups)
        u = torch.zeros(*output.one_to_one.logits.shape[:2], queries)
        return Criterion(supervision)(output, self.targets, num_targets=self.mean_targets, u=u)

    def name_layer(self, layer: int) -> str:
        return "" if layer == self.settings["layers"] - 1 else f"_{layer}"

    def check_gradients(self, total: Tensor, expected: dict[str, list[float]]) -> None:
        torch.autograd.backward(total)
        largest = max(max(norms) for norms in expected.values())
        for key, norms in expected.items():
            gradient = self.tensors[key].grad
            found = [0.0] * len(norms)
            if gradient is not None:
                found = gradient.double().flatten(1).norm(dim=1).tolist()
            assert found == pytest.approx(norms, rel=1e-4, abs=1e-6 * largest), key


def load_cases(folder: Path, kind: str) -> Iterator[tuple[str, Case]]:
    settings = json.loads((folder / f"{kind}.json").read_text())
    tensors = load_file(folder / f"{kind}.safetensors")
    assert settings
    for name, entry in settings.items():
        prefix = f"{name}/"
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        yield name, Case(entry, own)


def close(values: dict[str, float], expected: dict[str, float], name: str) -> None:
    assert values == pytest.approx(expected, rel=1e-5, abs=1e-7), name


def test_hybrid(query_groups_dir: Path) -> None:
    for name, case in load_cases(query_groups_dir, "hybrid_parts"):
        settings = case.settings
        rule = BranchRule(
            RepeatedHungarianAssigner(**COST, copies=settings["hybrid_copies"]),
            LossWeights(2, 5, 2).scaled(settings["hybrid_scale"]),
            Normalizer(copies=settings["hybrid_copies"]),
        )
        branch_of = {"one_to_one": rule}
        terms = case.run(Supervision(assign_together, **branch_of), ModelOutput(case.predictions()))
        assert rule.normalizer.of(case.mean_targets) == settings["normalisers"]["published"], name
        values = {STEMS[t.name] + case.name_layer(t.layer): t.value.item() for t in terms}
        close(values, settings["losses"], name)
        case.check_gradients(total_loss(terms), settings["grad_norms"])


def denoising(case: Case, *, contrastive: bool) -> tuple[NoisedTargets, DenoisingNoise]:
    noise = DenoisingNoise(
        contrastive=contrastive,
        budget=None,
        groups=case.settings["groups"] or 1,
        label_redraw=0.0,
        box_noise=0.0,
        max_targets=None,
        labels=(0,),
        seed=0,
    )
    return noise(case.targets, [0] * len(case.settings["counts"])), noise


@pytest.mark.parametrize("kind", ["cdn_losses", "dn_losses"])
def test_denoising(kind: str, query_groups_dir: Path) -> None:
    contrastive = kind == "cdn_losses"
    for name, case in load_cases(query_groups_dir, kind):
        noised, _ = denoising(case, contrastive=contrastive)
        assert noised.labels.shape[1] == case.settings["rows"], name
        group = GroupOutput("denoising", case.predictions("dn_"), noised=noised)
        weights = LossWeights(1, 5, 2)
        supervision = Supervision(
            assign_together,
            BranchRule(HungarianAssigner(**COST), weights),
            denoising=DenoisingRule(weights, "background" if contrastive else "ignore"),
        )
        primary = case.predictions() if contrastive else case.predictions("dn_")
        terms = case.run(supervision, ModelOutput(primary, extra_groups=(group,)))
        if not contrastive:
            terms = [term for term in terms if term.branch == "denoising"]
        values = {_denoising_name(case, t, contrastive): t.value.item() for t in terms}
        expected = case.settings["losses"]
        if not contrastive:
            expected = _with_mean_normalizer(case, expected)
        close(values, expected, name)
        if contrastive and case.settings["grad_norms"]:
            case.check_gradients(total_loss(terms), case.settings["grad_norms"])


def _denoising_name(case: Case, term: LossTerm, contrastive: bool) -> str:
    layer = case.name_layer(term.layer)
    if not contrastive:
        return f"tgt_{STEMS[term.name]}{layer}"
    return STEMS[term.name] + ("_dn" if term.branch == "denoising" else "") + layer


def _with_mean_normalizer(case: Case, losses: dict[str, float]) -> dict[str, float]:
    """DN-DETR counts the slots of one process; ours is the mean over processes."""
    published = case.settings["normalisers"]["published_local_count"]
    ours = case.settings["normalisers"]["mean_over_processes"]
    if not ours:  # no targets, no slots, no loss
        assert not any(losses.values())
        return losses
    return {key: value * published / ours for key, value in losses.items()}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_independent_groups(reduction: str, query_groups_dir: Path) -> None:
    for name, case in load_cases(query_groups_dir, "group_parts"):
        settings = case.settings
        number, size = settings["groups"], settings["queries_per_group"]
        # LW-DETR's mean multiplies by the groups before it clamps.
        normalizer = Normalizer(copies=number) if reduction == "mean" else Normalizer()
        rule = BranchRule(HungarianAssigner(**COST), LossWeights(2, 5, 2), normalizer)
        groups = [_part(case, "", g, size) for g in range(number)]
        outputs = ModelOutput(
            groups[0],
            extra_groups=tuple(GroupOutput(f"group_{g}", groups[g]) for g in range(1, number)),
        )
        rules = {f"group_{g}": GroupRule(rule) for g in range(1, number)}
        terms = case.run(Supervision(assign_together, rule, groups=rules), outputs)
        values: dict[str, float] = {}
        for term in terms:
            key = STEMS[term.name] + case.name_layer(term.layer)
            values[key] = values.get(key, 0.0) + term.value.item()
        expected = {k: v for k, v in _stored(settings, reduction).items() if "enc" not in k}
        close(values, expected, name)


def _part(case: Case, prefix: str, group: int, size: int) -> Predictions:
    whole = case.predictions(prefix)
    rows = slice(group * size, (group + 1) * size)
    return Predictions(whole.logits[:, :, rows], whole.boxes_cxcywh[:, :, rows])


def _stored(settings: dict[str, Any], reduction: str) -> dict[str, float]:
    found: dict[str, float] = settings[reduction]["losses"]
    return found
