"""Outputs of the small cases against the published implementations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.interop.official import to_published
from msdetr.structures import ModelOutput

pytestmark = pytest.mark.golden


def _flatten(output: ModelOutput) -> dict[str, Tensor]:
    flat = {}
    for prefix, branch in (("", output.one_to_one), ("o2m_outputs.", output.one_to_many)):
        if branch is None:
            continue
        last = branch.logits.shape[0] - 1
        for layer in range(last + 1):
            place = prefix if layer == last else f"{prefix}aux_outputs.{layer}."
            flat[f"out/{place}pred_logits"] = branch.logits[layer]
            flat[f"out/{place}pred_boxes"] = branch.boxes_cxcywh[layer]
    if output.proposals is not None:
        flat["out/enc_outputs.pred_logits"] = output.proposals.logits
        flat["out/enc_outputs.pred_boxes"] = output.proposals.boxes_cxcywh
        flat["out/enc_outputs.anchors"] = output.proposals.anchors_cxcywh
    return flat


def test_outputs_equal_the_published_ones(small_name: str, golden_case: Any) -> None:
    case = golden_case(small_name)
    with torch.no_grad():
        ours = _flatten(case.predict())
    published = {k: v for k, v in case.tensors.items() if k.startswith("out/")}
    assert ours.keys() == published.keys()
    for key, value in published.items():
        error = float((ours[key] - value).abs().max())
        assert error <= 2e-5, key


def test_published_names_are_reproduced_with_their_aliases(
    small_name: str, golden_case: Any
) -> None:
    case = golden_case(small_name)
    ours = to_published(case.model.state_dict())
    stated = {k: tuple(entry["shape"]) for k, entry in case.expected["state"].items()}
    assert {k: tuple(v.shape) for k, v in ours.items()} == stated
    for key, entry in case.expected["state"].items():
        assert torch.equal(ours[key], ours[entry["values_of"]]), key
