"""What a training run says of duplicates in its last evaluation, and when it says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msdetr.api.datasets import EvaluationData
from msdetr.api.training import duplicates
from msdetr.api.training.duplicates import describe_duplicates, tell_duplicates
from msdetr.engine.run_directory import RunDirectory
from msdetr.evaluation.nms_sweep import THRESHOLDS, NmsResult, NmsSweep
from msdetr.recipe import load_recipe

NUM_IMAGES = 20


@pytest.fixture
def images() -> EvaluationData:
    """Twenty images with one target each."""
    truth = {
        "images": [{"id": image} for image in range(NUM_IMAGES)],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"image_id": image, "category_id": 1, "bbox": [0, 0, 100, 100]}
            for image in range(NUM_IMAGES)
        ],
    }
    ids = list(range(NUM_IMAGES))
    return cast(EvaluationData, SimpleNamespace(ground_truth=truth, image_ids=ids))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that found every target twice."""
    directory = RunDirectory(tmp_path)
    directory.evaluation.mkdir()
    write(directory, num_copies=2)
    return directory


def write(directory: RunDirectory, num_copies: int) -> None:
    results: list[dict[str, Any]] = [
        {
            "image_id": image,
            "category_id": 1,
            "bbox": [5 * copy, 0, 100, 100],
            "score": (image + 5 - 4 * copy) / (NUM_IMAGES + 5),
        }
        for image in range(NUM_IMAGES)
        for copy in range(num_copies)
    ]
    (directory.evaluation / "predictions.json").write_text(json.dumps(results))


def test_costly_duplicates_are_said_and_logged(
    run: RunDirectory, images: EvaluationData, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tell_duplicates(run, load_recipe("shapes_tiny"), images)
    assert said is not None
    assert "but 100.0 after class-wise NMS at 0.5." in said
    assert "evaluation.nms_threshold=0.5" in said
    assert capsys.readouterr().err == said + "\n"
    assert run.log_file.read_text().endswith(f" INFO {said}\n")


def test_nothing_is_said_without_duplicates(
    run: RunDirectory, images: EvaluationData, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run, num_copies=1)
    assert tell_duplicates(run, load_recipe("shapes_tiny"), images) is None
    assert capsys.readouterr().err == ""
    assert not run.log_file.exists()


def test_nothing_is_said_where_the_recipe_suppresses(
    run: RunDirectory, images: EvaluationData
) -> None:
    recipe = load_recipe("shapes_tiny", ["evaluation.nms_threshold=0.9"])
    assert tell_duplicates(run, recipe, images) is None


def test_run_without_evaluation_has_no_duplicates(tmp_path: Path, images: EvaluationData) -> None:
    assert tell_duplicates(RunDirectory(tmp_path), load_recipe("shapes_tiny"), images) is None


def test_too_many_detections_for_the_slow_library(
    run: RunDirectory, images: EvaluationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("shapes_tiny")
    monkeypatch.setattr(duplicates, "MAX_SLOW_DETECTIONS", 39)
    monkeypatch.setattr(duplicates, "fastest_library", lambda: "hotcoco")
    assert (tell_duplicates(run, recipe, images) or "").startswith("duplicates: ")
    monkeypatch.setattr(duplicates, "fastest_library", lambda: "pycocotools")
    said = tell_duplicates(run, recipe, images)
    assert said is not None
    assert said.startswith("not looked for duplicates: 40 detections take pycocotools minutes")
    monkeypatch.setattr(duplicates, "MAX_SLOW_DETECTIONS", 40)
    assert (tell_duplicates(run, recipe, images) or "").startswith("duplicates: ")


def test_damaged_detections_do_not_end_the_training(
    run: RunDirectory, images: EvaluationData
) -> None:
    (run.evaluation / "predictions.json").write_text("{")
    said = tell_duplicates(run, load_recipe("shapes_tiny"), images)
    assert said is not None
    assert said.startswith("not looked for duplicates: ")
    assert "is not JSON" in said


@pytest.mark.parametrize(
    ("plain", "best", "is_said"), [(0.3, 0.3099, False), (0.3, 0.3101, True), (None, None, False)]
)
def test_a_point_of_ap_is_worth_saying(
    plain: float | None, best: float | None, *, is_said: bool
) -> None:
    rows = [NmsResult(each, best if each == 0.7 else plain, None, 9) for each in THRESHOLDS]
    said = describe_duplicates(NmsSweep(tuple(rows)), load_recipe("shapes_tiny"))
    assert (said is not None) == is_said
    if said is not None:
        assert "AP 30.0, but 31.0 after class-wise NMS at 0.7." in said


def test_what_helps_depends_on_the_supervision() -> None:
    rows = [NmsResult(each, 0.3 if each is None else 0.5, None, 9) for each in THRESHOLDS]
    for recipe, is_named in (("shapes_tiny", True), ("shapes_tiny_baseline", False)):
        said = describe_duplicates(NmsSweep(tuple(rows)), load_recipe(recipe))
        assert said is not None
        assert ("fewer positives per target" in said) == is_named
