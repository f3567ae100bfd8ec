"""What ``msdetr compare --output`` writes: numbers, pictures and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msdetr.api.datasets import find_split
from msdetr.api.output import writing
from msdetr.data.file_names import find_meant_name
from msdetr.data.images import decode_image
from msdetr.drawing.won_and_lost import draw_won_and_lost
from msdetr.errors import DataError
from msdetr.evaluation.found_targets import ImageTargets, list_won_and_lost
from msdetr.files import replace_text
from msdetr.study.checkpoints import CheckpointComparison
from msdetr.study.comparison_page import ComparedImage, render_comparison

FILES = ("comparison.json", "comparison.html", "pictures")
NUM_PICTURES = 12


def write_comparison(
    output: Path,
    comparison: CheckpointComparison,
    truth: Mapping[str, Any],
    images_dir: Path | None,
) -> None:
    """Write ``comparison.json``, ``comparison.html`` and ``pictures/``.

    Args:
        output: Their directory; made if there is none.
        comparison: What was found.
        truth: Content of the annotation file.
        images_dir: Folder of the images; None if it is not known.

    Raises:
        UsageError: The directory cannot be written to.
    """
    listed = list_won_and_lost(comparison.first.targets, comparison.second.targets)
    images = [] if images_dir is None else list(_draw(listed[:NUM_PICTURES], truth, images_dir))
    with writing(output) as aside:
        (aside / FILES[2]).mkdir()
        for number, image in enumerate(images, start=1):
            name = f"{number:02}_{Path(image.file_name).stem}.jpg"
            image.picture.save(aside / FILES[2] / name, quality=92, subsampling=0)
        document = {**comparison.to_dict(), "images": [_to_dict(image) for image in listed]}
        replace_text(aside / FILES[0], json.dumps(document, indent=2) + "\n")
        page = render_comparison(comparison, images, _note(listed, images))
        replace_text(aside / FILES[1], page)


def find_images_dir(annotations: Path, data: str | None) -> Path | None:
    """Find the folder of the images: named in ``data``, or beside the annotations as in COCO.

    Args:
        annotations: The annotation file.
        data: As of ``compare``.

    Returns:
        The folder; None if there is none.
    """
    if data is not None and not Path(data).is_file():
        return find_split(data).images_dir
    folder = annotations.parent.parent / annotations.stem.removeprefix("instances_")
    return folder if folder.is_dir() else None


def _draw(
    listed: list[ImageTargets], truth: Mapping[str, Any], images_dir: Path
) -> Iterator[ComparedImage]:
    entries = {int(entry["id"]): entry for entry in truth["images"]}
    names = {category["id"]: str(category["name"]) for category in truth["categories"]}
    for image in listed:
        file_name = str(entries[image.image_id]["file_name"])
        try:
            pixels = decode_image(images_dir / find_meant_name(file_name, images_dir))
        except DataError:
            continue  # the note says how many are shown
        picture = draw_won_and_lost(
            pixels,
            [match.target_xyxy_px for match in image.won],
            [match.target_xyxy_px for match in image.lost],
            won_detections=[match.detection_xyxy_px for match in image.won],
            lost_detections=[match.detection_xyxy_px for match in image.lost],
            won_captions=[f"{names[m.category_id]} {m.score:.2f}" for m in image.won],
            lost_captions=[f"{names[m.category_id]} {m.score:.2f}" for m in image.lost],
        )
        yield ComparedImage(file_name, picture, len(image.won), len(image.lost))


def _note(listed: list[ImageTargets], shown: list[ComparedImage]) -> str:
    if not listed:
        return "Both find the same targets."
    if not shown:
        return "No pictures: the images were not found; `data` names their folder."
    return (
        f"The {len(shown)} of {len(listed)} images with most such targets. Captions name the class "
        "and the score of the detection."
    )


def _to_dict(image: ImageTargets) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "won": [match.number for match in image.won],
        "lost": [match.number for match in image.lost],
    }
