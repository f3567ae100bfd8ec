"""The page of a comparison: one HTML file that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from msdetr.drawing.report_page import jpeg_url, load_template
from msdetr.evaluation.found_targets import MIN_SCORE
from msdetr.study.checkpoints import CheckpointComparison

_TEMPLATE = Path(__file__).with_name("comparison.html.j2")
_PICTURE_SIDE_PX = 900
_JPEG_QUALITY = 85


@dataclass(frozen=True, eq=False)
class ComparedImage:
    """An image with the targets that only one of the two finds.

    Attributes:
        file_name: Name of the image.
        picture: The image with these targets.
        num_won: Targets that only the first finds.
        num_lost: Targets that only the second finds.
    """

    file_name: str
    picture: Image.Image
    num_won: int
    num_lost: int


def render_comparison(
    comparison: CheckpointComparison, images: Sequence[ComparedImage], note: str
) -> str:
    """Return the page as HTML; names are escaped.

    Args:
        comparison: What was found.
        images: Pictures to show.
        note: How the pictures were chosen, or why there are none.
    """
    return load_template(_TEMPLATE).render(
        first=comparison.first.name,
        second=comparison.second.name,
        caveat=comparison.caveat,
        differences=list(_difference_rows(comparison)),
        suppression=list(_nms_rows(comparison)),
        num_targets=comparison.first.targets.num_targets,
        num_won=comparison.num_won,
        num_lost=comparison.num_lost,
        min_score=f"{MIN_SCORE:g}",
        images=[{"about": image, "source": _jpeg_url(image.picture)} for image in images],
        note=note,
    )


def _difference_rows(comparison: CheckpointComparison) -> Iterator[tuple[str, str, str]]:
    for each in comparison.differences:
        low, high = (_points(end) for end in (each.interval.low, each.interval.high))
        yield each.metric, _points(each.difference), f"{low} to {high}"


def _nms_rows(comparison: CheckpointComparison) -> Iterator[tuple[str, ...]]:
    rows = zip(comparison.first.nms_sweep.rows, comparison.second.nms_sweep.rows, strict=True)
    for ours, theirs in rows:
        if ours.ap is not None and theirs.ap is not None:
            name = "none" if ours.threshold is None else f"{ours.threshold:g}"
            values = (f"{100 * ours.ap:.1f}", f"{100 * theirs.ap:.1f}")
            yield name, *values, _points(ours.ap - theirs.ap)


def _points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _jpeg_url(picture: Image.Image) -> str:
    return jpeg_url(picture, max_side_px=_PICTURE_SIDE_PX, quality=_JPEG_QUALITY)
