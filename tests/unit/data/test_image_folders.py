from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from msdetr.data.image_folders import find_drawings, list_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path, *, with_unread: bool = False) -> list[str]:
    paths = list_images(folder, with_unread=with_unread)
    return [path.relative_to(folder).as_posix() for path in paths]


def test_suffixes_of_all_spellings(folder: Path) -> None:
    names = ["a.JPG", "b.jfif", "c.mpo", "d.jpe", "e.tga", "f.Pgm", "g.J2K", "h.apng", "i.AVIF"]
    touch(folder, *names, "notes.txt", "a.jpg.txt", "jpg", "page.pdf", "icon.ico", "table.csv")
    assert listed(folder) == names


def test_pictures_that_are_not_read_are_listed_on_demand(folder: Path) -> None:
    touch(folder, "a.png", "b.HEIC", "c.NEF", "d.jxl", "notes.txt", "film.mov")
    assert listed(folder) == ["a.png"]
    assert listed(folder, with_unread=True) == ["a.png", "b.HEIC", "c.NEF", "d.jxl"]


def test_what_nobody_put_there_is_left_out(folder: Path) -> None:
    touch(folder, "deep/a.png", "._a.png", ".hidden.jpg", "deep/.b.png", ".thumbnails/a.png")
    touch(folder, "__MACOSX/a.png", "deep/__MACOSX/x/a.png", "deep/.ipynb_checkpoints/a-1.png")
    assert listed(folder) == ["deep/a.png"]
    assert listed(folder / ".thumbnails") == ["a.png"]


def test_links_are_followed_and_circles_are_not(folder: Path, tmp_path: Path) -> None:
    touch(folder, "a.png")
    touch(tmp_path / "elsewhere", "b.png", "deep/c.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "linked.png").symlink_to(tmp_path / "elsewhere/b.png")
    (folder / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "elsewhere/deep/up").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder, target_is_directory=True)
    assert listed(folder) == ["a.png", "linked/b.png", "linked/deep/c.png", "linked.png"]


def test_only_files_are_listed(folder: Path) -> None:
    touch(folder, "album.png/a.png")
    os.mkfifo(folder / "pipe.png")
    assert listed(folder) == ["album.png/a.png"]


def predict_into(folder: Path, *names: str) -> None:
    """What a prediction leaves."""
    (folder / "drawings").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (2, 2)).save(folder / "drawings" / name)
    images = [{"id": i, "drawing": f"drawings/{name}"} for i, name in enumerate(names)]
    (folder / "images.json").write_text(json.dumps({"images": images}))
    (folder / "predictions.json").write_text("[]")


def test_drawings_of_predictions_are_left_out(folder: Path) -> None:
    predict_into(folder / "found", "a.jpg", "a_2.jpg")
    touch(folder, "a.jpg", "drawings/child.jpg", "found/b.jpg", "found/drawings/mine.jpg")
    names = ["a.jpg", "drawings/child.jpg", "found/b.jpg", "found/drawings/mine.jpg"]
    assert listed(folder) == names
    assert {path.name for path in find_drawings(folder / "found")} == {"a.jpg", "a_2.jpg"}


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"images": 3}', '{"images": [{"id": 1}]}', "[" * 10_000, "\udcff"]
)
def test_a_list_of_images_that_is_none_of_ours(folder: Path, content: str) -> None:
    touch(folder, "drawings/a.jpg")
    (folder / "images.json").write_text(content, errors="surrogateescape")
    assert listed(folder) == ["drawings/a.jpg"]
