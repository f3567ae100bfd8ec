"""Whatever lies in a folder of images is opened safely, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from msdetr import image_files
from msdetr.errors import UnreadableImageError
from msdetr.image_files import (
    IMAGE_FORMATS,
    image_suffixes,
    open_image,
    read_image_file,
    to_rgb,
    unreadable,
)

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
0 0 moveto 10 10 lineto stroke showpage
%%EOF
"""


@pytest.mark.parametrize("name", [n for n in IMAGE_FORMATS if n != "DIB"])
def test_formats_that_people_have_are_read(name: str) -> None:
    buffer = BytesIO()
    Image.new("RGB", (6, 4), (250, 0, 0)).save(buffer, format=name)
    with open_image(buffer.getvalue()) as opened:
        assert opened.convert("RGB").size == (6, 4)


def test_postscript_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    with pytest.raises(UnidentifiedImageError):
        open_image(POSTSCRIPT).load()


def test_pillow_would_read_postscript() -> None:
    """What the list of formats is for."""
    assert Image.open(BytesIO(POSTSCRIPT)).format == "EPS"


def test_missing_files_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"gone\.png: the image file does not exist"):
        read_image_file(tmp_path / "gone.png")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UnreadableImageError, match=r"image\.png: is not a file"):
        read_image_file(path)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_image_file(Path("a\0b.png"))
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_image_file(Path("a" * 300))


def test_one_line_says_why() -> None:
    said = str(unreadable(Path("a.png"), ValueError("odd\nvery odd")))
    assert said == "a.png: cannot be read as an image (odd)"
    said = str(unreadable(Path("a.png"), UnidentifiedImageError("<_io.BytesIO object>")))
    assert "BytesIO" not in said
    assert "none of JPEG, PNG" in said


def test_suffixes_are_those_of_the_formats() -> None:
    suffixes = image_suffixes()
    assert suffixes >= {".jpg", ".jfif", ".jpe", ".mpo", ".tga", ".png", ".pgm", ".avif", ".jp2"}
    assert not suffixes & {".eps", ".ps", ".pdf", ".ico", ".heic", ".psd", ".txt", ""}


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEIC, "HEIC; pip install pillow-heif"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), "HEIF; pip install pillow-heif"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
        (POSTSCRIPT, "PostScript"),
        (b"text", "none of JPEG, PNG"),
        (b"", "none of JPEG, PNG"),
    ],
)
def test_a_file_of_another_format_is_called_what_it_is(content: bytes, said: str) -> None:
    with pytest.raises(UnidentifiedImageError) as caught:
        open_image(content)
    assert str(unreadable(Path("a.jpg"), caught.value)).startswith(
        f"a.jpg: cannot be read as an image ({said}"
    )


@pytest.fixture
def fresh_formats() -> Iterator[None]:
    image_files._formats.cache_clear()
    yield
    image_files._formats.cache_clear()


@pytest.mark.usefixtures("fresh_formats")
def test_the_package_for_heic_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    package = ModuleType("pillow_heif")
    package.register_heif_opener = lambda: calls.append("registered")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    assert ".heic" in image_suffixes()
    assert calls == ["registered"]


def gray(values: list[float], kind: str) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=kind))


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0.0, 0.25, 1.0], "float32", [0, 64, 255]),
        ([0.0, 0.1, 0.2], "float32", [0, 26, 51]),  # dark, but no more than 1 is possible
        ([0.0, 99.6, 255.0], "float32", [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], "float32", [0, 128, 255]),
        ([0, 7, 255], "int32", [0, 7, 255]),
        ([0, 7, 40], "int32", [0, 7, 40]),
        ([0, 256, 65535], "int32", [0, 1, 255]),
        ([0, 256, 4095], "uint16", [0, 1, 15]),
        ([0, 0, 0], "uint16", [0, 0, 0]),
        ([0, 0, 0], "float32", [0, 0, 0]),
    ],
)
def test_deep_values_are_scaled(values: list[float], kind: str, expected: list[int]) -> None:
    assert np.asarray(to_rgb(gray(values, kind)))[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([0.0, 3.5], "float32", "0 to 3.5"),
        ([-1.0, 1.0], "float32", "-1 to 1"),
        ([0.0, 100.0], "float32", "0 to 100"),  # per cent?
        ([0.0, 1000.0], "float32", "0 to 1000"),
        ([0.0, 70000.0], "float32", "0 to 70000"),
        ([0.0, float("nan")], "float32", "nan to nan"),
        ([0.0, float("inf")], "float32", "0 to inf"),
        ([0, 4095], "int32", "0 to 4095"),
        ([-5, 200], "int32", "-5 to 200"),
        ([0, 100_000], "int32", "0 to 100000"),
        ([3, 200], "uint16", "3 to 200"),  # all black
    ],
)
def test_values_without_a_known_white_are_refused(
    values: list[float], kind: str, found: str
) -> None:
    with pytest.raises(ValueError, match=f"its gray values, {found}, do not tell"):
        to_rgb(gray(values, kind))


@pytest.mark.parametrize("top", [1000, 4095, 65535])
def test_pnm_says_what_is_white(top: int) -> None:
    content = f"P5 2 1 {top}\n".encode() + np.array([0, top], ">u2").tobytes()
    with open_image(content) as opened:
        assert np.asarray(to_rgb(opened, opened.format))[0, :, 0].tolist() == [0, 255]


def test_rows_beyond_the_first_are_scaled_alike() -> None:
    values = np.arange(600, dtype=np.uint16)[:, None].repeat(3, axis=1) * 100
    pixels = np.asarray(to_rgb(Image.fromarray(values)))
    np.testing.assert_array_equal(pixels[..., 0], values >> 8)


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_scaling_needs_little_beside_the_image(kind: str) -> None:
    values = np.zeros((4000, 1000), dtype=kind)
    values[-1, -1] = 1 if kind == "float32" else 65535
    image = Image.fromarray(values)
    tracemalloc.start()
    to_rgb(image)
    peak: Any = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # What Pillow hands over (values) and takes back (bytes, twice), and a few rows.
    assert peak < values.nbytes * 2 + 2.5 * values.size + 5e6
