from __future__ import annotations

from typing import Literal, get_args

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

from msdetr.errors import CheckpointError
from msdetr.model.backbone import Backbone, BackboneName

Norm = Literal["frozen_batch", "batch", "group"]


@pytest.mark.parametrize("name", get_args(BackboneName))
def test_channels_and_strides(name: BackboneName) -> None:
    with torch.device("meta"):
        backbone = Backbone(name=name)
        maps = backbone(torch.empty(1, 3, 100, 130))
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    assert backbone.strides == (8, 16, 32)
    assert [tuple(m.shape[2:]) for m in maps] == [(13, 17), (7, 9), (4, 5)]


def test_tiny_backbone_doubles_its_channels() -> None:
    backbone = Backbone(name="resnet_tiny", stem_width=24)
    assert backbone.channels == (48, 96, 192)
    assert sum(p.numel() for p in backbone.parameters()) < 1_000_000


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_dilation_keeps_the_last_stride(name: BackboneName) -> None:
    with torch.device("meta"):
        backbone = Backbone(name=name, dilation=True)
        maps = backbone(torch.empty(1, 3, 64, 64))
    assert backbone.strides == (8, 16, 16)
    assert maps[2].shape[2:] == maps[1].shape[2:]


@pytest.mark.parametrize("name", ["resnet18", "resnet_tiny"])
@pytest.mark.parametrize("stages", range(6))
def test_frozen_stages(name: BackboneName, stages: int) -> None:
    backbone = Backbone(name=name, norm="batch", frozen_stages=stages, stem_width=8)
    trained = {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad}
    groups = [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
    assert trained == set().union(*groups[stages:])


def test_frozen_stages_keep_their_statistics_in_training() -> None:
    backbone = Backbone(name="resnet_tiny", norm="batch", frozen_stages=2, stem_width=8).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running_mean" in k}
    backbone(torch.randn(2, 3, 64, 64))
    moved = {k for k, v in backbone.state_dict().items() if k in before and (v != before[k]).any()}
    assert moved == {k for k in before if k.split(".")[1] in {"layer2", "layer3", "layer4"}}


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("frozen_batch", FrozenBatchNorm2d), ("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)],
)
def test_norm_layers(norm: Norm, kind: type[nn.Module]) -> None:
    backbone = Backbone(name="resnet18", norm=norm)
    kinds = {type(m) for m in backbone.modules() if "Norm" in type(m).__name__}
    assert kinds == {kind}
    assert {m.eps for m in backbone.modules() if isinstance(m, kind)} == {1e-5}


def test_frozen_batch_norm_has_no_parameters() -> None:
    names = [n for n, _ in Backbone(name="resnet18").named_parameters()]
    assert names
    assert all("conv" in n or "downsample.0" in n for n in names)


def test_loads_torchvision_weights_without_the_classifier() -> None:
    torchvision_model = resnet18().eval()
    backbone = Backbone(name="resnet18").eval()
    backbone.load_weights(torchvision_model.state_dict(), "resnet18")
    pixels = torch.randn(1, 3, 64, 64)
    pooled = backbone(pixels)[2].mean(dim=(2, 3))
    torch.testing.assert_close(torchvision_model.fc(pooled), torchvision_model(pixels))


def test_batch_norm_weights_load_too() -> None:
    Backbone(name="resnet18", norm="batch").load_weights(resnet18().state_dict(), "resnet18")


def test_weights_that_do_not_fit_are_named_and_not_loaded() -> None:
    backbone = Backbone(name="resnet18")
    state = {k: v for k, v in resnet18().state_dict().items() if k != "bn1.bias"}
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["stray"] = torch.zeros(1)
    before = backbone.body.state_dict()["layer1.0.conv1.weight"].clone()
    with pytest.raises(CheckpointError) as caught:
        backbone.load_weights(state, "mine.pth")
    text = str(caught.value)
    assert text.startswith("mine.pth: 3 problems")
    for part in ("bn1.bias", "missing", "[64, 3, 7, 7], got [64, 3, 3, 3]", "stray", "unknown"):
        assert part in text
    assert torch.equal(backbone.body.state_dict()["layer1.0.conv1.weight"], before)


def test_group_norm_refuses_batch_norm_weights() -> None:
    with pytest.raises(CheckpointError, match=r"bn1\.running_mean.*norm"):
        Backbone(name="resnet18", norm="group").load_weights(resnet18().state_dict(), "x")
