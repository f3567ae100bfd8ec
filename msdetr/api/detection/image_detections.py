"""What a detector finds in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from msdetr.data.labels import LabelSpace
from msdetr.drawing.detections import draw_detections
from msdetr.structures import Detections


@dataclass(frozen=True)
class ImageDetections:
    """Detections of one image, by descending score; on the CPU.

    Attributes:
        boxes_xyxy_px: [D, 4] float32, corners in pixels of the image, not clipped to it.
        scores: [D] float32 in 0..1.
        labels: [D] int64, class indices of the model.
        class_names: D names.
        category_ids: D ids of the data set that the model was trained on.
        image_hw: Height and width of the image in pixels, after its EXIF orientation.

    Raises:
        ValueError: If the fields are not of one length.
    """

    boxes_xyxy_px: Tensor
    scores: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_hw: tuple[int, int]

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        count = len(self.scores)
        fitting = self.boxes_xyxy_px.shape == (count, 4) and self.labels.shape == (count,)
        if not fitting or {len(self.class_names), len(self.category_ids)} != {count}:
            raise ValueError(f"boxes, labels, names and ids must be as many as scores ({count})")

    def __len__(self) -> int:
        """Return D, the number of detections."""
        return len(self.scores)

    def __str__(self) -> str:
        """Return one line, such as ``2 detections: circle 0.93, square 0.41``."""
        found = zip(self.class_names, self.scores.tolist(), strict=True)
        listed = ", ".join(f"{name} {score:.2f}" for name, score in found)
        noun = "detection" if len(self) == 1 else "detections"
        return f"{len(self)} {noun}" + (f": {listed}" if listed else "")

    def draw(self, image: Image.Image) -> Image.Image:
        """Draw boxes, class names and scores on the image that they were found in.

        Args:
            image: RGB, of the size ``image_hw``; see ``image_inputs.to_image``.

        Returns:
            A new picture; small images are enlarged, so that captions do not cover them.
        """
        return draw_detections(
            image, self.boxes_xyxy_px, self.labels.tolist(), self.class_names, self.scores.tolist()
        )

    def to_list(self) -> list[dict[str, Any]]:
        """Return the detections as JSON values; boxes as in COCO's results: x, y, width, height."""
        sizes = self.boxes_xyxy_px[:, 2:] - self.boxes_xyxy_px[:, :2]
        corners, extents = self.boxes_xyxy_px[:, :2].tolist(), sizes.tolist()
        return [
            {
                "category_id": self.category_ids[row],
                "class_name": self.class_names[row],
                "score": score,
                "bbox": corners[row] + extents[row],
            }
            for row, score in enumerate(self.scores.tolist())
        ]


def split_detections(
    detections: Detections,
    images_hw: Sequence[tuple[int, int]],
    label_space: LabelSpace,
    threshold: float,
) -> list[ImageDetections]:
    """Take a batch's detections apart and leave out the weak ones.

    Args:
        detections: Of B images.
        images_hw: B heights and widths of the original images, in pixels.
        label_space: Classes.
        threshold: Minimum score. Detections that suppression has set to 0 never appear.
    """
    result = []
    for row, image_hw in enumerate(images_hw):
        scores = detections.scores[row].float().cpu()
        kept = (scores >= threshold) & (scores > 0)
        labels = detections.labels[row].cpu()[kept]
        names, ids = label_space.names_by_label, label_space.category_id_by_label
        result.append(
            ImageDetections(
                boxes_xyxy_px=detections.boxes_xyxy_px[row].float().cpu()[kept],
                scores=scores[kept],
                labels=labels,
                class_names=tuple(names[label] for label in labels.tolist()),
                category_ids=tuple(ids[label] for label in labels.tolist()),
                image_hw=image_hw,
            )
        )
    return result
