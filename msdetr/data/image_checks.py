"""Checks of image files: existence, integrity, annotated size, duplicates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from msdetr.data.coco_index import CocoIndex
from msdetr.data.findings import Finding, Severity, present
from msdetr.data.images import decode_content
from msdetr.errors import DataError, UnreadableImageError
from msdetr.image_files import MAX_PIXELS, read_image_file

_MESSAGES: dict[str, tuple[Severity, str]] = {
    "missing_image": ("error", "image files do not exist"),
    "undecodable_image": ("error", "image files are damaged or not images"),
    "size_mismatch": ("error", "images have another size than annotated, turned or not"),
    "exif_applied": (
        "warning",
        "images have the annotated size once turned as their EXIF orientation says, as they "
        "will be",
    ),
    "exif_ignored": (
        "warning",
        "images ask for an EXIF orientation that will be ignored, as they have the annotated size "
        "without it (check where the boxes lie)",
    ),
}


@dataclass(frozen=True)
class ImageFacts:
    """Result of reading one image file.

    Attributes:
        name: The file, relative to the image folder.
        fault: Name of the check that it fails, or None.
        detail: More about the fault; may be empty.
        sha256: Hash of the file; None if it does not exist.
    """

    name: str
    fault: str | None
    detail: str
    sha256: str | None


def examine_images(index: CocoIndex, max_pixels: int = MAX_PIXELS) -> Iterator[ImageFacts]:
    """Read and decode every image file, by ascending image id.

    Args:
        index: Names the files and the annotated sizes.
        max_pixels: Pixels of the largest image that may be decoded.
    """

    def examine(position: int) -> ImageFacts:
        height, width = index.image_hw[position].tolist()
        name = str(index.file_names[position])
        return examine_image(index.images_dir, name, (height, width), max_pixels)

    # Pillow lets other threads run while it decodes.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(examine, range(len(index)))
    finally:
        # Ctrl-C must not wait for all remaining images.
        pool.shutdown(cancel_futures=True)


def examine_image(
    images_dir: Path, name: str, annotated_hw: tuple[int, int], max_pixels: int = MAX_PIXELS
) -> ImageFacts:
    """Read and decode one image file.

    Args:
        images_dir: Folder of the images.
        name: The file, relative to the folder.
        annotated_hw: Height and width in pixels in the annotation file.
        max_pixels: Pixels of the largest image that may be decoded.
    """
    path = images_dir / name
    try:
        content = read_image_file(path)
    except UnreadableImageError as error:
        fault = "undecodable_image" if path.exists() else "missing_image"
        return ImageFacts(name, fault, error.problems[0].message, None)
    digest = sha256(content).hexdigest()
    try:
        decoded = decode_content(content, path, annotated_hw, max_pixels)
    except DataError as error:
        unreadable = isinstance(error, UnreadableImageError)
        fault = "undecodable_image" if unreadable else "size_mismatch"
        return ImageFacts(name, fault, error.problems[0].message, digest)
    if not decoded.has_orientation:
        return ImageFacts(name, None, "", digest)
    fault = "exif_applied" if decoded.is_oriented else "exif_ignored"
    return ImageFacts(name, fault, "", digest)


def summarise_images(facts: Sequence[ImageFacts]) -> tuple[Finding, ...]:
    """Turn the facts about the files of one split into findings."""
    found = []
    for check, (severity, message) in _MESSAGES.items():
        faulty = [fact for fact in facts if fact.fault == check]
        named = [
            f"{fact.name}: {fact.detail}"
            if check in {"undecodable_image", "size_mismatch"}
            else fact.name
            for fact in faulty
        ]
        found.append(Finding.of(check, severity, message, named))
    copies = [" = ".join(names) for names in _names_of(facts).values() if len(names) > 1]
    message = "groups of images within the split have the same content"
    found.append(Finding.of("duplicate_content", "warning", message, copies))
    return present(found)


def find_leakage(train: Iterable[ImageFacts], val: Iterable[ImageFacts]) -> Finding | None:
    """Find validation images whose file is a training image's, byte for byte."""
    in_train = _names_of(train)
    leaked = [
        f"{name} = {in_train[digest][0]} in train"
        for digest, names in _names_of(val).items()
        if digest in in_train
        for name in names
    ]
    message = "validation images are also training images, so that scores mean little"
    return Finding.of("leakage", "error", message, leaked)


def _names_of(facts: Iterable[ImageFacts]) -> Mapping[str, list[str]]:
    """Group files by the hash of their content; one file named twice counts once."""
    names: dict[str, list[str]] = {}
    for fact in facts:
        if fact.sha256 is not None and fact.name not in names.setdefault(fact.sha256, []):
            names[fact.sha256].append(fact.name)
    return names
