"""Two checkpoints on the same images."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from msdetr.evaluation import evaluate_boxes
from msdetr.study.checkpoints import METRICS, CheckpointComparison, compare_checkpoints

Draw = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


def shown(comparison: CheckpointComparison) -> str:
    console = Console(width=120, record=True)
    console.print(comparison)
    return " ".join(console.export_text().split())


def test_checkpoint_against_itself(random_scene: Draw) -> None:
    truth, results = random_scene(0)
    found = compare_checkpoints(truth, {"a": results, "b": results}, num_resamples=100)
    assert [each.metric for each in found.differences] == list(METRICS)
    for each in found.differences:
        assert each.difference == each.interval.low == each.interval.high == 0
    assert (found.num_won, found.num_lost) == (0, 0)


def test_lost_detections_are_lost_targets(random_scene: Draw) -> None:
    truth, results = random_scene(1)
    fewer = [result for result in results if result["image_id"] > 4]
    found = compare_checkpoints(truth, {"all": results, "fewer": fewer}, num_resamples=100)
    both = [evaluate_boxes(truth, each).ap for each in (results, fewer)]
    assert both[0] is not None
    assert both[1] is not None
    assert found.differences[0].difference == both[0] - both[1] > 0
    assert found.num_won > 0
    assert found.num_lost == 0
    backwards = compare_checkpoints(truth, {"fewer": fewer, "all": results}, num_resamples=100)
    assert (backwards.num_won, backwards.num_lost) == (0, found.num_won)


def test_text_says_what_it_cannot_tell(random_scene: Draw) -> None:
    truth, results = random_scene(2)
    found = compare_checkpoints(truth, {"ours": results, "theirs": results[::2]}, num_resamples=100)
    text = shown(found)
    for part in ("ours minus theirs", "AP after class-wise NMS", "found by the first only"):
        assert part in text
    assert "They cannot tell whether one method is better than another" in text
    assert "significant" not in text


def test_json(random_scene: Draw) -> None:
    truth, results = random_scene(3)
    found = compare_checkpoints(truth, {"a": results, "b": results[1:]}, num_resamples=100)
    content = json.loads(json.dumps(found.to_dict()))
    assert content["names"] == ["a", "b"]
    assert len(content["nms_sweep"][0]) == 6
    assert content["targets"]["all"] == found.first.targets.num_targets
    assert "cannot tell" in content["caveat"]


def test_undefined_metrics_are_left_out(random_scene: Draw) -> None:
    truth, results = random_scene(4)
    empty = {**truth, "annotations": []}
    found = compare_checkpoints(empty, {"a": results, "b": results}, num_resamples=100)
    assert found.differences == ()
    assert "Of 0 targets" in shown(found)


def test_without_hotcoco_there_are_no_errors(
    random_scene: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, results = random_scene(5)
    monkeypatch.setattr("msdetr.study.checkpoints.fastest_library", lambda: "pycocotools")
    found = compare_checkpoints(truth, {"a": results, "b": results}, num_resamples=100)
    assert found.first.errors is None
    assert "TIDE" not in shown(found)
