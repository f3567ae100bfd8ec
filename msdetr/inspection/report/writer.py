"""Writing the page: an index in JSON, blocks of numbers, photos, the script and the styles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, Template

from msdetr.assignment import OneToManyAssigner
from msdetr.drawing.report_page import shared_look
from msdetr.errors import TraceError
from msdetr.files import replacing_file
from msdetr.inspection.group_summary import summarize_groups, summarize_noise
from msdetr.inspection.report.payload import StoredImage, pairs_kept, store
from msdetr.inspection.report.pictures import encode_pictures
from msdetr.inspection.report.stored import scheme_entry, stored_layers
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.suppression_summary import summarize_suppressions
from msdetr.inspection.trace import MatchTrace, TracedImage

MEGABYTE = 1_000_000
# In the order in which the browser reads them; they share one scope.
SCRIPTS = (
    "dom.js",
    "assign.js",
    "stored.js",
    "store.js",
    "records.js",
    "stage.js",
    "panel.js",
    "browse.js",
    "charts.js",
    "summary.js",
    "main.js",
)


@dataclass(frozen=True)
class ReportSize:
    """What the page holds.

    Attributes:
        num_bytes: Size of the file.
        num_images: Images in it.
        num_left_out: Images of the trace that found no room.
        num_without_photo: Images whose file could not be read.
    """

    num_bytes: int
    num_images: int
    num_left_out: int
    num_without_photo: int


def write_report(
    trace: MatchTrace,
    path: Path,
    *,
    max_megabytes: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> ReportSize:
    """Write a trace as one HTML file that needs neither network nor server.

    Photos are made smaller until the page fits; if the numbers alone do not fit, the last
    images are left out. The page says so.

    Args:
        trace: What to show.
        path: The file; an older one is replaced.
        max_megabytes: Largest size of the file, in 10^6 bytes.
        progress: Called with the finished and all steps.

    Returns:
        What the page holds.

    Raises:
        TraceError: The trace has no image, or the file cannot be written.
    """
    if not trace.images:
        raise TraceError(trace.info.source, "the trace has no image, so there is nothing to show")
    steps = _Steps(2 * len(trace.images), progress)
    stored, blocks = _encode_blocks(trace, steps)
    room = int(max_megabytes * MEGABYTE) - _fixed_size(trace)
    fitting = _count_fitting([len(block) for block in blocks], room)
    images = trace.images[:fitting]
    photos, scale = encode_pictures(images, room - sum(map(len, blocks[:fitting])), steps.tick)
    missing = sum(photo is None for photo in photos)
    notes = {
        "photo_side_px": scale.side_px,
        "left_out": len(trace.images) - fitting,
        "without_photo": missing,
        "pairs": _pairs(trace, images, stored),
        "num_images": len(trace.images),
    }
    context = {"report": _index(trace, images), "notes": notes, **_groups(trace)}
    if trace.info.has_suppressor:
        found = ((image.image_id, image.suppressions) for image in trace.images)
        context["suppression"] = summarize_suppressions(found)
    _write(path, {**context, "blocks": blocks[:fitting], "photos": photos})
    return ReportSize(path.stat().st_size, fitting, len(trace.images) - fitting, missing)


class _Steps:
    """Counts finished steps for a progress callback."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._report = 0, total, report

    def tick(self) -> None:
        self._done += 1
        if self._report:
            self._report(self._done, self._total)


def _encode_blocks(trace: MatchTrace, steps: _Steps) -> tuple[list[StoredImage], list[str]]:
    stored, blocks = [], []
    for image in trace.images:
        stored.append(store(image))
        blocks.append(stored[-1].encode())
        steps.tick()
    return stored, blocks


def _fixed_size(trace: MatchTrace) -> int:
    """Return the size of the page in bytes without blocks and photos."""
    context = {"report": _index(trace, trace.images), "notes": {"pairs": (0, 0)}}
    frame = _template().render(**context, blocks=[], photos=[], scripts=_scripts(), style=_style())
    # Each block and photo stands in an element of its own.
    return len(frame.encode()) + 150 * len(trace.images)


def _count_fitting(sizes: list[int], room: int) -> int:
    count, used = 0, 0
    for size in sizes:
        used += size
        if used > room and count:
            break
        count += 1
    return count


def _pairs(
    trace: MatchTrace, images: tuple[TracedImage, ...], stored: list[StoredImage]
) -> tuple[int, int] | None:
    """Count pairs that the browser finds again, and all; None where it only shows stored ones."""
    rule = trace.info.one_to_many
    if isinstance(rule, StoredScheme):
        return None
    counts = [pairs_kept(image, words, rule) for image, words in zip(images, stored, strict=False)]
    return sum(kept for kept, _ in counts), sum(total for _, total in counts)


def _index(trace: MatchTrace, images: tuple[TracedImage, ...]) -> dict[str, Any]:
    info, rule = trace.info, trace.info.one_to_many
    return {
        "source": info.source,
        "weights": info.weights,
        "annotations": info.annotations_file,
        "hasOneToMany": info.has_one_to_many,
        "hasSuppressor": info.has_suppressor,
        "sharesClassHead": info.shares_class_head,
        "numLayers": info.num_layers,
        "numQueries": info.num_queries,
        **_scheme(rule, images),
        "images": [_image_entry(trace, image) for image in images],
    }


def _scheme(
    rule: OneToManyAssigner | StoredScheme, images: tuple[TracedImage, ...]
) -> dict[str, Any]:
    """Return settings that the browser can change, or what it shows of stored assignments."""
    if isinstance(rule, StoredScheme):
        return {"settings": None, "scheme": scheme_entry(rule, images)}
    settings = {
        "k": rule.k,
        "threshold": rule.threshold,
        "iouWeight": rule.iou_weight,
        "classWeight": rule.class_weight,
        "maxPositiveFraction": rule.max_positive_fraction,
    }
    return {"settings": settings, "scheme": None}


def _image_entry(trace: MatchTrace, image: TracedImage) -> dict[str, Any]:
    height, width = image.original_hw
    columns = (
        image.boxes_cxcywh.tolist(),
        image.labels.tolist(),
        image.annotation_ids.tolist(),
        image.size_bins,
    )
    targets = [
        {
            "box": box,
            "label": label,
            "name": trace.info.category_names[label],
            "annotationId": annotation_id,
            "size": size,
        }
        for box, label, annotation_id, size in zip(*columns, strict=True)
    ]
    picks = image.one_to_one_queries.clamp(min=0)
    costs = image.hungarian_cost.gather(2, picks[..., None])[..., 0]
    return {
        "id": image.image_id,
        "file": image.file_name,
        "width": width,
        "height": height,
        "targets": targets,
        "pickCosts": [[round(cost, 4) for cost in layer] for layer in costs.tolist()],
        "stored": stored_layers(image) if image.explanation else None,
    }


def _groups(trace: MatchTrace) -> dict[str, Any]:
    """Return statistics of query groups, which the page shows as they are."""
    groups = [image.groups for image in trace.images]
    return {"groups": summarize_groups(groups), "noise": summarize_noise(groups)}


def _template() -> Template:
    loader = PackageLoader("msdetr.inspection.report", "page")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["share"] = lambda value: "-" if value is None else f"{100 * value:.1f}%"
    return environment.get_template("matching.html.j2")


def _source(name: str) -> str:
    return (Path(__file__).parent / "page" / name).read_text(encoding="utf-8")


def _scripts() -> str:
    return "\n".join(_source(name) for name in SCRIPTS)


def _style() -> str:
    return shared_look() + _source("style.css")


def _write(path: Path, context: dict[str, Any]) -> None:
    stream = _template().stream(**context, scripts=_scripts(), style=_style())
    try:
        with replacing_file(path) as aside:
            stream.dump(str(aside), encoding="utf-8")
    except OSError as error:
        raise TraceError(str(path), f"the report cannot be written: {error}") from error
