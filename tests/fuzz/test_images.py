"""1,000 mutated image files of many kinds: each is decoded, or refused in one line."""

from __future__ import annotations

import os
import random
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from msdetr.data.images import decode_content
from msdetr.errors import UnreadableImageError

NUM_FILES = int(os.environ.get("MSDETR_FUZZ_COUNT", "1000"))
SEED = int(os.environ.get("MSDETR_FUZZ_SEED", "0"))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """Small files of every kind, with and without what decoders find hard."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    colour = Image.fromarray(noise)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Software] = "camera"
    kinds = {
        name: encode(colour, name)
        for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "TGA", "PPM")
    }
    kinds["JPEG with EXIF"] = encode(colour, "JPEG", exif=exif)
    kinds["PNG with EXIF"] = encode(colour, "PNG", exif=exif)
    kinds["WebP with EXIF"] = encode(colour, "WEBP", exif=exif)
    kinds["AVIF with EXIF"] = encode(colour, "AVIF", exif=exif)
    kinds["progressive JPEG"] = encode(colour, "JPEG", progressive=True)
    kinds["CMYK JPEG"] = encode(colour.convert("CMYK"), "JPEG")
    kinds["palette PNG"] = encode(colour.convert("P"), "PNG")
    kinds["16-bit PNG"] = encode(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG")
    kinds["LZW TIFF"] = encode(colour, "TIFF", compression="tiff_lzw")
    kinds["deflate TIFF"] = encode(colour, "TIFF", compression="tiff_adobe_deflate")
    kinds["float TIFF"] = encode(Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF")
    kinds["two pictures"] = encode(colour, "GIF", save_all=True, append_images=[colour])
    kinds["transparent WebP"] = encode(colour.convert("RGBA"), "WEBP")
    return kinds


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Change a few places, mostly near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        reach = len(changed) if draw.random() < 0.5 else min(len(changed), 200)
        at = draw.randrange(max(1, reach))
        what = draw.randrange(6)
        if what == 0:
            del changed[at:]
        elif what == 1:
            del changed[at : at + draw.randrange(1, 9)]
        elif what == 2:
            changed[at:at] = draw.randbytes(draw.randrange(1, 9))
        elif what == 3:
            changed[at : at + 4] = draw.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]
            )
        else:
            changed[at : at + 1] = draw.randbytes(1)
        if not changed:
            break
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_decoded_or_refused() -> None:
    draw, kinds = random.Random(SEED), seeds()
    outcomes: Counter[str] = Counter()
    for number in range(NUM_FILES):
        name = list(kinds)[number % len(kinds)]
        content = mutate(kinds[name], draw)
        try:
            decoded = decode_content(content, Path(f"{number}.img"))
        except UnreadableImageError as error:
            outcomes["refused"] += 1
            lines = str(error).splitlines()
            if len(lines) != 1 or not lines[0].startswith(f"{number}.img: "):
                pytest.fail(f"{name}, file {number}: {error}")
        else:
            outcomes["decoded"] += 1
            if decoded.image.mode != "RGB":
                pytest.fail(f"{name}, file {number}: mode {decoded.image.mode}")
    assert sum(outcomes.values()) == NUM_FILES
    assert min(outcomes["refused"], outcomes["decoded"]) > NUM_FILES // 10, outcomes
