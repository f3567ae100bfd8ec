"""Folded backbones compute the same without their batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from msdetr.export.folding import fold_batch_norms
from msdetr.model import Backbone

# Such that the maps do not end as zeros.
_LEAST = {"weight": 0.5, "bias": 0.0, "running_mean": -0.5, "running_var": 0.5}
NUM_NORMS = {"resnet18": 20, "resnet50": 53, "resnet_tiny": 13}


def randomise(backbone: nn.Module) -> None:
    """Give every batch norm statistics of its own."""
    generator = torch.Generator().manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            for name, least in _LEAST.items():
                value = getattr(module, name)
                value.data.copy_(least + torch.rand(value.shape, generator=generator))


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
@pytest.mark.parametrize("name", list(NUM_NORMS))
def test_folded_backbone_yields_the_same_maps(name: str, norm: str) -> None:
    backbone = Backbone(name=name, norm=norm).eval()  # type: ignore[arg-type]
    randomise(backbone)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = backbone(pixels)
        assert fold_batch_norms(backbone) == NUM_NORMS[name]
        for folded, original in zip(backbone(pixels), expected, strict=True):
            scale = original.abs().max()
            assert scale > 0
            torch.testing.assert_close(folded / scale, original / scale, rtol=0, atol=1e-5)
    assert not any(isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d) for m in backbone.modules())


def test_other_norms_stay() -> None:
    backbone = Backbone(name="resnet_tiny", norm="group")
    assert fold_batch_norms(backbone) == 0
    assert sum(isinstance(m, nn.GroupNorm) for m in backbone.modules()) == NUM_NORMS["resnet_tiny"]
