"""Files of a match trace: a directory of JSON and safetensors under checksums."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from msdetr.errors import TraceError
from msdetr.files import SUMS_FILE, digest_file, list_sums, refuse_unlisted, require_version

DOCUMENT = "trace.json"
TENSORS = "trace.safetensors"


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
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        files = {DOCUMENT: text.encode(), TENSORS: save(dict(tensors))}
        for name, content in {**files, SUMS_FILE: list_sums(files)}.items():
            (aside / name).write_bytes(content)
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
        for name in (DOCUMENT, TENSORS):
            refuse_unlisted(directory / name, digest_file(directory / name), TraceError)
        parsed = json.loads((directory / DOCUMENT).read_bytes())
        document = require_version(parsed, directory / DOCUMENT, format_version, TraceError)
        return document, load_file(directory / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise TraceError(str(directory), f"is damaged or incomplete: {error}") from error
