"""Files of the published checkpoints, read without running code from them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msdetr.errors import CheckpointError, MsdetrError, VerificationError
from msdetr.files import digest_file, replacing_file

# What DistributedDataParallel and DataParallel put before every name.
_WRAPPER = "module."


@dataclass(frozen=True)
class PublishedFile:
    """Content of a published ``.pth`` file.

    Attributes:
        state: State dict under published names.
        arguments: The command line that it was trained with, as JSON values; empty if the file
            does not say.
        sha256: Hash of the file.
        notice: What was changed in reading it, in words; empty if nothing was.
    """

    state: dict[str, Tensor]
    arguments: dict[str, Any]
    sha256: str
    notice: str = ""


def read_published_file(path: Path) -> PublishedFile:
    """Read a published ``.pth`` file; nothing in it is executed.

    Args:
        path: A pickled dict with the state dict under ``model`` (``args``, ``optimizer`` and
            others may accompany it), or a bare state dict.

    Raises:
        CheckpointError: No such file, damaged, with code in it, or not a state dict.
    """
    content = _load(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise CheckpointError(str(path), "expected a state dict, or a dict with one under 'model'")
    arguments, digest = _arguments(content.get("args")), digest_file(path)
    if all(name.startswith(_WRAPPER) for name in state):
        bare = {name.removeprefix(_WRAPPER): value for name, value in state.items()}
        notice = (
            f"its names begin with {_WRAPPER!r}, as of a model that was saved wrapped; left out"
        )
        return PublishedFile(bare, arguments, digest, notice)
    return PublishedFile(dict(state), arguments, digest)


def write_published_file(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as the published code reads it, and read it again to be sure.

    Args:
        path: The ``.pth`` file; an older one is replaced as a whole.
        state: Tensors under published names, on the CPU; aliases share their storage in the
            file, too.

    Raises:
        MsdetrError: The file cannot be written.
        VerificationError: It does not hold what was written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as aside:
            torch.save({"model": dict(state)}, aside)
            _check(aside, state)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise MsdetrError(f"{path}: cannot be written: {reason}") from error


def _check(path: Path, state: Mapping[str, Tensor]) -> None:
    written = read_published_file(path).state
    if written.keys() != state.keys() or not all(
        torch.equal(written[name], value) for name, value in state.items()
    ):
        raise VerificationError(f"{path}: differs from what was written; is the disk damaged?")


def _load(path: Path) -> Any:  # noqa: ANN401 - whatever was pickled
    if not path.is_file():
        raise CheckpointError(str(path), "no such file")
    try:
        # The published files keep their command line as a Namespace, which holds plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A crafted pickle can fail in many ways inside the restricted loader; none executes it.
    except Exception as error:
        reason = "damaged, or a pickle that holds more than tensors and plain values"
        raise CheckpointError(str(path), f"refused: {reason}; nothing in it was run") from error


def _is_entry(item: tuple[object, object]) -> bool:
    name, value = item
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


def _arguments(namespace: object) -> dict[str, Any]:
    if not isinstance(namespace, argparse.Namespace):
        return {}
    return {str(key): _to_json(value) for key, value in vars(namespace).items()}


def _to_json(value: object) -> Any:  # noqa: ANN401 - JSON values
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)
