"""Data sets in YOLO's layout: a YAML file, and a text file of boxes beside every image.

Source: Ultralytics documentation, "Object Detection Datasets Overview".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from msdetr.data.foreign import (
    ForeignData,
    ForeignImage,
    ForeignObject,
    find_box_problem,
    find_double_names,
    read_sizes,
)
from msdetr.data.image_folders import list_images
from msdetr.errors import DataError, Problem

SPLITS = ("train", "val")
_NOT_LABELS = frozenset({"classes.txt"})


def read_yolo(source: Path) -> ForeignData:
    """Read a data set in YOLO's layout.

    Args:
        source: The YAML file, or a folder that holds one.

    Raises:
        DataError: Files are missing or malformed; every problem names its file and line.
    """
    file = _find_yaml(source)
    content = _read_yaml(file)
    names = _class_names(file, content)
    problems: list[Problem] = []
    splits, unused = {}, []
    for split in SPLITS:
        folders = _folders(file, content, split)
        images = tuple(
            image for folder in folders for image in _read_folder(folder, names, problems)
        )
        problems += find_double_names(split, images)
        splits[split] = images
        unused += [name for folder in folders for name in _unused(folder)]
    if problems:
        raise DataError(str(file), problems)
    return ForeignData(names, splits, tuple(unused))


def _find_yaml(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise DataError(str(source), "no such file or folder")
    found = sorted(path for path in source.iterdir() if path.suffix in {".yaml", ".yml"})
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise DataError(str(source), f"must hold one YAML file of the data set, found {listed}")
    return found[0]


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(str(file), f"cannot be read as YAML: {reason}") from error
    given = dict(content) if isinstance(content, dict) else {}
    missing = [key for key in ("names", *SPLITS) if not given.get(key)]
    if missing:
        raise DataError(str(file), [Problem(key, "is missing") for key in missing])
    return given


def _class_names(file: Path, content: dict[str, Any]) -> tuple[str, ...]:
    given = content["names"]
    if isinstance(given, list):
        given = dict(enumerate(given))
    if not isinstance(given, dict) or sorted(given, key=str) != sorted(range(len(given)), key=str):
        message = "must be a list of class names, or a mapping of 0, 1, ... to them"
        raise DataError(str(file), [Problem("names", f"{message}, got {given!r}")])
    names = tuple(str(given[index]) for index in range(len(given)))
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise DataError(str(file), [Problem("names", f"name classes twice: {', '.join(doubles)}")])
    return names


def _folders(file: Path, content: dict[str, Any], split: str) -> list[Path]:
    given = content[split]
    listed = given if isinstance(given, list) else [given]
    root = file.parent / str(content.get("path") or "")
    folders = [_find_folder(root, file.parent, str(name)) for name in listed]
    problems = [
        Problem(split, f"must name folders of images, got {name!r}, which is no folder")
        for name, folder in zip(listed, folders, strict=True)
        if folder is None
    ]
    if problems:
        raise DataError(str(file), problems)
    return [folder for folder in folders if folder is not None]


def _find_folder(root: Path, beside: Path, name: str) -> Path | None:
    # Exports often say ../train/images for the folder beside the file, or carry a foreign root.
    candidates = (root / name, beside / name, beside / name.removeprefix("../"))
    return next((folder for folder in candidates if folder.is_dir()), None)


def _read_folder(
    folder: Path, names: tuple[str, ...], problems: list[Problem]
) -> Iterator[ForeignImage]:
    for path in list_images(folder):
        sizes = read_sizes(path)
        if sizes is None:
            problems.append(Problem(str(path), "cannot be read as an image"))
            continue
        objects = _read_labels(_label_file(path), names, sizes[1], problems)
        yield ForeignImage(path, path.relative_to(folder).as_posix(), sizes[1], objects)


def _label_file(image: Path) -> Path:
    """Return where an image's boxes stand: below ``labels`` as the image is below ``images``."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("images", 1)
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_labels(
    file: Path, names: tuple[str, ...], hw: tuple[int, int], problems: list[Problem]
) -> tuple[ForeignObject, ...]:
    if not file.is_file():  # nothing to detect
        return ()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(file), f"cannot be read: {error}"))
        return ()
    objects = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = _read_line(line.split(), names, hw)
            if isinstance(found, str):
                problems.append(Problem(f"{file} line {number}", found))
            else:
                objects.append(found)
    return tuple(objects)


def _read_line(
    words: list[str], names: tuple[str, ...], hw: tuple[int, int]
) -> ForeignObject | str:
    """Read a line, or say what is wrong with it."""
    if len(words) != 5:
        hint = " (polygons are not taken)" if len(words) > 6 else ""
        return f"expected a class and 4 numbers, found {len(words)} words{hint}"
    try:
        label, (cx, cy, w, h) = int(words[0]), map(float, words[1:])
    except ValueError:
        return f"expected a class and 4 numbers, found '{' '.join(words)}'"
    if not 0 <= label < len(names):
        return f"expected a class from 0 to {len(names) - 1}, found {label}"
    if not all(0 <= value <= 1 for value in (cx, cy, w, h)):
        return f"expected numbers from 0 to 1, found {' '.join(words[1:])}"
    height, width = hw
    left, top = (cx - w / 2) * width, (cy - h / 2) * height
    box = (left, top, left + w * width, top + h * height)
    return find_box_problem(box, hw) or ForeignObject(names[label], box)


def _unused(folder: Path) -> list[str]:
    """List the files of a folder of images that are none, and labels of no image."""
    images = set(list_images(folder))
    labels = {_label_file(image) for image in images}
    others = {path for path in folder.rglob("*") if path.is_file()} - images
    label_folder = _label_file(folder / "images.jpg").parent
    if label_folder.is_dir():
        others |= {path for path in label_folder.rglob("*") if path.is_file()}
    return sorted(str(path) for path in others - labels if path.name not in _NOT_LABELS)
