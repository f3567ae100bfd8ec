from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from msdetr.data.foreign import ForeignObject
from msdetr.data.voc_layout import read_voc
from msdetr.errors import DataError

Make = Callable[..., Path]
DOG = "<object><name>dog</name><bndbox>{}</bndbox></object>"
BOX = "<xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax>"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data set of two images of 200 x 100 px; the objects of the first."""

    def build(objects: str = DOG.format(BOX), size: tuple[int, int] = (200, 100)) -> Path:
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        for name, split, content in (("a", "train", objects), ("b", "val", "")):
            Image.new("RGB", (200, 100)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
            (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{name} 1\n\n")
            width, height = size
            text = f"<size><width>{width}</width><height>{height}</height></size>{content}"
            (tmp_path / "Annotations" / f"{name}.xml").write_text(
                f"<annotation>{text}</annotation>"
            )
        return tmp_path

    return build


def problems(source: Path) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as caught:
        read_voc(source)
    return [(problem.where, problem.message) for problem in caught.value.problems]


def test_boxes_include_their_last_pixel_and_count_from_one(make: Make) -> None:
    difficult = (
        DOG.format(BOX)
        .replace("dog", "cat")
        .replace("<bndbox>", "<difficult>1</difficult><bndbox>")
    )
    data = read_voc(make(DOG.format(BOX) + difficult))
    assert data.class_names == ("cat", "dog")
    (train,), (val,) = data.splits["train"], data.splits["val"]
    assert (train.name, train.hw, val.objects) == ("a.jpg", (100, 200), ())
    box = (10, 20, 50, 60)
    assert train.objects == (ForeignObject("dog", box), ForeignObject("cat", box, is_crowd=True))
    assert data.unused == ()


def test_files_that_belong_to_nothing_are_named(make: Make) -> None:
    folder = make()
    (folder / "Annotations" / "c.xml").write_text("<annotation/>")
    (folder / "JPEGImages" / "d.png").write_text("x")
    unused = (str(folder / "Annotations/c.xml"), str(folder / "JPEGImages/d.png"))
    assert read_voc(folder).unused == unused


@pytest.mark.parametrize(
    ("objects", "where", "message"),
    [
        (DOG.format(BOX).replace("dog", ""), "Annotations/a.xml object 1", "has no name"),
        (
            DOG.format(BOX) + DOG.format(BOX.replace("11", "x")),
            "Annotations/a.xml object 2",
            "expected a box of 4 numbers, found xmin 'x', ymin '21', xmax '50', ymax '60'",
        ),
        (DOG.format(""), "Annotations/a.xml object 1", "expected a box of 4 numbers, found xmin N"),
        (
            DOG.format(BOX.replace("50", "5")),
            "Annotations/a.xml object 1",
            "the box ends before it begins: (10, 20) to (5, 60) px",
        ),
        (
            DOG.format(BOX.replace("50", "500")),
            "Annotations/a.xml object 1",
            "the box (10, 20) to (500, 60) px leaves the image, which has 200 x 100 px",
        ),
        ("<object>", "Annotations/a.xml", "cannot be read as XML: "),
    ],
)
def test_bad_annotation_is_named(make: Make, objects: str, where: str, message: str) -> None:
    [(found, text)] = problems(make(objects))
    assert found == where
    assert text.startswith(message)


def test_other_size_than_the_image(make: Make) -> None:
    found = problems(make(size=(300, 100)))
    message = "its size is not that of the image, 200 x 100 px"
    assert found == [(f"Annotations/{name}.xml", message) for name in "ab"]


def test_missing_files(make: Make, tmp_path: Path) -> None:
    folder = make()
    (folder / "Annotations" / "a.xml").unlink()
    (folder / "JPEGImages" / "b.jpg").unlink()
    (first, reason), second = problems(folder)
    assert first == "Annotations/a.xml"
    assert reason.startswith("cannot be read as XML: ")
    assert second == ("JPEGImages/b", "is listed, but there is no such image")
    (folder / "ImageSets" / "Main" / "val.txt").unlink()
    assert [where for where, _ in problems(folder)] == ["ImageSets/Main/val.txt"]
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_voc(tmp_path / "nowhere")
