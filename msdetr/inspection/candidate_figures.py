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
from msdetr.inspection.candidates import MeasuredTrace, find_candidates
from msdetr.inspection.trace import MatchTrace

_COLOR_MAP = "plasma"
_SIDE = 2.6  # of a cell, in inches
_BINS = 25
_DASHES = ("-", "--")


@dataclass(frozen=True, eq=False)
class ShownTarget:
    """A target to show.

    Attributes:
        image: Position of its image in the trace.
        target: Its index.
        picture: The image.
    """

    image: int
    target: int
    picture: Image.Image


def choose_targets(trace: MatchTrace, most: int) -> list[tuple[int, int]]:
    """The largest target of each of some images, evenly spread over those that have targets.

    Args:
        trace: Of any model.
        most: Targets at most.

    Returns:
        Positions of images and targets in the trace.
    """
    present = [i for i, image in enumerate(trace.images) if image.num_targets]
    steps = np.linspace(0, len(present) - 1, min(most, len(present)))
    chosen = [present[round(step)] for step in steps]
    return [(i, int(trace.images[i].areas_px.argmax())) for i in chosen]


def draw_candidates(
    models: Sequence[MeasuredTrace], shown: Sequence[ShownTarget], rule: OneToManyAssigner
) -> Figure:
    """Draw targets in rows: the target, then every model's top 20 boxes of the last layer.

    Boxes are colored by their IoU with the target, the best on top.

    Args:
        models: One or two.
        shown: Targets.
        rule: Has the weights of the score.
    """
    rows, columns = len(shown), 1 + len(models)
    width, height = columns * (_SIDE + 0.1) + 1.0, rows * (_SIDE + 0.35) + 0.7
    figure = Figure(figsize=(width, height))
    scale = Normalize(0.0, 1.0)
    for row, entry in enumerate(shown):
        for column in range(columns):
            left = 0.1 + column * (_SIDE + 0.1)
            bottom = height - 0.6 - _SIDE - row * (_SIDE + 0.35)
            place = (left / width, bottom / height, _SIDE / width, _SIDE / height)
            axes = figure.add_axes(place)
            if column == 0:
                _show_target(axes, models[0].trace, entry)
            else:
                _show_candidates(axes, models[column - 1].trace, entry, rule, scale)
            if row == 0 and column:
                middle = (left + _SIDE / 2) / width
                figure.text(middle, 1 - 0.2 / height, models[column - 1].name, ha="center")
    bar = figure.add_axes(((width - 0.8) / width, 0.1, 0.15 / width, 0.8))
    figure.colorbar(ScalarMappable(scale, _COLOR_MAP), cax=bar, label="IoU with the target")
    return figure


def _show_target(axes: Axes, trace: MatchTrace, entry: ShownTarget) -> None:
    image = trace.images[entry.image]
    _show_picture(axes, entry.picture)
    height, width = image.original_hw
    box = image.boxes_cxcywh[entry.target].tolist()
    axes.add_patch(_rectangle(box, width, height, color="white", line=3.5))
    axes.add_patch(_rectangle(box, width, height, color="black", line=1.5))
    name = trace.info.category_names[int(image.labels[entry.target])]
    axes.set_title(f"{name[:28]}, image {image.image_id}", fontsize=9, parse_math=False)


def _show_candidates(
    axes: Axes, trace: MatchTrace, entry: ShownTarget, rule: OneToManyAssigner, scale: Normalize
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
    """Draw the densities of the IoU of all targets' top 20 queries in the last layer.

    Args:
        models: One or two; a color each, a dashed line for the one-to-many branch.
    """
    figure, (axes,) = new_figure(1, panel_size=(6.0, 3.2), legend_rows=2)
    entries = []
    for number, model in enumerate(models):
        for branch, values in model.last_iou.items():
            style = _DASHES[branch == "one_to_many"]
            density, edges = np.histogram(values.numpy(), _BINS, (0.0, 1.0), density=True)
            axes.stairs(density, edges, color=color_of(number), lw=1.8, ls=style)
            label = f"{model.name}, {branch.replace('_', '-')} branch"
            entries.append(Line2D([], [], color=color_of(number), ls=style, lw=1.8, label=label))
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.grid(color="#E4E4E4", lw=0.6)
    axes.set_title("IoU of the 20 best queries of every target, last decoder layer")
    axes.set_xlabel("IoU with the target")
    axes.set_ylabel("density")
    add_legend(figure, entries, num_columns=2)
    return figure
