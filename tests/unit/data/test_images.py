from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msdetr.data.images import decode_image
from msdetr.errors import DataError

ORIENTATION = 0x0112
TURN_RIGHT = 6


def save(folder: Path, image: Image.Image, name: str = "image.png", turn: int = 0) -> Path:
    exif = Image.Exif()
    if turn:
        exif[ORIENTATION] = turn
    image.save(folder / name, exif=exif)
    return folder / name


def ramp(mode: str) -> Image.Image:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "grey.png"),
        ("P", "palette.png"),
        ("1", "bilevel.png"),
        ("LA", "grey_alpha.png"),
        ("RGBA", "alpha.png"),
        ("CMYK", "cmyk.tif"),
        ("RGB", "rgb.png"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    original = ramp(mode)
    image = decode_image(save(tmp_path, original, name), (3, 4))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(original.convert("RGB")))


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 256, 65535]], dtype=np.uint16))
    image = decode_image(save(tmp_path, deep), (1, 3))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 255]


def test_orientation_applies_where_the_annotation_is_upright(tmp_path: Path) -> None:
    path = save(tmp_path, ramp("RGB"), turn=TURN_RIGHT)
    upright = np.rot90(np.asarray(ramp("RGB")), -1)
    np.testing.assert_array_equal(np.asarray(decode_image(path, (4, 3))), upright)


def test_orientation_is_ignored_where_the_stored_size_is_annotated(tmp_path: Path) -> None:
    path = save(tmp_path, ramp("RGB"), turn=TURN_RIGHT)
    stored = np.asarray(ramp("RGB"))
    np.testing.assert_array_equal(np.asarray(decode_image(path, (3, 4))), stored)


def test_orientation_applies_without_annotation(tmp_path: Path) -> None:
    path = save(tmp_path, ramp("RGB"), turn=TURN_RIGHT)
    assert decode_image(path).size == (3, 4)


def test_other_size_than_annotated(tmp_path: Path) -> None:
    path = save(tmp_path, ramp("RGB"), turn=TURN_RIGHT)
    with pytest.raises(DataError, match=r"image\.png: annotated as 5 x 4 pixels .* has 4 x 3 "):
        decode_image(path, (4, 5))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: the image file does not exist"):
        decode_image(tmp_path / "gone.jpg")


def test_file_that_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"text\.jpg: cannot be read as an image") as caught:
        decode_image(path)
    assert "\n" not in str(caught.value)


def test_truncated_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(noise), "cut.jpg")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be read as an image"):
        decode_image(path, (64, 64))
