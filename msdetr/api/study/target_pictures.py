"""Pictures of the targets that an arm wins and loses, for the report of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from msdetr.api.study.stored_cells import GroundTruth
from msdetr.data.coco_index import CocoIndex
from msdetr.data.images import decode_image
from msdetr.drawing.won_and_lost import draw_won_and_lost
from msdetr.errors import DataError
from msdetr.evaluation.found_targets import ImageTargets, TargetMatch
from msdetr.files import replacing_file
from msdetr.study.arm_findings import ArmFindings

MAX_PICTURES = 4
_QUALITY = 85
_SIDE_PX = 1000


@dataclass(frozen=True)
class TargetPicture:
    """One image of one arm and seed.

    Attributes:
        file_name: Of the picture.
        caption: What is to be seen.
        picture: The image with the targets drawn.
    """

    file_name: str
    caption: str
    picture: Image.Image

    def save(self, folder: Path) -> None:
        """Write it as JPEG."""
        with replacing_file(folder / self.file_name) as aside:
            self.picture.save(aside, "JPEG", quality=_QUALITY)


def draw_targets(
    arms: Iterable[ArmFindings], truth: GroundTruth, index: CocoIndex
) -> list[TargetPicture]:
    """Draw, for every arm, the images of its first seed with the most targets won and lost.

    Args:
        arms: Of the study.
        truth: What the cells were scored against.
        index: The images.

    Returns:
        At most ``MAX_PICTURES`` per arm; none of images that cannot be read.
    """
    names = {c["id"]: str(c["name"]) for c in truth.content["categories"]}
    return [picture for arm in arms if arm.targets for picture in _draw_arm(arm, names, index)]


def _draw_arm(
    arm: ArmFindings, names: Mapping[int, str], index: CocoIndex
) -> Iterator[TargetPicture]:
    seed = min(arm.targets)
    for number, image in enumerate(arm.targets[seed].images[:MAX_PICTURES], start=1):
        place = index.image_ids.tolist().index(image.image_id)
        height, width = index.image_hw[place].tolist()
        try:
            pixels = decode_image(index.path_of(place), (height, width))
        except DataError:
            continue
        counts = f"{len(image.won)} won, {len(image.lost)} lost"
        yield TargetPicture(
            file_name=f"targets_{arm.name}_{number}.jpg",
            caption=f"{arm.name}, seed {seed}, {index.file_names[place]}: {counts}",
            picture=_draw(pixels, image, names),
        )


def _draw(pixels: Image.Image, image: ImageTargets, names: Mapping[int, str]) -> Image.Image:
    picture = draw_won_and_lost(
        pixels,
        [match.target_xyxy_px for match in image.won],
        [match.target_xyxy_px for match in image.lost],
        won_detections=[match.detection_xyxy_px for match in image.won],
        lost_detections=[match.detection_xyxy_px for match in image.lost],
        won_captions=[_caption(match, names) for match in image.won],
        lost_captions=[_caption(match, names) for match in image.lost],
    )
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    return picture


def _caption(match: TargetMatch, names: Mapping[int, str]) -> str:
    return f"{names[match.category_id]} {match.score:.2f}"
