"""Which files the inputs of a command mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdetr.api.detection.image_files import find_images, unique_stems
from msdetr.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "sub/c.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folder_means_all_images_below_it(folder: Path) -> None:
    found = [str(path.relative_to(folder)) for path in find_images([str(folder)])]
    assert found == ["a.png", "b.JPG", "sub/c.jpeg"]


def test_files_of_any_suffix_each_once_in_the_order_given(folder: Path) -> None:
    inputs = [str(folder / "notes.txt"), str(folder / "**/*.jpeg"), str(folder)]
    names = [path.name for path in find_images(inputs)]
    assert names == ["notes.txt", "c.jpeg", "a.png", "b.JPG"]


def test_name_with_pattern_characters_is_a_file_first(folder: Path) -> None:
    (folder / "[1].png").touch()
    assert find_images([str(folder / "[1].png")]) == [folder / "[1].png"]


def test_all_that_names_nothing_is_reported_at_once(folder: Path) -> None:
    (folder / "empty").mkdir()
    inputs = [str(folder / name) for name in ("missing.png", "empty", "*.gif")]
    with pytest.raises(UsageError) as caught:
        find_images(inputs)
    found = [(p.where, p.message) for p in caught.value.problems]
    messages = ["no such file or folder", "is a folder without images", "matches no file"]
    assert found == list(zip(inputs, messages, strict=True))


def test_stems_stay_apart_whatever_their_case() -> None:
    paths = [Path("x/a.png"), Path("y/A.jpg"), Path("a_2.png"), Path("b.png")]
    assert unique_stems(paths) == ["a", "A_2", "a_2_2", "b"]
