"""Made detections whose only errors are of one kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from msdetr.errors import UsageError
from msdetr.evaluation import evaluate_boxes
from msdetr.evaluation.tide_errors import ERROR_KINDS, TideErrors, measure_errors

pytest.importorskip("hotcoco")

NUM_IMAGES = 20
Result = dict[str, Any]


def truth() -> dict[str, Any]:
    return {
        "images": [{"id": image} for image in range(NUM_IMAGES)],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "star"}],
        "annotations": [
            {"image_id": image, "category_id": 1 + image % 2, "bbox": [10, 10, 40, 40]}
            for image in range(NUM_IMAGES)
        ],
    }


def right(image: int) -> Result:
    box = [10, 10, 40, 40]
    return {"image_id": image, "category_id": 1 + image % 2, "bbox": box, "score": 0.5 + image / 50}


def other_class(result: Result) -> Result:
    return {**result, "category_id": 3 - result["category_id"]}


def moved(result: Result, pixels: float) -> Result:
    return {**result, "bbox": [10 + pixels, 10, 40, 40], "score": result["score"] + 0.001}


def all_duplicates(image: int) -> list[Result]:
    return [right(image), {**moved(right(image), 2), "score": right(image)["score"] - 0.001}]


def all_misclassified(image: int) -> list[Result]:
    return [other_class(right(image))]


def all_shifted(image: int) -> list[Result]:
    return [moved(right(image), 25)]


def all_in_the_background(image: int) -> list[Result]:
    return [right(image), moved(right(image), 200)]


def half_missed(image: int) -> list[Result]:
    return [right(image)] if image % 4 < 2 else []


def measure(detect: Callable[[int], list[Result]]) -> TideErrors:
    results = [result for image in range(NUM_IMAGES) for result in detect(image)]
    found = measure_errors(truth(), results)
    assert found.ap50 == pytest.approx(evaluate_boxes(truth(), results).ap50, abs=1e-12)
    return found


@pytest.mark.parametrize(
    ("detect", "kind", "count"),
    [
        (all_duplicates, "duplicate", NUM_IMAGES),
        (all_misclassified, "classification", NUM_IMAGES),
        (all_shifted, "localisation", NUM_IMAGES),
        (all_in_the_background, "background", NUM_IMAGES),
        (half_missed, "missed", NUM_IMAGES // 2),
    ],
)
def test_one_kind_of_error_moves_one_bin(
    detect: Callable[[int], list[Result]], kind: str, count: int
) -> None:
    found = measure(detect)
    costly = [name for name, cost in found.kinds.items() if cost.ap50 > 1e-9]
    assert costly == [kind]
    assert {name: cost.count for name, cost in found.kinds.items() if cost.count} == {kind: count}
    assert found.ap50 is not None
    assert found.ap50 + found.kinds[kind].ap50 == pytest.approx(1)


def test_wrong_in_both_ways_counts_as_missed_too() -> None:
    found = measure(lambda image: [other_class(moved(right(image), 25))])
    counts = {name: cost.count for name, cost in found.kinds.items() if cost.count}
    assert counts == {"both": NUM_IMAGES, "missed": NUM_IMAGES}


def test_nothing_wrong_costs_nothing() -> None:
    found = measure(lambda image: [right(image)])
    assert all((cost.ap50, cost.count) == (0, 0) for cost in found.kinds.values())


def test_only_chosen_images_count() -> None:
    results = [other_class(right(image)) for image in range(NUM_IMAGES)]
    assert measure_errors(truth(), results, image_ids=[3, 4]).kinds["classification"].count == 2


def test_without_ground_truth_there_is_no_ap50() -> None:
    assert measure_errors({**truth(), "annotations": []}, [right(0)]).ap50 is None


def test_json_and_table() -> None:
    found = measure(all_misclassified)
    content = json.loads(json.dumps(found.to_dict()))
    assert list(content) == ["ap50", *ERROR_KINDS]
    assert content["classification"] == {"ap50": pytest.approx(1.0), "count": NUM_IMAGES}
    console = Console(width=100, record=True)
    console.print(found)
    text = console.export_text()
    assert "classification" in text
    assert "100.0" in text


def test_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdetr.evaluation.tide_errors.fastest_library", lambda: "pycocotools")
    with pytest.raises(UsageError, match=r"need hotcoco 1.3 or later: pip install 'msdetr\[fast\]"):
        measure_errors(truth(), [])
