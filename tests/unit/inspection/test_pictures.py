"""Pictures of assignments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from msdetr.inspection.pictures import ImagePictures, open_photo
from msdetr.inspection.rematch import rematch
from msdetr.inspection.trace import TracedImage

Scene = Any


def pictures_of(made: Any, image: TracedImage, layers: range = range(2)) -> ImagePictures:
    matching = rematch(image, made.trace.info.one_to_many)
    return ImagePictures(image, matching, made.trace.info, layers)


def with_photo(image: TracedImage, folder: Path, size: tuple[int, int] = (80, 60)) -> TracedImage:
    path = folder / "photo.png"
    Image.new("RGB", size, (10, 90, 10)).save(path)
    return replace(image, path=str(path))


def paler(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """As the sheets show a color of the photo, so that the boxes stand out."""
    red, green, blue = (int(value + 0.35 * (255 - value)) for value in color)
    return red, green, blue


def count_color(sheet: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == color).all(axis=2).sum())


def test_sheets_are_written(scene: Scene, tmp_path: Path) -> None:
    made = scene()
    image = with_photo(made.trace.images[0], tmp_path)
    files = pictures_of(made, image).save(tmp_path / "pictures")
    names = [f"000000000010_{name}.png" for name in ("targets", "layers", "scores")]
    assert [file.name for file in files] == names
    assert [Image.open(file).mode for file in files] == ["RGB"] * 3


def test_an_image_without_targets_has_no_pictures(scene: Scene, tmp_path: Path) -> None:
    made = scene()
    assert pictures_of(made, made.trace.images[1]).save(tmp_path / "pictures") == []
    assert not (tmp_path / "pictures").exists()


def test_turned_and_deep_photos_are_shown_as_they_were_decoded(
    scene: Scene, tmp_path: Path
) -> None:
    image = with_photo(scene().trace.images[0], tmp_path, size=(60, 80))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.open(image.path).save(image.path, exif=exif)
    photo, note = open_photo(image)
    assert (photo.size, photo.getpixel((0, 0)), note) == ((80, 60), (10, 90, 10), "")
    Image.fromarray(np.full((60, 80), 0x4000, dtype=np.uint16)).save(image.path)
    photo, note = open_photo(image)
    assert (photo.getpixel((0, 0)), note) == ((64, 64, 64), "")


@pytest.mark.parametrize("size", [None, (20, 20)])
def test_a_missing_photo_is_replaced(
    scene: Scene, tmp_path: Path, size: tuple[int, int] | None
) -> None:
    """Grey instead of the photo, whether it is gone or has another size."""
    made = scene()
    image = made.trace.images[0]
    present = pictures_of(made, with_photo(image, tmp_path)).targets()
    other = image if size is None else with_photo(image, tmp_path, size)
    absent = pictures_of(made, other).targets()
    green, grey = paler((10, 90, 10)), paler((128, 128, 128))
    assert count_color(present, green) > 1000 > count_color(absent, green)
    assert count_color(absent, grey) > 1000


def test_sheets_grow_with_targets_up_to_a_limit(scene: Scene) -> None:
    sizes = []
    for count in (2, 11, 30):
        made = scene(counts=(count,), num_queries=80)
        sheet = pictures_of(made, made.trace.images[0])
        sizes.append([sheet.targets().size, sheet.strip().size, sheet.scores().size])
    assert sizes[0][0] < sizes[1][0]
    assert sizes[1][0][0] == sizes[2][0][0]
    assert all(side < 4000 for size in sizes[2] for side in size)


def test_columns_of_the_strip_are_the_layers(scene: Scene) -> None:
    made = scene(num_layers=6)
    image = made.trace.images[0]
    few, many = (pictures_of(made, image, range(n)).strip() for n in (4, 6))
    assert many.width > few.width
    assert many.height == few.height
