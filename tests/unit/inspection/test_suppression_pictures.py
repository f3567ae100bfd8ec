"""The picture of a suppressor's work on an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from msdetr.inspection.suppression import Suppression
from msdetr.inspection.suppression_pictures import save_suppression_picture


def test_picture_is_written_where_there_is_something_to_show(scene: Any, tmp_path: Path) -> None:
    trace = scene().trace
    image = next(each for each in trace.images if each.num_targets)
    assert save_suppression_picture(image, trace.info, tmp_path) is None
    found = Suppression(
        target=0,
        query=1,
        is_pick=True,
        iou=0.9,
        before=0.8,
        after=0.1,
        learned=0.5,
        own=0.0,
        by=0,
        weight=0.5,
        by_iou=0.5,
        by_target=-1,
    )
    path = save_suppression_picture(replace(image, suppressions=(found,)), trace.info, tmp_path)
    assert path is not None
    assert path.name == f"{image.image_id:012d}_suppression.png"
    with Image.open(path) as picture:
        # One panel before the suppressor, one after it.
        assert picture.width > 2 * image.original_hw[1]
