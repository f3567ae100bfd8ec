"""COCO metrics: against pycocotools' own summary, and ground truth as its own prediction."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from msdetr.errors import DataError
from msdetr.evaluation import SUMMARY_KEYS, evaluate_boxes

# pycocotools adds an epsilon to the denominator of the precision.
ONE = pytest.approx(1.0, abs=1e-9)


def as_results(ground_truth: Mapping[str, Any], *, crowd: bool) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [
        {**{key: entry[key] for key in keys}, "score": 1.0}
        for entry in ground_truth["annotations"]
        if (crowd or not entry["iscrowd"]) and min(entry["bbox"][2:]) > 0
    ]


def noisy(results: list[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    shifted = []
    for result in results:
        x, y, w, h = result["bbox"]
        box = [x + generator.gauss(0, 0.1) * w, y, w * generator.uniform(0.8, 1.2), h]
        shifted.append({**result, "bbox": box, "score": generator.random()})
    return shifted


def annotation(number: int, box: list[float], *, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 5,
        "category_id": 1,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": crowd,
    }


def scene(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "width": 200, "height": 200, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "disc"}, {"id": 4, "name": "star"}],
        "annotations": list(annotations),
    }


def random_states() -> list[str]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is meant
    return [str(torch.get_rng_state().tolist()), str(random.getstate()), str(numpy_state)]


@pytest.fixture(scope="module", params=["coco-tiny", "bccd"])
def real_truth(request: pytest.FixtureRequest, data_dir: Path) -> dict[str, Any]:
    file = data_dir / request.param / "annotations" / "instances_val2017.json"
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.mark.dataset
def test_real_ground_truth_scores_one(real_truth: dict[str, Any]) -> None:
    metrics = evaluate_boxes(real_truth, as_results(real_truth, crowd=False))
    assert [metrics.ap, metrics.ap50, metrics.ap75] == pytest.approx([1.0] * 3, abs=1e-9)
    assert metrics.ar_100 == 1.0
    assert all(value == ONE for value in metrics.ap_by_iou.values())
    assert all(entry.ap == ONE for entry in metrics.per_class if entry.num_ground_truth)


@pytest.mark.dataset
def test_numbers_are_those_of_pycocotools(real_truth: dict[str, Any]) -> None:
    results = noisy(as_results(real_truth, crowd=True))
    metrics = evaluate_boxes(real_truth, results)
    with_area = [entry for entry in real_truth["annotations"] if min(entry["bbox"][2:]) > 0]
    assert metrics.num_without_area == len(real_truth["annotations"]) - len(with_area)
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**real_truth, "annotations": with_area}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes([dict(r) for r in results]), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    expected = [None if value == -1 else value for value in evaluator.stats]
    assert list(metrics.summary()) == list(SUMMARY_KEYS)
    assert list(metrics.summary().values()) == pytest.approx(expected)
    assert 0.05 < evaluator.stats[0] < 0.95


def test_crowd_is_neither_required_nor_punished() -> None:
    truth = scene(annotation(1, [10, 10, 20, 20]), annotation(2, [60, 60, 120, 120], crowd=1))
    for crowd in (True, False):
        metrics = evaluate_boxes(truth, as_results(truth, crowd=crowd))
        assert metrics.ap == ONE
        assert metrics.num_ground_truth == 1
    inside_crowd = {"image_id": 5, "category_id": 1, "bbox": [70, 70, 9, 9], "score": 1.0}
    assert evaluate_boxes(truth, [inside_crowd, *as_results(truth, crowd=False)]).ap == ONE


def test_an_annotation_with_id_zero_is_matched() -> None:
    truth = scene(annotation(0, [10, 10, 20, 20]))
    assert evaluate_boxes(truth, as_results(truth, crowd=True)).ap == ONE


def test_boxes_without_area_are_left_out() -> None:
    truth = scene(annotation(1, [10, 10, 20, 20]), annotation(2, [50, 50, 0, 20]))
    metrics = evaluate_boxes(truth, as_results(truth, crowd=True))
    assert metrics.ar_100 == 1.0
    assert (metrics.num_ground_truth, metrics.num_without_area) == (1, 1)


def test_undefined_numbers_are_none() -> None:
    metrics = evaluate_boxes(scene(annotation(1, [10, 10, 20, 20])), [])
    assert metrics.ap == 0.0
    assert metrics.ap_small == 0.0
    assert metrics.ap_large is None
    disc, star = metrics.per_class
    assert (disc.ap, disc.num_ground_truth) == (0.0, 1)
    assert (star.ap, star.num_ground_truth) == (None, 0)
    assert evaluate_boxes(scene(), []).ap is None


def test_known_average_precision() -> None:
    # Two targets, one found at rank 2: precision 1/2 up to recall 1/2, that is 51 of 101 points.
    truth = scene(annotation(1, [10, 10, 20, 20]), annotation(2, [100, 100, 20, 20]))
    results = [
        {"image_id": 5, "category_id": 1, "bbox": [50, 10, 20, 20], "score": 0.9},
        {"image_id": 5, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.8},
    ]
    metrics = evaluate_boxes(truth, results)
    assert metrics.ap == pytest.approx(0.5 * 51 / 101)
    assert (metrics.ar_1, metrics.ar_10) == (0.0, 0.5)


def test_image_subset_ignores_other_images() -> None:
    truth = scene(annotation(1, [10, 10, 20, 20]))
    truth["images"].append({"id": 6, "width": 50, "height": 50, "file_name": "b.png"})
    false_alarm = {"image_id": 6, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1.0}
    results = [{**as_results(truth, crowd=True)[0], "score": 0.5}, false_alarm]
    assert evaluate_boxes(truth, results, image_ids=[5]).ap == ONE
    assert evaluate_boxes(truth, results, image_ids=[5]).num_images == 1
    assert evaluate_boxes(truth, results).ap == 0.5


def test_unknown_images_are_refused_and_unknown_categories_ignored() -> None:
    truth = scene(annotation(1, [10, 10, 20, 20]))
    result = as_results(truth, crowd=True)[0]
    with pytest.raises(DataError, match="77"):
        evaluate_boxes(truth, [{**result, "image_id": 77}])
    with pytest.raises(DataError, match="78"):
        evaluate_boxes(truth, [result], image_ids=[78])
    assert evaluate_boxes(truth, [{**result, "category_id": 12}, result]).ap == ONE


def test_prints_nothing_and_draws_no_random_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    truth = scene(annotation(1, [10, 10, 20, 20]))
    before = random_states()
    evaluate_boxes(truth, as_results(truth, crowd=True))
    assert random_states() == before
    assert capsys.readouterr() == ("", "")


def test_prints_itself_and_turns_into_json() -> None:
    truth = scene(annotation(1, [10, 10, 20, 20]))
    metrics = evaluate_boxes(truth, as_results(truth, crowd=True))
    stream = io.StringIO()
    Console(file=stream, width=120).print(metrics)
    text = stream.getvalue()
    assert all(word in text for word in ("ap_small", "100.0", "0.75", "disc", "star"))
    loaded = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert [loaded[key] for key in SUMMARY_KEYS] == list(metrics.summary().values())
    assert loaded["per_class"][0]["name"] == "disc"
