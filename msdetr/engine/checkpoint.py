"""Checkpoints: a directory of plain files, replaced as a whole or not at all.

``model.safetensors``, ``checkpoint.json`` and, where they apply, ``ema.safetensors`` and
``training_state.pt``. ``SHA256SUMS`` (as ``sha256sum -c`` reads it) covers them all, so that
damage is found before anything is used. No file is ever unpickled beyond plain tensors.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from msdetr.errors import CheckpointError, MsdetrError
from msdetr.files import (
    SUMS_FILE,
    digest_file,
    older_of,
    parse_json,
    refuse_unlisted,
    replace_with_sums,
    require_version,
)

FORMAT_VERSION = 1
INFO_FILE = "checkpoint.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
STATE_FILE = "training_state.pt"

_KNOWN_FILES = {INFO_FILE, MODEL_FILE, EMA_FILE, STATE_FILE}


def save_checkpoint(
    directory: Path,
    *,
    info: Mapping[str, Any],
    model: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None = None,
    training_state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, replacing an older one at the same place.

    A crash at any moment leaves the older or the newer checkpoint, whole; after one in the very
    middle :func:`find_checkpoint` knows where the older one stands.

    Args:
        directory: The checkpoint; its parent is created if need be.
        info: JSON values for ``checkpoint.json``, beside ``format_version``.
        model: Weights, each tensor once.
        ema: Averaged weights under the same names, or None.
        training_state: Tensors and plain containers, what is needed to go on training.

    Raises:
        MsdetrError: The files cannot be written; an older checkpoint is left as it was.
    """
    document = {"format_version": FORMAT_VERSION, **info}
    files = {
        INFO_FILE: json.dumps(document, indent=2, allow_nan=False).encode(),
        MODEL_FILE: _weights_to_bytes(model),
    }
    if ema is not None:
        files[EMA_FILE] = _weights_to_bytes(ema)
    if training_state is not None:
        buffer = io.BytesIO()
        torch.save(dict(training_state), buffer)
        files[STATE_FILE] = buffer.getvalue()
    try:
        replace_with_sums(directory, files)
    except OSError as error:
        reason = error.strerror or str(error)
        before = find_checkpoint(directory) is not None
        rest = "; the checkpoint saved there before is unchanged" if before else ""
        raise MsdetrError(f"{directory}: cannot save the checkpoint: {reason}{rest}") from error


def resolve_checkpoint(path: Path) -> Path:
    """Find the checkpoint that a path means.

    Args:
        path: A checkpoint, or a run directory (its best checkpoint, else its last).

    Raises:
        CheckpointError: There is none.
    """
    if path.is_file():
        raise CheckpointError(
            str(path), "is a file; expected a checkpoint directory or a run directory"
        )
    places = [path, path / "checkpoints" / "best", path / "checkpoints" / "last"]
    for place in places:
        found = find_checkpoint(place)
        if found is not None:
            return found
    if not path.is_dir():
        raise CheckpointError(str(path), "no such checkpoint or run directory")
    raise CheckpointError(str(path), f"holds no checkpoint (no {INFO_FILE} in it or below it)")


def find_checkpoint(directory: Path) -> Path | None:
    """Find the checkpoint saved as ``directory``, also after a crash in its replacement."""
    for place in (directory, older_of(directory)):
        if (place / INFO_FILE).is_file() or (place / MODEL_FILE).is_file():
            return place
    return None


def read_info(checkpoint: Path) -> dict[str, Any]:
    """Check every file of a checkpoint and read ``checkpoint.json``.

    Raises:
        CheckpointError: A file is missing or damaged, or the format is newer.
    """
    _verify(checkpoint)
    content = _read(checkpoint, INFO_FILE)
    try:
        document = parse_json(content)
    except ValueError as error:
        raise CheckpointError(str(checkpoint / INFO_FILE), f"is not JSON: {error}") from error
    return require_version(document, checkpoint / INFO_FILE, FORMAT_VERSION, CheckpointError)


def read_weights(checkpoint: Path, *, averaged: bool = True) -> dict[str, Tensor]:
    """Read weights, on the CPU.

    Args:
        checkpoint: The checkpoint's directory.
        averaged: Prefer the averaged weights where the run kept an average.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    has_average = (checkpoint / EMA_FILE).exists()
    name = EMA_FILE if averaged and has_average else MODEL_FILE
    content = _read(checkpoint, name)
    try:
        return dict(parse_safetensors(content))
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(str(checkpoint / name), f"is damaged: {error}") from error


def has_averaged_weights(checkpoint: Path) -> bool:
    """Tell whether the run that saved the checkpoint kept an average of its weights."""
    return (checkpoint / EMA_FILE).exists()


def read_training_state(checkpoint: Path) -> dict[str, Any]:
    """Read what is needed to go on training, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or holds more than tensors and plain
            containers.
    """
    content = _read(checkpoint, STATE_FILE)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # A crafted pickle can fail in many ways inside the restricted loader; none executes it.
    except Exception as error:
        # torch's own words advise to load it unsafely.
        raise CheckpointError(
            str(checkpoint / STATE_FILE),
            "refused: damaged, or a pickle that holds more than tensors and plain values; nothing "
            "in it was run",
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(str(checkpoint / STATE_FILE), "does not hold a training state")
    return state


def _weights_to_bytes(weights: Mapping[str, Tensor]) -> bytes:
    return to_safetensors({k: v.detach().cpu().contiguous() for k, v in weights.items()})


def _verify(checkpoint: Path) -> None:
    with _reading(checkpoint):
        # File managers and network file systems leave hidden files, which nothing reads.
        entries = [entry for entry in sorted(checkpoint.iterdir()) if entry.name[0] != "."]
        _refuse_strangers(entries)
        listed = (checkpoint / SUMS_FILE).read_bytes().decode(errors="replace").splitlines()
    names = [line.split("  ")[-1] for line in listed]
    for name in names:
        if name not in _KNOWN_FILES or names.count(name) > 1:
            raise CheckpointError(str(checkpoint / SUMS_FILE), f"is damaged: lists {name!r:.40}")
    present = {entry.name for entry in entries} - {SUMS_FILE}
    for name in sorted({*names, *present, INFO_FILE, MODEL_FILE}):
        with _reading(checkpoint):
            refuse_unlisted(checkpoint / name, digest_file(checkpoint / name), CheckpointError)


def _refuse_strangers(entries: Sequence[Path]) -> None:
    for entry in entries:
        if entry.name not in _KNOWN_FILES | {SUMS_FILE}:
            raise CheckpointError(str(entry), "is no part of a checkpoint; move it elsewhere")
        if not entry.is_file():
            raise CheckpointError(str(entry), "is not a file")


def _read(checkpoint: Path, name: str) -> bytes:
    with _reading(checkpoint):
        content = (checkpoint / name).read_bytes()
        refuse_unlisted(checkpoint / name, sha256(content).hexdigest(), CheckpointError)
    return content


@contextmanager
def _reading(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise CheckpointError(str(checkpoint), f"is incomplete: {missing} is missing") from error
    except OSError as error:
        raise CheckpointError(str(checkpoint), f"cannot be read: {error}") from error
