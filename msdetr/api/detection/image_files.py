"""Which image files the arguments of a command mean."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from msdetr.errors import Problem, UsageError

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff")
) | {".webp"}


def find_images(inputs: Sequence[str]) -> list[Path]:
    """List image files, each once, in the order of the inputs.

    Args:
        inputs: Files (whatever their suffix), folders (searched with all below them, for files
            with the suffix of an image), and patterns such as ``photos/**/*.jpg``.

    Raises:
        UsageError: An input names nothing, or a folder without images.
    """
    found: dict[Path, None] = {}
    problems = []
    for text in inputs:
        files, complaint = _expand(text)
        found |= dict.fromkeys(files)
        problems += [Problem(text, complaint)] if complaint else []
    if problems:
        raise UsageError("input", problems)
    return list(found)


def _expand(text: str) -> tuple[list[Path], str | None]:
    path = Path(text)
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return below, None if below else "is a folder without images"
    if path.exists():
        return [path], None
    if not glob.has_magic(text):
        return [], "no such file or folder"
    anchor = Path(path.anchor)
    pattern = str(path.relative_to(anchor)) if path.anchor else text
    files = sorted(match for match in anchor.glob(pattern) if match.is_file())
    return files, None if files else "matches no file"


def unique_stems(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file, without its suffix; files of one name are numbered."""
    seen: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem.lower() in seen:
            number += 1
            stem = f"{path.stem}_{number}"
        seen.add(stem.lower())
        stems.append(stem)
    return stems
