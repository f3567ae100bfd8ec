"""Whatever lies in a folder of images is opened safely, or refused."""

from __future__ import annotations

import os
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from msdetr.errors import UnreadableImageError
from msdetr.image_files import IMAGE_FORMATS, open_image, read_image_file, unreadable

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
