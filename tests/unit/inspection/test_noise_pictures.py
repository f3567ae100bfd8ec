"""Pictures of noise: which images have one, and under which name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from msdetr.inspection.noise_pictures import save_noise_picture
from msdetr.inspection.query_groups import TracedGroups, TracedNoise


def test_image_with_noise_has_a_picture(scene: Any, tmp_path: Path) -> None:
    trace = scene().trace
    image = next(image for image in trace.images if image.num_targets)
    slots = 20
    noise = TracedNoise(
        boxes_cxcywh=((0.5, 0.5, 0.2, 0.2),) * slots,
        target=(0,) * slots,
        positive=(True, False) * (slots // 2),
        flipped=(False,) * slots,
        iou=(0.5,) * slots,
    )
    noised = replace(image, groups=TracedGroups((), noise))
    path = save_noise_picture(noised, trace.info, tmp_path / "pictures")
    assert path == tmp_path / "pictures" / f"{image.image_id:012d}_denoising.png"
    with Image.open(path) as picture:
        # One panel for positive slots, one for negative ones.
        assert picture.width > 2 * image.original_hw[1]


def test_image_without_noise_has_none(scene: Any, tmp_path: Path) -> None:
    trace = scene().trace
    assert save_noise_picture(trace.images[0], trace.info, tmp_path / "pictures") is None
    assert not (tmp_path / "pictures").exists()
