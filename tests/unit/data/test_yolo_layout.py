from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from msdetr.data.foreign import ForeignObject
from msdetr.data.yolo_layout import read_yolo
from msdetr.errors import DataError

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data set of two images of 200 x 100 px; text of the labels and of the YAML file."""

    def build(
        labels: str | None = "1 0.5 0.5 0.2 0.4\n", text: str = "names: [cat, dog]\n"
    ) -> Path:
        for split in ("train", "val"):
            (tmp_path / "images" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "labels" / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (200, 100)).save(tmp_path / "images" / split / f"{split}.png")
        if labels is not None:
            (tmp_path / "labels" / "train" / "train.txt").write_text(labels)
        if "train:" not in text:
            text += "train: images/train\nval: images/val\n"
        (tmp_path / "data.yaml").write_text(text)
        return tmp_path

    return build


def problems(source: Path) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as caught:
        read_yolo(source)
    return [(problem.where, problem.message) for problem in caught.value.problems]


def test_boxes_classes_and_empty_images(make: Make) -> None:
    data = read_yolo(make())
    assert data.class_names == ("cat", "dog")
    (train,), (val,) = data.splits["train"], data.splits["val"]
    assert (train.name, train.hw, val.name, val.objects) == ("train.png", (100, 200), "val.png", ())
    (found,) = train.objects
    assert (found.class_name, found.is_crowd) == ("dog", False)
    assert found.box_xyxy_px == pytest.approx((80, 30, 120, 70))
    assert data.unused == ()


def test_file_and_folder_are_the_same(make: Make) -> None:
    folder = make()
    assert read_yolo(folder) == read_yolo(folder / "data.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "names: {0: cat, 1: dog}\ntrain: ../images/train\nval: [images/val]\n",
        "names: [cat, dog]\npath: images\ntrain: train\nval: val\n",
        "names: [cat, dog]\npath: /somewhere/else\ntrain: images/train\nval: images/val\n",
    ],
)
def test_ways_to_name_classes_and_folders(make: Make, text: str) -> None:
    data = read_yolo(make(text=text))
    assert data.class_names == ("cat", "dog")
    assert [len(images) for images in data.splits.values()] == [1, 1]


def test_images_in_folders_keep_them(make: Make) -> None:
    folder = make()
    (folder / "images" / "train" / "more").mkdir()
    (folder / "labels" / "train" / "more").mkdir()
    Image.new("L", (10, 20)).save(folder / "images" / "train" / "more" / "a.jpg")
    (folder / "labels" / "train" / "more" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    first, _ = read_yolo(folder).splits["train"]
    assert (first.name, first.hw) == ("more/a.jpg", (20, 10))
    assert first.objects == (ForeignObject("cat", (0, 0, 10, 20)),)


def test_turned_images_have_the_size_that_is_seen(make: Make) -> None:
    folder = make()
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (200, 100)).save(folder / "images" / "train" / "train.jpg", exif=exif)
    (folder / "images" / "train" / "train.png").unlink()
    (image,) = read_yolo(folder).splits["train"]
    assert image.hw == (200, 100)
    assert image.objects[0].box_xyxy_px == pytest.approx((40, 60, 60, 140))


def test_files_that_belong_to_nothing_are_named(make: Make) -> None:
    folder = make()
    (folder / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    (folder / "images" / "val" / "notes.doc").write_text("x")
    unused = [str(folder / "labels/train/gone.txt"), str(folder / "images/val/notes.doc")]
    assert read_yolo(folder).unused == tuple(unused)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.2", "expected a class and 4 numbers, found 4 words"),
        ("1 .1 .1 .2 .1 .2 .2", "found 7 words (polygons are not taken)"),
        ("dog 0.5 0.5 0.2 0.4", "expected a class and 4 numbers, found 'dog 0.5 0.5 0.2 0.4'"),
        ("2 0.5 0.5 0.2 0.4", "expected a class from 0 to 1, found 2"),
        ("1 100 50 40 40", "expected numbers from 0 to 1, found 100 50 40 40"),
        ("1 0.5 nan 0.2 0.4", "expected numbers from 0 to 1, found 0.5 nan 0.2 0.4"),
        ("1 0.9 0.5 0.4 0.4", "the box (140, 30) to (220, 70) px leaves the image, which has 200"),
    ],
)
def test_bad_line_is_named(make: Make, line: str, message: str) -> None:
    folder = make(f"1 0.5 0.5 0.2 0.4\n\n{line}\n")
    [(where, found)] = problems(folder)
    assert where == f"{folder / 'labels/train/train.txt'} line 3"
    assert message in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: [cat]\ntrain: images/train\n", [("val", "is missing")]),
        ("- cat\n# train:", [(key, "is missing") for key in ("names", "train", "val")]),
        ("names: {0: cat, 2: dog}\n", [("names", "must be a list of class names, or a mapping")]),
        ("names: [cat, cat]\n", [("names", "name classes twice: cat")]),
        ("names: [cat\n", [("", "cannot be read as YAML: ")]),
        (
            "names: [cat]\ntrain: images/nope\nval: images/val\n",
            [("train", "must name folders of images, got 'images/nope', which is no folder")],
        ),
    ],
)
def test_bad_yaml(make: Make, text: str, expected: list[tuple[str, str]]) -> None:
    found = problems(make(text=text))
    assert [where for where, _ in found] == [where for where, _ in expected]
    assert all(m.startswith(start) for (_, m), (_, start) in zip(found, expected, strict=True))


def test_damaged_image(make: Make) -> None:
    folder = make()
    (folder / "images" / "val" / "val.png").write_bytes(b"no image")
    [(where, message)] = problems(folder)
    assert (where, message) == (str(folder / "images/val/val.png"), "cannot be read as an image")


def test_folders_with_images_of_one_name(make: Make) -> None:
    folder = make(text="names: [cat, dog]\ntrain: [images/train, images/more]\nval: images/val\n")
    (folder / "images" / "more").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "images" / "more" / "train.png")
    [(where, message)] = problems(folder)
    assert where == str(folder / "images/more/train.png")
    assert message == f"has the name of {folder / 'images/train/train.png'} in split train"


@pytest.mark.parametrize("name", ["nowhere", "images"])
def test_no_yaml_file(make: Make, name: str) -> None:
    with pytest.raises(DataError, match=r"no such file|must hold one YAML file .* found none"):
        read_yolo(make() / name)
