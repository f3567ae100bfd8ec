"""Decoding of image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from msdetr.errors import DataError
from msdetr.image_files import MAX_PIXELS, open_image, read_image_file, to_rgb, unreadable

_UPRIGHT = 1


@dataclass(frozen=True)
class Decoded:
    """An image file's content.

    Attributes:
        image: 8-bit RGB.
        has_orientation: Whether the EXIF data ask for the image to be rotated or mirrored.
        is_oriented: Whether that was done.
    """

    image: Image.Image
    has_orientation: bool
    is_oriented: bool


def decode_image(
    path: Path, annotated_hw: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read an image file as 8-bit RGB.

    Grayscale and palette images are expanded, CMYK converted, transparency is ignored.

    Args:
        path: The file.
        annotated_hw: Height and width in pixels that the annotations refer to. The file's EXIF
            orientation is applied only if the image then has this size. None always applies it.
        max_pixels: Pixels of the largest image that may be decoded.

    Raises:
        UnreadableImageError: If the file is missing, damaged or not an image.
        DataError: If the image has another size than annotated.
    """
    return decode_content(read_image_file(path), path, annotated_hw, max_pixels).image


def decode_content(
    content: bytes,
    path: Path,
    annotated_hw: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode the bytes of an image file; see :func:`decode_image`.

    Args:
        content: The bytes.
        path: The file, for messages.
        annotated_hw: Height and width in pixels that the annotations refer to.
        max_pixels: Pixels of the largest image that may be decoded.

    Raises:
        UnreadableImageError: If they are damaged or not an image.
        DataError: If the image has another size than annotated.
    """
    try:
        with open_image(content, max_pixels) as opened:
            opened.load()
            has_orientation = opened.getexif().get(ExifTags.Base.Orientation, _UPRIGHT) != _UPRIGHT
            oriented = _orient(opened, annotated_hw) if has_orientation else opened
            image = to_rgb(oriented, opened.format)
            decoded = Decoded(image, has_orientation, oriented is not opened)
    except Exception as error:  # damaged files make decoders raise anything
        raise unreadable(path, error) from error
    if annotated_hw is not None and annotated_hw != _hw(decoded.image):
        raise DataError(
            str(path),
            f"annotated as {_describe(annotated_hw)}, the file has {_describe(_hw(decoded.image))}",
        )
    return decoded


def _orient(image: Image.Image, annotated_hw: tuple[int, int] | None) -> Image.Image:
    if annotated_hw is not None and _hw(image) == annotated_hw:
        return image
    turned = ImageOps.exif_transpose(image)
    return turned if annotated_hw in {None, _hw(turned)} else image


def _hw(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width


def _describe(hw: tuple[int, int]) -> str:
    return f"{hw[1]} x {hw[0]} pixels (width x height)"
