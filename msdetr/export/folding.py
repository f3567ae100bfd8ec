"""Batch norms with fixed statistics, folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import nn
from torch.nn.utils import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

_FIXED_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def fold_batch_norms(backbone: nn.Module) -> int:
    """Fold every batch norm of a ResNet into the convolution before it, in place.

    Args:
        backbone: In evaluation mode; its modules have torchvision's names.

    Returns:
        The number of folded batch norms; other norms are left as they are.
    """
    pairs = [pair for parent in backbone.modules() for pair in _pairs(parent)]
    for parent, conv_name, norm_name in pairs:
        convolution = cast(nn.Conv2d, parent.get_submodule(conv_name))
        # Frozen ones hold the same tensors under the same names.
        norm = cast(nn.BatchNorm2d, parent.get_submodule(norm_name))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        parent.add_module(norm_name, nn.Identity())
    return len(pairs)


def _pairs(parent: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    children = dict(parent.named_children())
    names = list(children)
    for position, name in enumerate(names[:-1]):
        # In torchvision's blocks bnX follows convX; in shortcuts the norm is simply the next.
        norm_name = name.replace("conv", "bn") if "conv" in name else names[position + 1]
        if isinstance(children[name], nn.Conv2d) and isinstance(
            children.get(norm_name), _FIXED_NORMS
        ):
            yield parent, name, norm_name
