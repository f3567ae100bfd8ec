"""The one way in which image files are opened, whoever they come from."""

from __future__ import annotations

import errno
import importlib
import stat
import threading
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from msdetr.errors import UnreadableImageError, first_line

IMAGE_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "DIB",
    "GIF",
    "TIFF",
    "JPEG2000",
    "AVIF",
    "TGA",
    "PPM",
)
"""Formats that people have (MPO is one of JPEG). Pillow reads others as well, one of them by
starting Ghostscript."""

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded, unless a recipe says otherwise: the number above
which Pillow, too, refuses."""

_HEIF = "HEIF"
_HEIF_PACKAGE = "pillow_heif"
_OTHER_FORMATS = (
    (4, b"ftyphei", "HEIC; pip install pillow-heif, and it is read"),
    (4, b"ftyphev", "HEIC; pip install pillow-heif, and it is read"),
    (4, b"ftypmif1", "HEIF; pip install pillow-heif, and it is read"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"%!PS", "PostScript, a program"),
)
_8_BIT, _16_BIT = 255, 65535
_ROWS = 256

# Pillow's own limit, a variable of its module, must be out of force while a header is read.
_HEADER_LOCK = threading.Lock()


class _UnknownFormatError(UnidentifiedImageError):
    """The content is of none of the formats that are read."""


class _TooManyPixelsError(ValueError):
    """The header promises more pixels than may be decoded."""


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that are read: lower case, with the dot."""
    formats = {*_formats(), "MPO"}
    return frozenset(s for s, name in Image.registered_extensions().items() if name in formats)


def read_image_file(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        UnreadableImageError: If it is missing, no regular file, or cannot be read.
        OSError: If too many files are open.
    """
    try:
        # A pipe would be waited for, and some devices never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableImageError(str(path), "is not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError(str(path), "the image file does not exist") from None
    except (OSError, ValueError) as error:
        # Not the image's fault, which may be left out for its own.
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise unreadable(path, error) from error


def open_image(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Begin to read the bytes of an image file; only its header is decoded.

    Args:
        content: The bytes.
        max_pixels: Pixels of the largest image that may be decoded.

    Raises:
        Exception: Of any kind, also later when the image is used: decoders raise what they like
            on damaged files.
    """
    try:
        opened = _open(content)
    except UnidentifiedImageError:
        raise _UnknownFormatError(_name_format(content)) from None
    if opened.width * opened.height > max_pixels:
        raise _TooManyPixelsError(
            f"{opened.width} x {opened.height} pixels are more than data.max_image_pixels, "
            f"{max_pixels}"
        )
    return opened


def to_rgb(image: Image.Image, source_format: str | None = None) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Deep gray values are scaled, not clipped: 16 bits as they are; 32-bit integers and floats if
    their range tells what white is.

    Args:
        image: The image.
        source_format: Pillow's name of the format of its file, if it comes from one.

    Raises:
        ValueError: It does not.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow scales what it reads from PNM to 16 bits.
        is_scaled = image.mode == "I" and source_format == "PPM"
        image = Image.fromarray(_to_8_bit(np.asarray(image), is_scaled=is_scaled))
    return image.convert("RGB")


def unreadable(path: Path, error: Exception) -> UnreadableImageError:
    """Say in one line that a decoder failed."""
    if isinstance(error, UnidentifiedImageError):
        names = ", ".join(name for name in _formats() if name != "DIB")
        what = str(error) if isinstance(error, _UnknownFormatError) else ""
        reason = what or f"none of {names}"
    else:
        reason = first_line(error)
    return UnreadableImageError(str(path), f"cannot be read as an image ({reason})")


@cache
def _formats() -> tuple[str, ...]:
    try:
        importlib.import_module(_HEIF_PACKAGE).register_heif_opener()
    except ImportError:
        return IMAGE_FORMATS
    return (*IMAGE_FORMATS, _HEIF)


def _open(content: bytes) -> Image.Image:
    formats = _formats()
    with _HEADER_LOCK:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(BytesIO(content), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _name_format(content: bytes) -> str:
    """Name the format of a file that is not read, if it is known."""
    names = (n for at, magic, n in _OTHER_FORMATS if content[at : at + len(magic)] == magic)
    return next(names, "")


def _to_8_bit(values: NDArray[Any], *, is_scaled: bool) -> NDArray[np.uint8]:
    """Scale gray values [H, W], a few rows at a time: images may be huge."""
    is_float = values.dtype.kind == "f"
    white = _16_BIT if is_scaled else _find_white(values)
    gray = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        if is_float:
            scaled = np.rint(rows * (_8_BIT / white))
        else:
            scaled = rows >> 8 if white == _16_BIT else rows
        gray[start : start + _ROWS] = scaled
    return gray


def _find_white(values: NDArray[Any]) -> int:
    """Tell what value is white; a dark image of a wider range must not pass for a bright one."""
    low, high = values.min().item(), values.max().item()
    whites: tuple[int, ...] = (_8_BIT, _16_BIT)
    if values.dtype.kind == "u":
        # 16 bits, whatever the image uses of them, unless all of it would become black.
        if high == 0 or high > _8_BIT:
            return _16_BIT
        whites = (_16_BIT,)
    elif low >= 0 and high <= (_8_BIT if values.dtype.kind == "i" else 1):
        return _8_BIT if values.dtype.kind == "i" else 1
    for white in whites:
        if low >= 0 and white / 2 < high <= white:
            return white
    expected = " or ".join(f"0..{white}" for white in whites)
    raise ValueError(
        f"its gray values, {low:g} to {high:g}, do not tell which value is white; save it with 8 "
        f"bits, or with values of all of {expected}"
    )
