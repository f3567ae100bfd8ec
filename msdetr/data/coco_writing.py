"""Writing of data sets in COCO's layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msdetr.data.coco_index import SPLIT_FOLDERS
from msdetr.data.foreign import ForeignData, ForeignImage


def write_coco(data: ForeignData, folder: Path, told: Callable[[int, int], None]) -> None:
    """Copy the images of a data set and write their annotations in COCO's layout.

    Boxes are clipped to their images; images without objects are kept. Categories have ids from
    1 on, in the order of the classes.

    Args:
        data: What to write.
        folder: An empty folder.
        told: Called with the number of images copied, and of all.

    Raises:
        OSError: Something cannot be copied or written.
    """
    total = sum(map(len, data.splits.values()))
    id_of = {name: number for number, name in enumerate(data.class_names, 1)}
    (folder / "annotations").mkdir()
    first = 1
    for split, images in data.splits.items():
        target = folder / SPLIT_FOLDERS[split]
        target.mkdir()
        for number, image in enumerate(images, first):
            (target / image.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.path, target / image.name)
            told(number, total)
        content = _content(images, first, id_of)
        file = folder / "annotations" / f"instances_{SPLIT_FOLDERS[split]}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        first += len(images)


def _content(
    images: tuple[ForeignImage, ...], first: int, id_of: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    annotations = [
        _annotation(image_id, found.box_xyxy_px, image.hw)
        | {"category_id": id_of[found.class_name], "iscrowd": int(found.is_crowd)}
        for image_id, image in enumerate(images, first)
        for found in image.objects
    ]
    return {
        "images": [
            {"id": image_id, "file_name": image.name, "height": image.hw[0], "width": image.hw[1]}
            for image_id, image in enumerate(images, first)
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for name, number in id_of.items()],
    }


def _annotation(
    image_id: int, box: tuple[float, float, float, float], hw: tuple[int, int]
) -> dict[str, Any]:
    height, width = hw
    x0, x1 = (min(max(x, 0.0), width) for x in box[::2])
    y0, y1 = (min(max(y, 0.0), height) for y in box[1::2])
    return {
        "image_id": image_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
    }
