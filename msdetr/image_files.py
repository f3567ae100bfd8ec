"""The one way in which image files are opened, whoever they come from."""

from __future__ import annotations

import errno
import stat
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from msdetr.errors import UnreadableImageError

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


def open_image(content: bytes) -> Image.Image:
    """Begin to read the bytes of an image file; only its header is decoded.

    Raises:
        Exception: Of any kind, also later when the image is used: decoders raise what they like
            on damaged files.
    """
    return Image.open(BytesIO(content), formats=IMAGE_FORMATS)


def unreadable(path: Path, error: Exception) -> UnreadableImageError:
    """Say in one line that a decoder failed."""
    if isinstance(error, UnidentifiedImageError):
        names = ", ".join(name for name in IMAGE_FORMATS if name != "DIB")
        reason = f"none of {names}"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnreadableImageError(str(path), f"cannot be read as an image ({reason})")
