"""Backbone weights from torchvision's ImageNet models or from a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_model_weights

from msdetr.errors import CheckpointError

_FIELD = "model.backbone.weights"


def load_backbone_weights(backbone_name: str, weights: str) -> dict[str, Tensor] | None:
    """Resolve the recipe's choice of backbone weights.

    Args:
        backbone_name: Name as for ``Backbone``.
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once into torch.hub's
            cache), "none", or a path to a state dict (.safetensors, or a file of torch.save).

    Returns:
        State dict under torchvision's names; None for "none".

    Raises:
        CheckpointError: No such weights, no network, or an unreadable file.
    """
    match weights:
        case "none":
            return None
        case "imagenet":
            return _download(backbone_name)
        case _:
            return _read(Path(weights).expanduser())


def _download(backbone_name: str) -> dict[str, Tensor]:
    if backbone_name == "resnet_tiny":
        raise CheckpointError(
            _FIELD, f"{backbone_name} has no ImageNet weights; set {_FIELD} to none or to a path"
        )
    url: str = get_model_weights(backbone_name)["IMAGENET1K_V1"].url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rsplit("/", 1)[-1]
    if file.is_file():
        return _read(file)
    try:
        torch.hub.download_url_to_file(url, str(_prepared(file)), hash_prefix=_hash_prefix(file))
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            _FIELD,
            f"cannot download {url} ({error}); put that file at {file}, "
            f"or set {_FIELD} to the path of a file or to none",
        ) from error
    return _read(file)


def _prepared(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _hash_prefix(file: Path) -> str:
    # torchvision names files <model>-<start of the SHA-256>.pth
    return file.stem.rsplit("-", 1)[-1]


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            str(path), f"no such file; set {_FIELD} to an existing file, imagenet or none"
        )
    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(str(path), f"cannot be read as a state dict: {reason}") from error
    if not _is_state_dict(state):
        raise CheckpointError(str(path), "expected a state dict (names and tensors)")
    return dict(state)


def _is_state_dict(state: object) -> bool:
    return isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())
