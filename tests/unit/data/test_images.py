from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msdetr.data.images import decode_content, decode_image
from msdetr.errors import DataError, UnreadableImageError

ORIENTATION = 0x0112
TURN_RIGHT = 6
FLIP, MIRROR = Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT
LEFT, RIGHT = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270
# What was done to an upright picture that is stored with an orientation.
UNDOING = {
    1: (),
    2: (MIRROR,),
    3: (MIRROR, FLIP),
    4: (FLIP,),
    5: (LEFT, FLIP),
    6: (LEFT,),
    7: (LEFT, MIRROR),
    8: (RIGHT,),
}


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("moving.gif", {}),
        ("moving.png", {}),  # APNG
        ("moving.webp", {"lossless": True}),
        ("pages.tif", {}),
        ("stereo.mpo", {"quality": 100}),
    ],
)
def test_the_first_of_several_pictures_counts(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    colors = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    first, *others = (Image.new("RGB", (16, 8), color) for color in colors)
    path = tmp_path / name
    first.save(path, save_all=True, append_images=others, **options)
    with Image.open(path) as opened:
        assert getattr(opened, "n_frames", 1) == 3
    pixels = np.asarray(decode_image(path, (8, 16))).astype(int)
    assert np.abs(pixels - np.array(colors[0])).max() <= 3


def test_a_gif_with_a_transparent_color_keeps_its_palette(tmp_path: Path) -> None:
    palette = ramp("L").convert("RGB").quantize(16)
    palette.save(tmp_path / "see_through.gif", transparency=0)
    pixels = np.asarray(decode_image(tmp_path / "see_through.gif"))
    np.testing.assert_array_equal(pixels, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_orientation_of_every_format(suffix: str, orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (16, 32), "black")
    upright.paste("white", (0, 0, 8, 8))  # top left
    stored = upright
    for step in UNDOING[orientation]:
        stored = stored.transpose(step)
    options: dict[str, Any] = {"quality": 100} if suffix == "jpg" else {}
    options |= {"lossless": True} if suffix == "webp" else {}
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif, **options)
    decoded = decode_content(path.read_bytes(), path)
    if suffix != "tif":  # Pillow turns those by itself
        assert (decoded.has_orientation, decoded.is_oriented) == (orientation != 1,) * 2
    difference = np.asarray(decoded.image).astype(int) - np.asarray(upright)
    assert np.abs(difference).max() <= 10


def test_more_pixels_than_allowed_name_the_field(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("L", (30, 20)), "big.png")
    assert decode_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(path, max_pixels=599)
    assert str(caught.value) == (
        f"{path}: cannot be read as an image "
        "(30 x 20 pixels are more than data.max_image_pixels, 599)"
    )


def test_pillows_own_limit_is_out_of_force_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path, Image.new("L", (30, 20)), "big.png")
    assert decode_image(path).size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert len(recwarn) == 0
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
