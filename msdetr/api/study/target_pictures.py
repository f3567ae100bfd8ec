"""Pictures of the targets that an arm wins and loses, for the report of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from msdetr.api.datasets import find_index
from msdetr.api.study.stored_cells import GroundTruth
from msdetr.data.coco_index import CocoIndex
from msdetr.data.images import decode_image
from msdetr.drawing.boxes import DrawnBox, draw_boxes
from msdetr.drawing.palette import COLORS, Style
from msdetr.errors import InvalidInputError
from msdetr.files import replacing_file
from msdetr.recipe import DataRecipe
from msdetr.study.arm_findings import ArmFindings

MAX_PICTURES = 4
_WON, _LOST = Style(COLORS[2]), Style(COLORS[5], "dashed")
_QUALITY = 85
_SIDE_PX = 1000

_Entry = Mapping[str, Any]


@dataclass(frozen=True)
class TargetPicture:
    """One image of one arm and seed.

    Attributes:
        arm: Name of the arm.
        file_name: Of the picture.
        caption: What is to be seen.
        picture: The image with the targets drawn.
    """

    arm: str
    file_name: str
    caption: str
    picture: Image.Image

    def save(self, folder: Path) -> None:
        """Write it as JPEG."""
        with replacing_file(folder / self.file_name) as aside:
            self.picture.save(aside, "JPEG", quality=_QUALITY)


def draw_targets(
    arms: Iterable[ArmFindings],
    truth: GroundTruth,
    numbers: Mapping[int, int],
    recipe: DataRecipe,
    data: str | None,
) -> list[TargetPicture]:
    """Draw, for every arm, the images of its first seed with the most targets won and lost.

    Args:
        arms: Of the study.
        truth: What the cells were scored against.
        numbers: Numbers of the targets by annotation id.
        recipe: Says where the images are.
        data: Where they are now, as of ``report_study``.

    Returns:
        At most ``MAX_PICTURES`` per arm; none where the images are not at hand.
    """
    try:
        index = find_index(recipe, data)
    except InvalidInputError:
        return []
    annotated = _Annotated(truth, numbers, index)
    return [picture for arm in arms for picture in _draw_arm(arm, annotated)]


class _Annotated:
    """Targets by image, and the images."""

    def __init__(self, truth: GroundTruth, numbers: Mapping[int, int], index: CocoIndex) -> None:
        self._index = index
        self._positions = {image: place for place, image in enumerate(index.image_ids.tolist())}
        self._names = {c["id"]: str(c["name"]) for c in truth.content["categories"]}
        self._by_number = {
            numbers[entry["id"]]: entry
            for entry in truth.content["annotations"]
            if entry["id"] in numbers
        }

    def group(self, targets: Iterable[int]) -> dict[int, list[_Entry]]:
        """Return the annotations of targets by image."""
        found: dict[int, list[_Entry]] = {}
        for number in sorted(targets):
            entry = self._by_number[number]
            found.setdefault(int(entry["image_id"]), []).append(entry)
        return found

    def read(self, image_id: int) -> tuple[str, Image.Image]:
        """Return the name of an image, and the image.

        Raises:
            DataError: It cannot be read.
        """
        place = self._positions[image_id]
        height, width = self._index.image_hw[place].tolist()
        image = decode_image(self._index.path_of(place), (height, width))
        return str(self._index.file_names[place]), image

    def boxes(self, targets: Iterable[_Entry], what: str, style: Style) -> list[DrawnBox]:
        """Return what to draw of targets."""
        return [
            DrawnBox(_corners(entry["bbox"]), f"{what} {self._names[entry['category_id']]}", style)
            for entry in targets
        ]


def _draw_arm(arm: ArmFindings, annotated: _Annotated) -> Iterator[TargetPicture]:
    if not arm.targets:
        return
    seed = min(arm.targets)
    won, lost = (annotated.group(targets) for targets in _changes(arm, seed))
    counts = {image: len(won.get(image, ())) + len(lost.get(image, ())) for image in {*won, *lost}}
    chosen = sorted(counts, key=lambda image: (-counts[image], image))[:MAX_PICTURES]
    for number, image_id in enumerate(chosen, start=1):
        try:
            name, image = annotated.read(image_id)
        except InvalidInputError:
            continue
        ours, theirs = won.get(image_id, []), lost.get(image_id, [])
        boxes = annotated.boxes(ours, "won", _WON) + annotated.boxes(theirs, "lost", _LOST)
        picture = draw_boxes(image, boxes)
        picture.thumbnail((_SIDE_PX, _SIDE_PX))
        caption = f"{arm.name}, seed {seed}, {name}: {len(ours)} won, {len(theirs)} lost"
        yield TargetPicture(arm.name, f"targets_{arm.name}_{number}.jpg", caption, picture)


def _changes(arm: ArmFindings, seed: int) -> tuple[frozenset[int], frozenset[int]]:
    return arm.targets[seed].won, arm.targets[seed].lost


def _corners(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = bbox
    return x, y, x + width, y + height
