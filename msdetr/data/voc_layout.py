"""Data sets in the layout of PASCAL VOC: an XML file per image, and lists of the splits.

Source: Everingham et al., The PASCAL Visual Object Classes Challenge 2012 Development Kit.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from msdetr.data.foreign import (
    ForeignData,
    ForeignImage,
    ForeignObject,
    find_box_problem,
    read_sizes,
)
from msdetr.data.image_folders import list_images
from msdetr.errors import DataError, Problem

SPLITS = ("train", "val")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Path) -> ForeignData:
    """Read a data set in the layout of PASCAL VOC.

    The pixels of a box are counted from 1 and include the last one; difficult objects become
    crowds. Classes are in alphabetical order.

    Args:
        source: Folder with ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main/``, in which
            ``train.txt`` and ``val.txt`` list the images.

    Raises:
        DataError: Files are missing or malformed; every problem names its file.
    """
    _require_layout(source)
    problems: list[Problem] = []
    files = {path.stem: path for path in _image_files(source)}
    splits = {}
    for split in SPLITS:
        names = _listed(source, split)
        found = (_read_image(source, name, files.get(name), problems) for name in names)
        splits[split] = tuple(image for image in found if image is not None)
    if problems:
        raise DataError(str(source), problems)
    used = {image.path.stem for images in splits.values() for image in images}
    classes = {o.class_name for images in splits.values() for i in images for o in i.objects}
    return ForeignData(tuple(sorted(classes)), splits, tuple(_unused(source, used)))


def _require_layout(source: Path) -> None:
    if not source.is_dir():
        raise DataError(str(source), "no such folder")
    lists = [f"ImageSets/Main/{split}.txt" for split in SPLITS]
    problems = [
        Problem(name, "is missing: expected JPEGImages/, Annotations/ and ImageSets/Main/")
        for name in ("JPEGImages", "Annotations", *lists)
        if not (source / name).exists()
    ]
    if problems:
        raise DataError(str(source), problems)


def _image_files(source: Path) -> list[Path]:
    folder = source / "JPEGImages"
    return [path for path in list_images(folder) if path.parent == folder]


def _listed(source: Path, split: str) -> list[str]:
    file = source / "ImageSets" / "Main" / f"{split}.txt"
    # Lists of one class have a second column.
    words = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return sorted({found[0] for found in words if found})


def _read_image(
    source: Path, name: str, path: Path | None, problems: list[Problem]
) -> ForeignImage | None:
    if path is None:
        problems.append(Problem(f"JPEGImages/{name}", "is listed, but there is no such image"))
        return None
    sizes = read_sizes(path)
    if sizes is None:
        problems.append(Problem(f"JPEGImages/{path.name}", "cannot be read as an image"))
        return None
    file = source / "Annotations" / f"{name}.xml"
    where = f"Annotations/{file.name}"
    try:
        root = ET.parse(file).getroot()
    except (OSError, ET.ParseError) as error:
        problems.append(Problem(where, f"cannot be read as XML: {error}"))
        return None
    hw = _find_hw(root, sizes)
    if hw is None:
        (height, width), _ = sizes
        message = f"its size is not that of the image, {width} x {height} px"
        problems.append(Problem(where, message))
        return None
    return ForeignImage(path, path.name, hw, _read_objects(root, hw, where, problems))


def _find_hw(
    root: ET.Element, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[int, int] | None:
    """Choose the size that the boxes refer to; None if it is neither of the file's."""
    texts = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if None in texts:
        return sizes[1]
    return next((hw for hw in sizes if [str(side) for side in hw] == texts), None)


def _read_objects(
    root: ET.Element, hw: tuple[int, int], where: str, problems: list[Problem]
) -> tuple[ForeignObject, ...]:
    objects = []
    for number, element in enumerate(root.findall("object"), 1):
        found = _read_object(element, hw)
        if isinstance(found, str):
            problems.append(Problem(f"{where} object {number}", found))
        else:
            objects.append(found)
    return tuple(objects)


def _read_object(element: ET.Element, hw: tuple[int, int]) -> ForeignObject | str:
    """Read an object, or say what is wrong with it."""
    name = (element.findtext("name") or "").strip()
    if not name:
        return "has no name"
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    try:
        x0, y0, x1, y1 = (float(text or "") for text in texts)
    except ValueError:
        found = ", ".join(f"{c} {t!r}" for c, t in zip(_CORNERS, texts, strict=True))
        return f"expected a box of 4 numbers, found {found}"
    box = (x0 - 1, y0 - 1, x1, y1)
    is_difficult = (element.findtext("difficult") or "0").strip() == "1"
    return find_box_problem(box, hw) or ForeignObject(name, box, is_difficult)


def _unused(source: Path, used: set[str]) -> list[str]:
    folders = (source / "JPEGImages", source / "Annotations")
    files = (path for folder in folders for path in folder.iterdir() if path.is_file())
    return sorted(str(path) for path in files if path.stem not in used)
