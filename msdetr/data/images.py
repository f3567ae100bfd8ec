"""Decoding of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from msdetr.errors import DataError


def decode_image(path: Path, annotated_hw: tuple[int, int] | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB.

    Grayscale and palette images are expanded, CMYK converted, transparency is ignored.

    Args:
        path: The file.
        annotated_hw: Height and width in pixels that the annotations hold for. The orientation
            that the file asks for (EXIF) is applied only where the image then has this size.
            None applies it always.

    Raises:
        DataError: If the file is missing, damaged or no image, or has another size.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            image = _to_rgb(_orient(opened, annotated_hw))
    except FileNotFoundError:
        raise DataError(str(path), "the image file does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(str(path), f"cannot be read as an image ({reason})") from error
    if annotated_hw is not None and annotated_hw != _hw(image):
        raise DataError(
            str(path),
            f"annotated as {_describe(annotated_hw)}, the file has {_describe(_hw(image))}",
        )
    return image


def _orient(image: Image.Image, annotated_hw: tuple[int, int] | None) -> Image.Image:
    if annotated_hw is not None and _hw(image) == annotated_hw:
        return image
    turned = ImageOps.exif_transpose(image)
    return turned if annotated_hw in {None, _hw(turned)} else image


def _hw(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width


def _describe(hw: tuple[int, int]) -> str:
    return f"{hw[1]} x {hw[0]} pixels (width x height)"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey values at 255 instead of scaling them.
        grey = np.clip(np.asarray(image, dtype=np.int64) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    return image.convert("RGB")
