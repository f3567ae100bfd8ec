"""Pictures of candidates: a target beside two models' boxes, and densities of their IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from msdetr.assignment import OneToManyAssigner
from msdetr.drawing.figures import add_legend, color_of, new_figure
from msdetr.inspection.candidates.measures import TOP, MeasuredTrace, find_candidates
from msdetr.inspection.trace import MatchTrace

_COLOR_MAP = "plasma"
_SIDE, _GAP = 2.6, 0.1  # of a picture, in inches
_BINS = 25
_DASHES = {"one_to_one": "-", "one_to_many": "--"}


@dataclass(frozen=True, eq=False)
class CandidateTarget:
    """A target to show.

    Attributes:
        image: Position of its image in the trace.
        target: Its index.
        picture: The image.
    """

    image: int
    target: int
    picture: Image.Image


def choose_targets(trace: MatchTrace, max_targets: int) -> list[tuple[int, int]]:
    """Choose the largest target of some images, evenly spread over those that have targets.

    Args:
        trace: Of any model.
        max_targets: Maximum number of targets.

    Returns:
        Positions of images and targets in the trace.
    """
    present = [i for i, image in enumerate(trace.images) if image.num_targets]
    steps = np.linspace(0, len(present) - 1, min(max_targets, len(present)))
    chosen = [present[round(step)] for step in steps]
    return [(i, int(trace.images[i].areas_px.argmax())) for i in chosen]


def draw_candidates(
    models: Sequence[MeasuredTrace], shown: Sequence[CandidateTarget], rule: OneToManyAssigner
) -> Figure:
    """Draw targets in rows: the target, then every model's top 20 boxes of the last layer.

    Boxes are colored by their IoU with the target, the best on top.

    Args:
        models: One or two.
        shown: Targets.
        rule: Has the weights of the score.
    """
    columns = 1 + len(models)
    heights = [_SIDE * min(1.0, entry.picture.height / entry.picture.width) for entry in shown]
    width, height = columns * (_SIDE + _GAP) + 1.0, sum(heights) + 0.4 * len(shown) + 0.4
    figure = Figure(figsize=(width, height))
    scale = Normalize(0.0, 1.0)
    top = height - 0.3
    for entry, row_height in zip(shown, heights, strict=True):
        bottom = top - 0.4 - row_height + 0.1
        for column in range(columns):
            left = _GAP + column * (_SIDE + _GAP)
            place = (left / width, bottom / height, _SIDE / width, row_height / height)
            axes = figure.add_axes(place)
            if column == 0:
                _show_target(axes, models[0].trace, entry)
            else:
                _show_candidates(axes, models[column - 1].trace, entry, rule, scale)
        top = bottom - 0.1
    for column, model in enumerate(models, start=1):
        middle = _GAP + column * (_SIDE + _GAP) + _SIDE / 2
        figure.text(middle / width, 1 - 0.22 / height, model.label, ha="center", parse_math=False)
    bar = figure.add_axes(((width - 0.8) / width, 0.1, 0.15 / width, 0.8))
    figure.colorbar(ScalarMappable(scale, _COLOR_MAP), cax=bar, label="IoU with the target")
    return figure


def _show_target(axes: Axes, trace: MatchTrace, entry: CandidateTarget) -> None:
    image = trace.images[entry.image]
    _show_picture(axes, entry.picture)
    height, width = image.original_hw
    box = image.boxes_cxcywh[entry.target].tolist()
    axes.add_patch(_rectangle(box, width, height, color="white", line=3.5))
    axes.add_patch(_rectangle(box, width, height, color="black", line=1.5))
    name = trace.info.category_names[int(image.labels[entry.target])]
    axes.set_title(f"{name[:28]}, image {image.image_id}", fontsize=9, parse_math=False)


def _show_candidates(
    axes: Axes, trace: MatchTrace, entry: CandidateTarget, rule: OneToManyAssigner, scale: Normalize
) -> None:
    image = trace.images[entry.image]
    _show_picture(axes, entry.picture)
    found = find_candidates(image, "one_to_one", rule)
    iou = found.iou[-1, entry.target]
    boxes = found.boxes_cxcywh[-1, entry.target]
    colors = colormaps[_COLOR_MAP]
    height, width = image.original_hw
    for index in iou.argsort().tolist():
        value = float(iou[index])
        # Without a light rim, dark colors would vanish on dark images.
        axes.add_patch(_rectangle(boxes[index].tolist(), width, height, color="white", line=1.8))
        axes.add_patch(
            _rectangle(boxes[index].tolist(), width, height, color=colors(scale(value)), line=1.2)
        )
    counts = [int((iou >= level).sum()) for level in (0.5, 0.75)]
    text = f"mean IoU {float(iou.mean()):.2f}; {counts[0]} ≥ .5, {counts[1]} ≥ .75"
    axes.set_title(text, fontsize=9)


def _show_picture(axes: Axes, picture: Image.Image) -> None:
    axes.imshow(np.asarray(picture))
    axes.set_xlim(-0.5, picture.width - 0.5)
    axes.set_ylim(picture.height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])


def _rectangle(
    box: Sequence[float], width: int, height: int, *, color: object, line: float
) -> Rectangle:
    cx, cy, w, h = box
    corner = ((cx - w / 2) * width, (cy - h / 2) * height)
    return Rectangle(corner, w * width, h * height, fill=False, ec=color, lw=line)


def draw_iou_densities(models: Sequence[MeasuredTrace]) -> Figure:
    """Draw the densities of the IoU of all targets' 5 and 20 best queries in the last layer.

    Args:
        models: One or two; a color each, a dashed line for the one-to-many branch.
    """
    figure, panels = new_figure(2, legend_rows=2)
    for axes, depth in zip(panels, (5, TOP), strict=True):
        _draw_densities(axes, models, depth)
    entries = [
        Line2D([], [], color=color_of(number), ls=_DASHES[branch], lw=1.8, label=label)
        for number, model in enumerate(models)
        for branch in model.by_branch
        for label in [f"{model.label}, {branch.replace('_', '-')} branch"]
    ]
    add_legend(figure, entries, num_columns=2)
    return figure


def _draw_densities(axes: Axes, models: Sequence[MeasuredTrace], depth: int) -> None:
    highest = 0.0
    for number, model in enumerate(models):
        for branch, values in model.last_iou.items():
            iou = values[:, :depth].flatten().numpy()
            density, edges = np.histogram(iou, _BINS, (0.0, 1.0), density=True)
            axes.stairs(density, edges, color=color_of(number), lw=1.8, ls=_DASHES[branch])
            highest = max(highest, float(density[1:].max()))
    axes.set_xlim(0, 1)
    # Queries that miss the target altogether would flatten everything else.
    axes.set_ylim(0, 1.15 * highest)
    axes.grid(color="#E4E4E4", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"The {depth} best queries of every target, last layer")
    axes.set_xlabel(f"IoU with the target (bins of {1 / _BINS:g}; the first may be cut off)")
    axes.set_ylabel("density")
