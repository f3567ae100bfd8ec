"""The report of a training run: one HTML file that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from msdetr.drawing.report_page import file_url, jpeg_url, load_template

_TEMPLATE = Path(__file__).with_name("run_report.html.j2")
# Pictures of small images are enlarged for their captions; beyond this width no page shows more.
_PICTURE_SIDE_PX = 720
_JPEG_QUALITY = 82


@dataclass(frozen=True, eq=False)
class SamplePictures:
    """Ground truth and detections of one image, drawn.

    Attributes:
        file_name: Name of the image.
        ground_truth: The image with its objects.
        num_targets: How many.
        detections: The image with what was detected.
        num_detections: How many.
    """

    file_name: str
    ground_truth: Image.Image
    num_targets: int
    detections: Image.Image
    num_detections: int


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Content of a report.

    Attributes:
        name: Of the run.
        description: Of the recipe; may be empty.
        facts: What to know first, as name and value.
        curves: SVG files by title.
        evaluation: Content of ``evaluation/metrics.json``; None without an evaluation.
        evaluation_note: What was evaluated.
        samples: Pictures.
        samples_note: How they were chosen.
        recipe: YAML text of the resolved recipe.
        environment: Text; may be empty.
        evaluation_warning: What the evaluation calls attention to; may be empty.
    """

    name: str
    description: str
    facts: Sequence[tuple[str, str]]
    curves: Mapping[str, Path]
    evaluation: Mapping[str, Any] | None
    evaluation_note: str
    samples: Sequence[SamplePictures]
    samples_note: str
    recipe: str
    environment: str
    evaluation_warning: str = ""


_SUMMARY = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}


def render_run_report(report: RunReport) -> str:
    """Return the report as HTML; text of the data set and the recipe is escaped."""
    metrics = report.evaluation or {}
    return load_template(_TEMPLATE).render(
        name=report.name,
        description=report.description,
        facts=report.facts,
        curves=[
            {"title": title, "source": file_url(file)} for title, file in report.curves.items()
        ],
        summary={title: metrics.get(key) for key, title in _SUMMARY.items()} if metrics else {},
        evaluation_note=report.evaluation_note,
        evaluation_warning=report.evaluation_warning,
        classes=metrics.get("per_class", ()),
        samples=[_encode(sample) for sample in report.samples],
        samples_note=report.samples_note,
        recipe=report.recipe,
        environment=report.environment,
    )


def _encode(sample: SamplePictures) -> dict[str, str | int]:
    return {
        "file_name": sample.file_name,
        "ground_truth": _jpeg_url(sample.ground_truth),
        "num_targets": sample.num_targets,
        "detections": _jpeg_url(sample.detections),
        "num_detections": sample.num_detections,
    }


def _jpeg_url(picture: Image.Image) -> str:
    return jpeg_url(picture, max_side_px=_PICTURE_SIDE_PX, quality=_JPEG_QUALITY)
