"""Annotated images of other layouts, on their way to COCO's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags

from msdetr.errors import Problem
from msdetr.image_files import open_image, read_image_file

# EXIF orientations that exchange height and width.
_ON_THE_SIDE = frozenset({5, 6, 7, 8})

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ForeignObject:
    """An object of an image.

    Attributes:
        class_name: Its class.
        box_xyxy_px: Its box, in pixels.
        is_crowd: Whether it is neither trained on nor counted when missed.
    """

    class_name: str
    box_xyxy_px: Box
    is_crowd: bool = False


@dataclass(frozen=True)
class ForeignImage:
    """An image with its objects; it may have none.

    Attributes:
        path: The file.
        name: What it is called in its split: a file name, with folders if it lies in any.
        hw: Height and width in pixels that the boxes refer to.
        objects: Its objects.
    """

    path: Path
    name: str
    hw: tuple[int, int]
    objects: tuple[ForeignObject, ...]


@dataclass(frozen=True)
class ForeignData:
    """A data set in another layout.

    Attributes:
        class_names: All classes, in order.
        splits: Images by split ("train", "val").
        unused: Files that belong to nothing.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[ForeignImage, ...]]
    unused: tuple[str, ...] = ()


def read_sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Read an image's height and width, as stored and as its EXIF orientation turns it.

    Returns:
        None if the file is no image.
    """
    try:
        with open_image(read_image_file(path)) as image:
            stored = image.height, image.width
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            # Pillow turns TIFF files by itself.
            is_turned = orientation in _ON_THE_SIDE and image.format != "TIFF"
            return stored, stored[::-1] if is_turned else stored
    except Exception:  # whatever a decoder raises on what is no image
        return None


def find_box_problem(box: Box, hw: tuple[int, int]) -> str | None:
    """Say what is wrong with a box, if anything; a pixel beyond the image is forgiven.

    A box may have no area: whoever reads the data leaves it out, and says so.
    """
    x0, y0, x1, y1 = box
    height, width = hw
    if x1 < x0 or y1 < y0:
        return f"the box ends before it begins: ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) px"
    if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:
        return (
            f"the box ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) px leaves the image, "
            f"which has {width} x {height} px"
        )
    return None


def find_double_names(split: str, images: tuple[ForeignImage, ...]) -> list[Problem]:
    """List the images of a split that would be written to the same file."""
    first: dict[str, Path] = {}
    return [
        Problem(str(image.path), f"has the name of {first[image.name]} in split {split}")
        for image in images
        if first.setdefault(image.name, image.path) != image.path
    ]
