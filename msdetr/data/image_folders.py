"""Which files of a folder are images that somebody put there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msdetr.image_files import image_suffixes

DRAWINGS_DIR, DRAWINGS_LIST = "drawings", "images.json"
"""Where ``msdetr predict`` puts its drawings, and the file that lists them."""

# Pictures to those who took them, but of formats that are not read.
_UNREAD_SUFFIXES = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".jxr", ".psd", ".svg", ".eps", ".exr", ".hdr", ".xcf")
) | frozenset((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"))
_LEFTOVERS = frozenset({"__MACOSX"})


def list_images(folder: Path, *, with_unread: bool = False) -> list[Path]:
    """List the images of a folder and of all below it, by path.

    Links are followed, each folder is visited once. Hidden files and folders, leftovers of
    archives and the drawings of predictions are left out.

    Args:
        folder: Where to look; it may itself be hidden.
        with_unread: Whether to list pictures of formats that are not read, too, so that somebody
            says so.
    """
    suffixes = image_suffixes() | (_UNREAD_SUFFIXES if with_unread else frozenset())
    files = (path for path in _walk(folder) if path.suffix.lower() in suffixes)
    return sorted(path for path in files if path.is_file())


def is_left_out(parts: Sequence[str]) -> bool:
    """Say whether names on the way to a file are hidden or leftovers."""
    return any(part.startswith(".") or part in _LEFTOVERS for part in parts)


def find_drawings(folder: Path) -> frozenset[Path]:
    """Return the drawings of an earlier prediction into a folder; none if there was none."""
    if not (folder / DRAWINGS_DIR).is_dir():
        return frozenset()
    try:
        images = json.loads((folder / DRAWINGS_LIST).read_text(encoding="utf-8"))["images"]
        names = [Path(image["drawing"]).name for image in images]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return frozenset()  # none, or not ours
    return frozenset(folder / DRAWINGS_DIR / name for name in names)


def _walk(folder: Path) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    drawings: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        status = here.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not is_left_out([name]))
        drawings |= find_drawings(here)
        paths = (here / name for name in files if not is_left_out([name]))
        yield from (path for path in paths if path not in drawings)
