"""Detections and ground truth of one image, drawn with class names and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from msdetr.drawing.boxes import DrawnBox, draw_boxes
from msdetr.drawing.palette import class_style


def draw_detections(
    image: Image.Image,
    boxes_xyxy_px: ArrayLike,
    labels: Sequence[int],
    class_names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> Image.Image:
    """Draw the boxes of one image.

    Args:
        image: RGB image that the boxes refer to.
        boxes_xyxy_px: [D, 4] corners in pixels of the image; may reach beyond it.
        labels: [D] class indices, which choose the colors.
        class_names: [D] names.
        scores: [D] in 0..1; None for ground truth, where smaller boxes lie on top.

    Returns:
        The picture; see ``draw_boxes``.
    """
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
    if scores is None:
        order = np.argsort((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
    else:
        order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    drawn = []
    for row in order.tolist():
        x0, y0, x1, y1 = boxes[row].tolist()
        score = "" if scores is None else f" {scores[row]:.2f}"
        style = class_style(int(labels[row]))
        drawn.append(DrawnBox((x0, y0, x1, y1), f"{class_names[row]}{score}", style))
    return draw_boxes(image, drawn)
