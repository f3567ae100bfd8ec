"""ResNet backbones."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from msdetr.errors import CheckpointError
from msdetr.model.weight_files import find_misfits, without_counters

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet_tiny"]
NormName = Literal["frozen_batch", "batch", "group"]

_NormLayer = Callable[[int], nn.Module]


class Backbone(nn.Module):
    """ResNet whose last three stages are the output.

    Args:
        name: One of torchvision's ResNets, or ``resnet_tiny`` for images of about 200 px.
        norm: Normalisation: ``frozen_batch`` (statistics and affine parameters fixed), ``batch``
            or ``group``.
        frozen_stages: Stages that are not trained: 0 none, 1 the stem, 2 also layer1, ... 5 all.
        dilation: Replace the last stage's stride by dilation (resnet50 and resnet101).
        stem_width: Channels of resnet_tiny's first stage; other backbones ignore it.

    Attributes:
        channels: Channels of the three output maps.
        strides: Strides of the three output maps, in pixels.

    Source: He et al., Deep Residual Learning, CVPR 2016, table 1.
    """

    def __init__(
        self,
        *,
        name: BackboneName,
        norm: NormName = "frozen_batch",
        frozen_stages: int = 2,
        dilation: bool = False,
        stem_width: int = 16,
    ) -> None:
        super().__init__()
        trunk = _build_trunk(name, _norm_layer(norm), dilation=dilation, stem_width=stem_width)
        outputs = {"layer2": "fine", "layer3": "middle", "layer4": "coarse"}
        self.channels = tuple(_out_channels(getattr(trunk, stage)) for stage in outputs)
        self.strides = (8, 16, 16 if dilation else 32)
        self.body = IntermediateLayerGetter(trunk, outputs)
        self.frozen_stages = frozen_stages
        for module in self._frozen():
            module.requires_grad_(requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, H, W] normalised images to maps at three strides, from fine to coarse."""
        return tuple(self.body(pixels).values())

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode; frozen stages keep their normalisation statistics."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def load_weights(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load weights under torchvision's names; a classifier (``fc``) is left out.

        Args:
            state: Loaded state dict.
            source: Where it comes from, for error messages.

        Raises:
            CheckpointError: Names or shapes do not fit; nothing is loaded then.
        """
        given = {k: v for k, v in without_counters(state).items() if not k.startswith("fc.")}
        problems = find_misfits(without_counters(self.body.state_dict()), given)
        if problems:
            raise CheckpointError(source, problems)
        self.body.load_state_dict(given, strict=False)

    def _frozen(self) -> list[nn.Module]:
        stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
        return [self.body[name] for stage in stages[: self.frozen_stages] for name in stage]


def _build_trunk(
    name: BackboneName, norm_layer: _NormLayer, *, dilation: bool, stem_width: int
) -> nn.Module:
    if name == "resnet_tiny":
        return _tiny_resnet(stem_width, norm_layer)
    replace_stride = [False, False, dilation]
    build: Callable[..., nn.Module] = getattr(resnet, name)
    return build(norm_layer=norm_layer, replace_stride_with_dilation=replace_stride)


def _tiny_resnet(width: int, norm_layer: _NormLayer) -> nn.Module:
    trunk = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, width // 2, kernel_size=3, stride=2, padding=1, bias=False),
            bn1=norm_layer(width // 2),
            relu=nn.ReLU(inplace=True),
            layer1=_tiny_stage(width // 2, width, norm_layer),
            layer2=_tiny_stage(width, 2 * width, norm_layer),
            layer3=_tiny_stage(2 * width, 4 * width, norm_layer),
            layer4=_tiny_stage(4 * width, 8 * width, norm_layer),
        )
    )
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return trunk


def _tiny_stage(in_channels: int, channels: int, norm_layer: _NormLayer) -> nn.Module:
    # Averaging before the projection loses no pixels, and a CPU strides badly over single ones.
    shortcut = nn.Sequential(
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(in_channels, channels, kernel_size=1, bias=False),
        norm_layer(channels),
    )
    block = resnet.BasicBlock(in_channels, channels, 2, shortcut, norm_layer=norm_layer)
    return nn.Sequential(block)


def _norm_layer(norm: NormName) -> _NormLayer:
    match norm:
        case "frozen_batch":
            return _frozen_batch_norm
        case "batch":
            return nn.BatchNorm2d
        case "group":
            return _group_norm


def _frozen_batch_norm(channels: int) -> nn.Module:
    norm: nn.Module = FrozenBatchNorm2d(channels, eps=1e-5)
    return norm


def _group_norm(channels: int) -> nn.Module:
    # At most 32 groups, of at least two channels.
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


def _out_channels(stage: nn.Module) -> int:
    convolutions = [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
    return max(convolution.out_channels for convolution in convolutions)
