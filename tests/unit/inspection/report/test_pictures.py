"""Photos of a page: sizes, room, and files that are not what they were."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msdetr.inspection.report.pictures import SCALES, encode_pictures

PLENTY = 10**9


@pytest.fixture
def traced(tmp_path: Path) -> Any:
    """A noisy photo of 900 x 600 pixels as a trace knows it."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return SimpleNamespace(path=str(tmp_path / "photo.png"), original_hw=(600, 900))


def decode(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_longest_side_is_that_of_the_scale(traced: Any) -> None:
    (text,), scale = encode_pictures([traced], PLENTY, lambda: None)
    assert text is not None
    assert scale == SCALES[0]
    assert (decode(text).size, decode(text).format) == ((800, 533), "JPEG")


def test_scale_shrinks_until_all_fit_together(traced: Any) -> None:
    (whole,), _ = encode_pictures([traced], PLENTY, lambda: None)
    assert whole is not None
    # Exactly enough for one is too little for two.
    texts, scale = encode_pictures([traced, traced], len(whole), lambda: None)
    assert SCALES.index(scale) > 0
    assert sum(len(text or "") for text in texts) <= len(whole)
    (same,), scale = encode_pictures([traced], len(whole), lambda: None)
    assert (same, scale) == (whole, SCALES[0])


def test_no_room_means_no_photos(traced: Any) -> None:
    assert encode_pictures([traced], 10, lambda: None) == ([None], SCALES[-1])


def test_other_files_are_left_out_and_every_image_ticks(traced: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    others = [
        SimpleNamespace(path=traced.path, original_hw=(601, 900)),
        SimpleNamespace(path=str(tmp_path / "text.png"), original_hw=(600, 900)),
        SimpleNamespace(path=str(tmp_path / "missing.png"), original_hw=(600, 900)),
    ]
    ticks: list[int] = []
    texts, _ = encode_pictures([*others, traced], PLENTY, lambda: ticks.append(1))
    assert [text is None for text in texts] == [True, True, True, False]
    assert len(ticks) == 4


def test_orientation_of_the_file_is_applied_where_the_annotation_has_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    turned: Any = SimpleNamespace(path=str(tmp_path / "turned.jpg"), original_hw=(60, 40))
    (text,), _ = encode_pictures([turned], PLENTY, lambda: None)
    assert text is not None
    assert decode(text).size == (40, 60)
