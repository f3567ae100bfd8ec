from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msdetr.data.image_checks import ImageFacts, examine_image, find_leakage, summarise_images

ORIENTATION, MIRROR, TURN_RIGHT = 0x0112, 2, 6


def save(folder: Path, orientation: int = 0) -> Path:
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    Image.fromarray(pixels).save(folder / "a.png", exif=exif)
    return folder / "a.png"


@pytest.mark.parametrize(
    ("orientation", "annotated_hw", "fault"),
    [
        (0, (3, 4), None),
        (0, (4, 3), "size_mismatch"),
        (TURN_RIGHT, (4, 3), "exif_applied"),
        (TURN_RIGHT, (3, 4), "exif_ignored"),
        (MIRROR, (3, 4), "exif_ignored"),
        (TURN_RIGHT, (5, 3), "size_mismatch"),
    ],
)
def test_size_and_orientation(
    tmp_path: Path, orientation: int, annotated_hw: tuple[int, int], fault: str | None
) -> None:
    path = save(tmp_path, orientation)
    facts = examine_image(tmp_path, "a.png", annotated_hw)
    assert facts.fault == fault
    assert facts.sha256 == sha256(path.read_bytes()).hexdigest()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert examine_image(tmp_path, "a.png", (3, 4)).fault == "missing_image"
    (tmp_path / "folder.png").mkdir()
    assert examine_image(tmp_path, "folder.png", (3, 4)).fault == "undecodable_image"
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    facts = examine_image(tmp_path, "a.png", (3, 4))
    assert facts.fault == "undecodable_image"
    assert facts.detail.startswith("cannot be read as an image")


def test_a_file_named_twice_is_no_copy() -> None:
    once, again, copy = (ImageFacts(name, None, "", "1") for name in ("a", "a", "b"))
    assert summarise_images([once, again]) == ()
    (found,) = summarise_images([once, again, copy])
    assert (found.check, found.examples) == ("duplicate_content", ("a = b",))


def test_leakage() -> None:
    train = [ImageFacts("a", None, "", "1"), ImageFacts("b", None, "", "2")]
    val = [ImageFacts("c", None, "", "2"), ImageFacts("a", None, "", "3")]
    gone = ImageFacts("d", "missing_image", "", None)
    found = find_leakage([*train, gone], [*val, gone])
    assert found is not None
    assert (found.severity, found.examples) == ("error", ("c = b in train",))
    assert find_leakage(train, [val[1], gone]) is None
