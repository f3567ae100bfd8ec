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


def test_pictures_of_formats_that_are_not_read_are_found(folder: Path) -> None:
    (folder / "sub/d.HEIF").touch()
    assert find_images([str(folder / "sub")]) == [folder / "sub/c.jpeg", folder / "sub/d.HEIF"]


def test_patterns_mean_hidden_files_only_where_they_say_a_dot(folder: Path) -> None:
    for name in ("._a.png", ".hidden/x.png", "__MACOSX/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert find_images([str(folder / "**/*.png")]) == [folder / "a.png"]
    assert find_images([str(folder / ".*.png")]) == [folder / "._a.png"]
    assert find_images([str(folder / ".hidden/*")]) == [folder / ".hidden/x.png"]


def test_drawings_of_the_output_are_no_input(folder: Path) -> None:
    drawings = folder / "found/drawings"
    drawings.mkdir(parents=True)
    (drawings / "a.jpg").touch()  # of an interrupted prediction, which listed nothing yet
    output = folder / "sub/../found"
    names = ["a.png", "b.JPG", "sub/c.jpeg"]
    for text in (folder, folder / "**/*.*[gG]"):
        found = find_images([str(text)], output)
        assert [str(path.relative_to(folder)) for path in found] == names
    for text in (drawings, drawings / "a.jpg"):
        with pytest.raises(UsageError, match="lies among the drawings of `output`"):
            find_images([str(text)], output)


def test_stems_stay_apart_whatever_their_case() -> None:
    paths = [Path("x/a.png"), Path("y/A.jpg"), Path("a_2.png"), Path("b.png")]
    assert unique_stems(paths) == ["a", "A_2", "a_2_2", "b"]
