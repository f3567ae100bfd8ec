"""Files of a match trace: a directory of JSON and safetensors under checksums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from msdetr.errors import TraceError
from msdetr.files import (
    digest_file,
    parse_json,
    refuse_unlisted,
    replace_with_sums,
    require_version,
)

DOCUMENT = "trace.json"
TENSORS = "trace.safetensors"


def write_files(
    directory: Path, document: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a trace as a whole, so that it is never seen half written.

    Args:
        directory: The trace; an older one there is replaced.
        document: JSON values, among them ``format_version``.
        tensors: Contiguous tensors by name.

    Raises:
        TraceError: The place is taken by something else, or cannot be written.
    """
    if directory.exists() and not (directory / DOCUMENT).is_file():
        raise TraceError(str(directory), "exists and is not a match trace; give another place")
    try:
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        replace_with_sums(directory, {DOCUMENT: text.encode(), TENSORS: save(dict(tensors))})
    except (OSError, SafetensorError) as error:
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
        for name in (DOCUMENT, TENSORS):
            refuse_unlisted(directory / name, digest_file(directory / name), TraceError)
        parsed = parse_json((directory / DOCUMENT).read_bytes())
        document = require_version(parsed, directory / DOCUMENT, format_version, TraceError)
        return document, load_file(directory / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise TraceError(str(directory), f"is damaged or incomplete: {error}") from error
