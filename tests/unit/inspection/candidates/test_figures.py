"""Pictures of candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from msdetr.inspection.candidates.figures import (
    CandidateTarget,
    choose_targets,
    draw_candidates,
    draw_iou_densities,
)
from msdetr.inspection.candidates.measures import MeasuredTrace


def test_largest_targets_of_images_that_have_some_are_chosen(scene: Callable[..., Any]) -> None:
    assert choose_targets(scene().trace, 6) == [(0, 2), (2, 5)]
    assert choose_targets(scene().trace, 1) == [(0, 2)]


def test_pictures_show_target_and_boxes_of_each_model(scene: Callable[..., Any]) -> None:
    trace = scene().trace
    rule = trace.info.one_to_many
    models = [MeasuredTrace.of(name, trace, rule) for name in "AB"]
    shown = [CandidateTarget(i, t, Image.new("RGB", (80, 60))) for i, t in choose_targets(trace, 2)]
    figure = draw_candidates(models, shown, rule)
    cells = [axes for axes in figure.axes if axes.images]
    # Target: a rim and a line; models: a rim and a line for each of 20 boxes.
    assert [len(axes.patches) for axes in cells] == [2, 40, 40, 2, 40, 40]
    assert cells[0].get_title() == f"class, {int(trace.images[0].labels[2])}, image 10"
    densities = draw_iou_densities(models)
    assert [len(axes.patches) for axes in densities.axes] == [4, 4]
