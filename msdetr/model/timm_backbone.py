"""Backbones of timm, whose maps look as a ResNet's do: three of them, fine to coarse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from msdetr.errors import CheckpointError, Problem, RecipeError, first_line
from msdetr.model.weight_files import find_misfits, without_counters
from msdetr.pretraining import NAME_FIELD, TIMM, WEIGHTS_FIELD, load_timm

_STRIDES = (8, 16, 32)
# Odd, so that rounding down shows, and wider than high.
_ODD_HW, _OTHER_HW = (65, 97), (96, 160)


class TimmBackbone(nn.Module):
    """A model of timm whose maps at strides 8, 16 and 32 are the output.

    Args:
        name: As timm calls it, with or without the tag of its weights.
        norm: ``frozen_batch`` fixes statistics and affine parameters of batch norms, where there
            are any; ``batch`` leaves them as they are.
        frozen_stages: What is not trained: 0 nothing, 1 the stem, 2 all up to the map of stride
            4, 3 of stride 8, 4 of stride 16, 5 everything.
        drop_path: Probability of leaving out the last residual block in training (stochastic
            depth); earlier ones have less.

    Attributes:
        channels: Channels of the three output maps.
        strides: Strides of the three output maps, in pixels.

    Raises:
        RecipeError: timm has no such model, or not with such maps, such options or images of any
            size.

    Source: Wightman, PyTorch Image Models, 2019, doi:10.5281/zenodo.4414861.
    """

    def __init__(
        self,
        *,
        name: str,
        norm: Literal["frozen_batch", "batch"] = "frozen_batch",
        frozen_stages: int = 2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self._name = name
        body = _create_features(name, drop_path)
        self._positions = _find_maps(name, body.feature_info.reduction())
        self._is_channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
        self.channels = tuple(body.feature_info.channels()[p] for p in self._positions)
        self.strides = _STRIDES
        self._frozen_names = _find_frozen(body, name, frozen_stages)
        freeze = import_module("timm.layers").freeze_batch_norm_2d
        self.body: nn.Module = _fuse_frozen(freeze(body)) if norm == "frozen_batch" else body
        self._needs_padding = _fix_padding(self.body) > 0 or self._rounds_down()
        self._is_depthwise = any(
            isinstance(module, nn.Conv2d) and module.groups > 1 for module in self.body.modules()
        )
        for module in self._frozen():
            module.requires_grad_(requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, H, W] normalised images to maps at three strides, from fine to coarse.

        Sides of the maps are those of the image, divided by the stride and rounded up.
        """
        height, width = pixels.shape[-2:]
        if self._is_depthwise and pixels.device.type == "cpu":
            # Its convolutions are up to 1.5 times faster so, on two cores.
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        if self._needs_padding:
            pixels = functional.pad(pixels, (0, _lack(width), 0, _lack(height)))
        maps = self._maps(pixels)
        if not self._needs_padding:
            return tuple(maps)
        return tuple(
            m[:, :, : (height + stride - 1) // stride, : (width + stride - 1) // stride]
            for m, stride in zip(maps, _STRIDES, strict=True)
        )

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set the training mode; frozen stages keep their normalisation statistics."""
        super().train(mode)
        for module in self._frozen():
            module.training = False
        return self

    def load_weights(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load weights under timm's names; what yields none of the maps is left out.

        Args:
            state: State dict of the whole model, its classifier included or not.
            source: Where it comes from, for error messages.

        Raises:
            CheckpointError: Names or shapes do not fit; nothing is loaded then.
        """
        own = without_counters(self.body.state_dict())
        # Buffers that timm computes stand in old files, too.
        whole = dict(_create(self._name).named_buffers()) | _whole_state(self._name)
        known = {name: _own_name(name, own) for name in whole}
        given = {
            known.get(name, name): tensor
            for name, tensor in without_counters(state).items()
            if name not in known or known[name] in own
        }
        problems = find_misfits(own, given)
        if problems:
            raise CheckpointError(source, problems)
        self.body.load_state_dict(given, strict=False)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        maps = self.body(pixels)
        chosen = [maps[position] for position in self._positions]
        return [m.permute(0, 3, 1, 2) for m in chosen] if self._is_channels_last else chosen

    def _frozen(self) -> list[nn.Module]:
        return [self.body.get_submodule(name) for name in self._frozen_names]

    def _rounds_down(self) -> bool:
        """Find out whether sides must be multiples of the strides.

        Raises:
            RecipeError: The model takes images of one size only.
        """
        if self._try(_ODD_HW) is None:
            return False
        problem = self._try(_OTHER_HW)
        if problem is not None:
            message = f"{TIMM}{self._name} does not take images of {_OTHER_HW[1]}x{_OTHER_HW[0]} px"
            raise RecipeError(NAME_FIELD, f"{message}: {problem}; choose a model for any size")
        return True

    def _try(self, hw: tuple[int, int]) -> str | None:
        """Say what is wrong with the maps of an image of one size, if anything."""
        device = next(self.body.parameters()).device
        self.body.eval()
        try:
            with torch.no_grad():
                maps = self._maps(torch.zeros(1, 3, *hw, device=device))
        except Exception as error:  # models refuse sizes each in their own way
            return str(error).partition("\n")[0]
        finally:
            self.train()
        expected = [
            (1, channels, *(-(-side // stride) for side in hw))
            for channels, stride in zip(self.channels, _STRIDES, strict=True)
        ]
        found = [tuple(m.shape) for m in maps]
        return None if found == expected else f"its maps are {found}, expected {expected}"


def download_timm_weights(name: str) -> dict[str, Tensor]:
    """Fetch timm's own weights of a model, once, into the cache of the Hugging Face hub.

    Raises:
        CheckpointError: There are none, or no network.
        RecipeError: timm is not installed, or has no such model.
    """
    config = load_timm(name).get_pretrained_cfg(name)
    try:
        return _whole_state(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        hub = f"; they are {config.hf_hub_id} of the Hugging Face hub" if config.hf_hub_id else ""
        message = f"cannot get timm's weights of {name} ({reason}){hub}; "
        message += f"set {WEIGHTS_FIELD} to the path of a file or to none"
        raise CheckpointError(WEIGHTS_FIELD, message) from error


def rename_in_order(name: str, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give the tensors of a state dict the names that timm's model has in the same places.

    Args:
        name: timm's model.
        state: Its weights, in the same order under other names.
        source: Where they come from, for error messages.

    Raises:
        CheckpointError: Numbers or shapes differ.
        RecipeError: timm is not installed.
    """
    whole = _whole_state(name)
    if len(whole) != len(state):
        raise CheckpointError(source, f"expected {len(whole)} tensors, got {len(state)}")
    problems = [
        Problem(theirs, f"expected the shape of {ours}, {list(b.shape)}, got {list(a.shape)}")
        for (theirs, a), (ours, b) in zip(state.items(), whole.items(), strict=True)
        if a.shape != b.shape
    ]
    if problems:
        raise CheckpointError(source, problems)
    return dict(zip(whole, state.values(), strict=True))


class _EvenConv2d(nn.Conv2d):
    """TensorFlow's "same" convolution of stride 2, for even sides: its padding is then fixed.

    timm's computes the padding from the size, which tracing for any size does not get through.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch calls it
        before = [(side - 2) // 2 for side in self.kernel_size]
        after = [(side - 1) // 2 for side in self.kernel_size]
        padded = functional.pad(input, (before[1], after[1], before[0], after[0]))
        return super().forward(padded)


def _fix_padding(module: nn.Module) -> int:
    """Replace every "same" convolution of stride 2, in place; return how many there were."""
    same: type[nn.Conv2d] = import_module("timm.layers").Conv2dSame
    count = 0
    for name, child in module.named_children():
        if isinstance(child, same) and child.stride == (2, 2) and child.dilation == (1, 1):
            with torch.device("meta"):
                fixed = _EvenConv2d(
                    child.in_channels,
                    child.out_channels,
                    cast(tuple[int, int], child.kernel_size),
                    stride=2,
                    groups=child.groups,
                    bias=child.bias is not None,
                )
            fixed.weight, fixed.bias = child.weight, child.bias
            setattr(module, name, fixed)
            count += 1
        else:
            count += _fix_padding(child)
    return count


class _FrozenNormAct(nn.Module):
    """A batch norm with fixed numbers and what timm puts behind it, in one pass over the map.

    timm's multiplies and adds in passes of their own, and keeps a map more for the backward pass.
    """

    def __init__(self, norm: Any) -> None:  # noqa: ANN401 - timm's FrozenBatchNormAct2d
        super().__init__()
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.eps: float = norm.eps
        self.drop: nn.Module = norm.drop
        self.act: nn.Module = norm.act

    def forward(self, maps: Tensor) -> Tensor:
        fixed = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, variance, scale, shift = (cast(Tensor, each) for each in fixed)
        normed = functional.batch_norm(maps, mean, variance, scale, shift, eps=self.eps)
        activated: Tensor = self.act(self.drop(normed))
        return activated


def _fuse_frozen(module: nn.Module) -> nn.Module:
    """Replace every frozen batch norm of timm, in place."""
    frozen: type[nn.Module] = import_module("timm.layers").FrozenBatchNormAct2d
    for name, child in module.named_children():
        if isinstance(child, frozen):
            setattr(module, name, _FrozenNormAct(child))
        else:
            _fuse_frozen(child)
    return module


def _lack(side: int) -> int:
    # Without a remainder, whose symbols slow tracing down from layer to layer.
    return (side + _STRIDES[-1] - 1) // _STRIDES[-1] * _STRIDES[-1] - side


def _create_features(name: str, drop_path: float) -> Any:  # noqa: ANN401 - timm's many classes
    try:
        return _create(name, features_only=True, **_drop_option(drop_path))
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise RecipeError(NAME_FIELD, f"{TIMM}{name} yields no maps: {error}") from error
        message = f"must be 0 for {TIMM}{name}, which has no stochastic depth, got {drop_path}"
        raise RecipeError("model.backbone.drop_path", message) from error
    except (AttributeError, AssertionError, NotImplementedError, RuntimeError) as error:
        reason = first_line(error)
        raise RecipeError(NAME_FIELD, f"{TIMM}{name} yields no maps: {reason}") from error


def _drop_option(drop_path: float) -> dict[str, float]:
    return {"drop_path_rate": drop_path} if drop_path > 0 else {}


def _create(name: str, **options: object) -> Any:  # noqa: ANN401 - timm's many classes
    # Swin models are made for one size unless told otherwise.
    any_size = {"strict_img_size": False} if name.startswith("swin") else {}
    return load_timm(name).create_model(name, **any_size, **options)


def _whole_state(name: str, *, pretrained: bool = False) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        state: dict[str, Tensor] = _create(name, pretrained=pretrained).state_dict()
    return state


def _find_maps(name: str, strides: list[int]) -> tuple[int, ...]:
    """Return the positions of the last maps of each wanted stride."""
    missing = [stride for stride in _STRIDES if stride not in strides]
    if missing:
        message = f"{TIMM}{name} has maps at strides {', '.join(map(str, strides))}"
        raise RecipeError(NAME_FIELD, f"{message}; 8, 16 and 32 are needed")
    return tuple(len(strides) - 1 - strides[::-1].index(stride) for stride in _STRIDES)


def _find_frozen(body: Any, name: str, stages: int) -> list[str]:  # noqa: ANN401 - as timm's
    """Name the modules that are not trained."""
    if stages == 0:
        return []
    modules = [module for module, _ in body.named_modules() if module]
    outputs = [_module_of(output, modules, name) for output in body.feature_info.module_name()]
    strides: list[int] = body.feature_info.reduction()
    up_to = [o for o, stride in zip(outputs, strides, strict=True) if stride <= 2**stages]
    if not up_to:  # the stem is what comes before the first map
        ahead = modules[: modules.index(outputs[0])]
        return [module for module in ahead if not outputs[0].startswith(f"{module}.")]
    last = up_to[-1]
    end = max(i for i, m in enumerate(modules) if m == last or m.startswith(f"{last}."))
    return [module for module in modules[: end + 1] if not last.startswith(f"{module}.")]


def _module_of(output: str, modules: Iterable[str], name: str) -> str:
    """Find the module that a map comes out of, which timm may have moved up or down."""
    candidates = (output, output.replace(".", "_", 1), f"model.{output}")
    found = next((candidate for candidate in candidates if candidate in set(modules)), None)
    if found is None:
        message = f"must be 0 for {TIMM}{name}, whose stages timm does not tell apart"
        raise RecipeError("model.backbone.frozen_stages", message)
    return found


def _own_name(name: str, own: Mapping[str, Tensor]) -> str:
    """Find a tensor of the whole model among those of the maps, where containers are flattened."""
    parts = name.split(".")
    joined = ("_".join(parts[:i]) + "." + ".".join(parts[i:]) for i in range(2, len(parts)))
    candidates = (name, f"model.{name}", *joined)
    return next((candidate for candidate in candidates if candidate in own), name)
