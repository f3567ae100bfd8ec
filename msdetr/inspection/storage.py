"""Files of a match trace: a directory of JSON and safetensors under checksums."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from msdetr.errors import TraceError

DOCUMENT = "trace.json"
TENSORS = "trace.safetensors"
SUMS = "SHA256SUMS"


def write_files(
    directory: Path, document: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a trace aside, then give it its name, so that none is ever seen half written.

    Args:
        directory: The trace; an older one there is replaced.
        document: JSON values, among them ``format_version``.
        tensors: Contiguous tensors by name.

    Raises:
        TraceError: The place is taken by something else, or cannot be written.
    """
    if directory.exists() and not (directory / DOCUMENT).is_file():
        raise TraceError(str(directory), "exists and is not a match trace; give another place")
    aside = directory.with_name(directory.name + ".new")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        (aside / DOCUMENT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        (aside / TENSORS).write_bytes(save(dict(tensors)))
        sums = [f"{_digest(aside / name)}  {name}\n" for name in (DOCUMENT, TENSORS)]
        (aside / SUMS).write_text("".join(sums))
        shutil.rmtree(directory, ignore_errors=True)
        aside.rename(directory)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TraceError(str(directory), f"the trace cannot be written: {error}") from error


def read_files(path: Path, format_version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check and read a trace.

    Args:
        path: Its directory, or the JSON file in it.
        format_version: Newest version that can be read.

    Returns:
        What :func:`write_files` was given.

    Raises:
        TraceError: There is none, it is damaged, or its format is newer.
    """
    directory = path.parent if path.name == DOCUMENT else path
    if not (directory / DOCUMENT).is_file():
        raise TraceError(str(path), f"is no match trace (expected a folder with {DOCUMENT} in it)")
    try:
        sums = (directory / SUMS).read_text(errors="replace")
        for name in (DOCUMENT, TENSORS):
            if f"{_digest(directory / name)}  {name}" not in sums.splitlines():
                raise TraceError(
                    str(directory / name), f"is damaged: it is not what {SUMS} says (truncated?)"
                )
        document = json.loads((directory / DOCUMENT).read_bytes())
        _check_version(directory, document, format_version)
        return document, load_file(directory / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise TraceError(str(directory), f"is damaged or incomplete: {error}") from error


def _check_version(directory: Path, document: object, newest: int) -> None:
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise TraceError(str(directory / DOCUMENT), "has no valid format_version")
    if version > newest:
        raise TraceError(
            str(directory),
            f"has format version {version}, but this release reads up to {newest}; "
            "update the package",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
