"""Noise of denoising queries against the published generators, fed with their random draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.data.denoising import DenoisingNoise, NoiseDraws, Slots
from msdetr.model.query_blocks import QueryBlock, QueryBlocks
from msdetr.structures import NoisedTargets, Targets

pytestmark = pytest.mark.golden

KINDS = {"cdn_parts": True, "dn_parts": False}


class Case:
    """Settings, draws and expected tensors of one case of one kind."""

    def __init__(self, folder: Path, kind: str, name: str) -> None:
        self.settings = json.loads((folder / f"{kind}.json").read_text())[name]
        stored = load_file(folder / f"{kind}.safetensors")
        self.tensors = {
            key.removeprefix(f"{name}/"): value
            for key, value in stored.items()
            if key.startswith(f"{name}/")
        }
        contrastive = KINDS[kind]
        self.noise = DenoisingNoise(
            contrastive=contrastive,
            budget=self.settings["budget"] if contrastive else None,
            groups=None if contrastive else self.settings["groups"],
            label_redraw=self.settings["redraw_probability"],
            box_noise=self.settings["box_noise"],
            max_targets=None,
            labels=tuple(range(self.settings["classes"])),
            seed=0,
        )

    @property
    def slots(self) -> Slots:
        return self.noise.arrange(self.settings["counts"])

    def run(self) -> NoisedTargets:
        return self.noise.apply(self.targets, self.slots, self.draws)

    @property
    def targets(self) -> Targets:
        images = range(len(self.settings["counts"]))
        return Targets.from_lists(
            [self.tensors[f"in/target{b}.boxes"] for b in images],
            [self.tensors[f"in/target{b}.labels"] for b in images],
        )

    @property
    def draws(self) -> NoiseDraws:
        """The recorded draws; a kind of noise that is off has none."""
        shape = self.slots.valid.shape
        return NoiseDraws(
            redraw_u=self.tensors.get("draw/redraw_u", torch.ones(shape)),
            labels=self.tensors.get("draw/class", torch.zeros(shape).long()).clamp(min=0),
            size=self.tensors.get("draw/size", torch.zeros(*shape, 4)),
            sign=self.tensors.get("draw/sign", torch.ones(*shape, 4)),
        )


@pytest.fixture(scope="module")
def cases(query_groups_dir: Path) -> Callable[[str], Iterator[tuple[str, Case]]]:
    """All cases of a kind that the folder has."""

    def load(kind: str) -> Iterator[tuple[str, Case]]:
        names = list(json.loads((query_groups_dir / f"{kind}.json").read_text()))
        assert names
        for name in names:
            yield name, Case(query_groups_dir, kind, name)

    return load


Cases = Callable[[str], Iterator[tuple[str, Any]]]


def without_padding(value: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, value, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_slots(kind: str, cases: Cases) -> None:
    for name, case in cases(kind):
        slots = case.slots
        assert slots.num_groups == case.settings["groups"], name
        assert slots.target.shape[1] == case.settings["rows"], name
        expected = case.tensors["out/target"]
        assert torch.equal(without_padding(slots.target, slots.valid), expected), name
        if "out/positive" in case.tensors:
            assert torch.equal(slots.positive, case.tensors["out/positive"].bool()), name


@pytest.mark.parametrize("kind", KINDS)
def test_labels_boxes_and_logits(kind: str, cases: Cases) -> None:
    for name, case in cases(kind):
        noised, expected = case.run(), case.tensors
        labels = without_padding(noised.labels, noised.valid)
        assert torch.equal(labels, expected["out/labels"]), name
        torch.testing.assert_close(
            noised.boxes_cxcywh, expected["out/boxes_cxcywh"], atol=1e-6, rtol=0, msg=name
        )
        torch.testing.assert_close(
            noised.logits, expected["out/logits"], atol=2e-4, rtol=0, msg=name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_who_sees_whom(kind: str, cases: Cases) -> None:
    for name, case in cases(kind):
        slots, primary = case.slots, case.settings["matching_queries"]
        num_slots, groups = slots.valid.shape[1], max(1, slots.num_groups)
        blocks = QueryBlocks(
            (QueryBlock(primary), QueryBlock(num_slots // groups, groups, sees_first=True))
        )
        visible = blocks.mask()
        # The published order puts denoising queries first.
        order = torch.cat([torch.arange(num_slots) + primary, torch.arange(primary)])
        assert torch.equal(~visible[order][:, order], case.tensors["out/blocked"].bool()), name
