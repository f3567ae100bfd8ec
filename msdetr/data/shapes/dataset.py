"""The embedded default: a generated data set of shapes, written in the COCO layout.

Seven classes told apart by their outline alone; colors and textures are drawn independently of
the class, from one stream of random integers per image. Images have 128 to 256 px per side and
0 to 12 objects (about 5% have none); about 15% of the objects are small in COCO's terms (their
box has less than 32 x 32 px, no side falls below 14 px) and about 15% overlap another one at IoU
0.2 to 0.45, the others at 0.1 at most. Later objects cover earlier ones, of which about 60% or
more stay visible; boxes are tight to the whole outline, also where it is covered. Backgrounds
have gradients, stripes, clouds, grain, and clutter of thin lines and blobs without edges. Every
object differs clearly in lightness and color from what it covers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from msdetr.data.coco_index import SPLIT_FOLDERS
from msdetr.data.shapes.outlines import SHAPE_CLASSES
from msdetr.data.shapes.scene import GENERATOR_VERSION, Scene, generate_scene
from msdetr.errors import DataError
from msdetr.files import cache_folder, parse_json, providing_directory

MARKER_NAME = "shapes.json"
_ID_OF_VAL = 1_000_000

Progress = Callable[[int, int], None]
"""Called with the number of finished images and their total."""


def default_folder(num_train: int, num_val: int) -> Path:
    """Return where the data set is kept: in ``$MSDETR_CACHE``, else ``~/.cache/msdetr``."""
    return cache_folder() / f"shapes-v{GENERATOR_VERSION}-{num_train}-{num_val}"


def ensure(folder: Path, num_train: int, num_val: int, progress: Progress | None = None) -> Path:
    """Generate the data set unless the folder holds it already.

    The folder appears complete or not at all. Processes that generate it at the same time do not
    disturb one another: the first to finish provides it.

    Args:
        folder: Where to write ``train2017/``, ``val2017/`` and ``annotations/``.
        num_train: Images for training. The first n images are the same whatever the number.
        num_val: Images for validation, from other seeds.
        progress: Called after every image.

    Returns:
        The folder, to be used as a data root.

    Raises:
        DataError: If the folder holds something else, or cannot be written.
    """
    wanted = {"version": GENERATOR_VERSION, "num_train": num_train, "num_val": num_val}
    if _holds(folder, wanted):
        return folder
    try:
        with providing_directory(folder) as aside:
            digest = _write(aside, {"train": num_train, "val": num_val}, progress)
            (aside / MARKER_NAME).write_text(json.dumps({**wanted, "sha256": digest}) + "\n")
    except OSError as error:
        raise DataError(str(folder), f"the shapes data set cannot be written: {error}") from error
    if not _holds(folder, wanted):
        raise DataError(str(folder), "another process wrote another data set here")
    return folder


def scene_digest(scene: Scene) -> bytes:
    """Return a hash of a scene's pixels, classes and boxes."""
    described = [(p.outline.label, p.box_xywh_px) for p in scene.objects]
    content = repr((scene.pixels.shape, described)).encode() + scene.pixels.tobytes()
    return hashlib.sha256(content).digest()


def _holds(folder: Path, wanted: Mapping[str, int]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        marker = parse_json((folder / MARKER_NAME).read_text())
        found = {key: marker[key] for key in wanted}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            str(folder), f"holds something else (no {MARKER_NAME}); name an empty or new folder"
        ) from None
    if found != wanted:
        raise DataError(str(folder), f"holds shapes of {found}, expected {dict(wanted)}")
    return True


@dataclass(frozen=True)
class _Written:
    """What remains of a scene after its image file is written."""

    image: dict[str, Any]
    annotations: list[dict[str, Any]]
    digest: bytes


def _write(folder: Path, counts: Mapping[str, int], progress: Progress | None) -> str:
    (folder / "annotations").mkdir()
    whole, done = hashlib.sha256(), 0
    for split, count in counts.items():
        written = []
        for entry in _write_images(folder / SPLIT_FOLDERS[split], split, count):
            written.append(entry)
            whole.update(entry.digest)
            done += 1
            if progress is not None:
                progress(done, sum(counts.values()))
        name = f"instances_{SPLIT_FOLDERS[split]}.json"
        (folder / "annotations" / name).write_text(json.dumps(_to_coco(written)))
    return whole.hexdigest()


def _write_images(folder: Path, split: str, count: int) -> Iterator[_Written]:
    folder.mkdir()

    def write(number: int) -> _Written:
        return _write_scene(folder, split, number)

    # NumPy and the PNG writer let other threads run; a pool of processes would not be safe to
    # start from every program.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(write, range(count))


def _write_scene(folder: Path, split: str, number: int) -> _Written:
    scene = generate_scene(split, number)
    height, width, _ = scene.pixels.shape
    image_id = number + 1 + (_ID_OF_VAL if split == "val" else 0)
    name = f"{image_id:012d}.png"
    # Grain compresses to half at best, and unpacking it takes most of the time of a sample.
    Image.fromarray(scene.pixels).save(folder / name, compress_level=0)
    annotations = []
    for placed in scene.objects:
        x, y, w, h = placed.box_xywh_px
        annotations.append(
            {
                "image_id": image_id,
                "category_id": placed.outline.label + 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
            }
        )
    image = {"id": image_id, "file_name": name, "height": height, "width": width}
    return _Written(image, annotations, scene_digest(scene))


def _to_coco(written: list[_Written]) -> dict[str, Any]:
    annotations = [annotation for entry in written for annotation in entry.annotations]
    return {
        "info": {"description": f"msdetr shapes, generator version {GENERATOR_VERSION}"},
        "images": [entry.image for entry in written],
        "annotations": [{"id": i, **entry} for i, entry in enumerate(annotations, start=1)],
        "categories": [
            {"id": label, "name": shape.name} for label, shape in enumerate(SHAPE_CLASSES, start=1)
        ],
    }
