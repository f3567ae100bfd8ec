"""Photos for the page: scaled down, as JPEG, together no larger than the room that is left."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from msdetr.image_files import open_image, read_image_file, to_rgb
from msdetr.inspection.trace import TracedImage


@dataclass(frozen=True)
class Scale:
    """How large and how good the photos are.

    Attributes:
        side_px: Longest side.
        quality: Of the JPEG, 1..95.
    """

    side_px: int
    quality: int


SCALES = (Scale(800, 82), Scale(640, 78), Scale(480, 72), Scale(360, 65), Scale(240, 55))


def encode_pictures(
    images: Sequence[TracedImage], room: int, tick: Callable[[], None]
) -> tuple[list[str | None], Scale]:
    """Scale the photos of a trace to the largest size that fits.

    Args:
        images: Of a trace.
        room: Maximum number of characters of base64 together.
        tick: Called after every image that is read from its file.

    Returns:
        Per image a JPEG as base64, None where the file cannot be read or its size is another
        one than annotated, or where even the smallest photos leave no room; and their scale.
    """
    originals = []
    for image in images:
        originals.append(_read(Path(image.path), image.original_hw))
        tick()
    for scale in SCALES:
        encoded = [None if photo is None else _encode(photo, scale) for photo in originals]
        if sum(len(text) for text in encoded if text) <= room:
            return encoded, scale
    return [None] * len(originals), SCALES[-1]


def _read(path: Path, original_hw: tuple[int, int]) -> Image.Image | None:
    largest = (SCALES[0].side_px, SCALES[0].side_px)
    try:
        with open_image(read_image_file(path)) as file:
            if file.size[::-1] == original_hw:
                # Decodes large JPEG files at a fraction of their size.
                file.draft("RGB", largest)
                photo = to_rgb(file, file.format)
            else:
                photo = to_rgb(ImageOps.exif_transpose(file), file.format)
                if photo.size[::-1] != original_hw:
                    return None
    except Exception:  # of a decoder, if the file is not what it was
        return None
    photo.thumbnail(largest)
    return photo


def _encode(photo: Image.Image, scale: Scale) -> str:
    small = photo.copy()
    small.thumbnail((scale.side_px, scale.side_px))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=scale.quality, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
