"""Which image files the arguments of a command mean."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from msdetr.data.image_folders import DRAWINGS_DIR, is_left_out, list_images
from msdetr.errors import Problem, UsageError


def find_images(inputs: Sequence[str], output: Path | None = None) -> list[Path]:
    """List image files, each once, in the order of the inputs.

    Folders are searched with all below them, links included, for files with the suffix of an
    image; hidden files, leftovers of archives and drawings of predictions are no input. Pictures of
    formats that are not read are listed: whoever reads them says so.

    Args:
        inputs: Files (whatever their suffix), folders, and patterns such as ``photos/**/*.jpg``.
        output: Directory for drawings; those that lie there are no input either.

    Raises:
        UsageError: An input names nothing, a folder without images, or nothing but drawings in
            ``output``.
    """
    found: dict[Path, None] = {}
    problems = []
    drawings = None if output is None else (output / DRAWINGS_DIR).resolve()
    for text in inputs:
        files, complaint = _expand(text)
        others = [path for path in files if path.resolve().parent != drawings]
        if files and not others:
            complaint = "lies among the drawings of `output`; give another `output`"
        found |= dict.fromkeys(others)
        problems += [Problem(text, complaint)] if complaint else []
    if problems:
        raise UsageError("input", problems)
    return list(found)


def _expand(text: str) -> tuple[list[Path], str | None]:
    path = Path(text)
    if path.is_dir():
        below = list_images(path, with_unread=True)
        return below, None if below else "is a folder without images"
    if path.exists():
        return [path], None
    if not glob.has_magic(text):
        return [], "no such file or folder"
    anchor = Path(path.anchor)
    pattern = path.relative_to(anchor) if path.anchor else path
    files = sorted(m for m in anchor.glob(str(pattern)) if m.is_file() and _is_meant(m, pattern))
    return files, None if files else "matches no file"


def _is_meant(match: Path, pattern: Path) -> bool:
    """Leave out what is hidden, unless the pattern says a dot."""
    parts = set(match.parts) - set(pattern.parts) - set(Path(match.anchor).parts)
    return not is_left_out(tuple(parts)) or any(part.startswith(".") for part in pattern.parts)


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
