"""COCO's results format: from tensors, to a file and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.errors import DataError
from msdetr.evaluation import detections_to_results, read_results, write_results
from msdetr.structures import Detections

TRUTH = {"images": [{"id": 5}, {"id": 9}], "categories": [{"id": 1}, {"id": 4}], "annotations": []}
GOOD = {"image_id": 5, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


def test_detections_become_results() -> None:
    detections = Detections(
        boxes_xyxy_px=torch.tensor([[[1.0, 2, 4, 8]], [[-5, 0, 10, 20]]]),
        scores=torch.tensor([[0.5], [0.25]]),
        labels=torch.tensor([[1], [0]]),
    )
    assert detections_to_results(detections, [9, 5], [1, 4]) == [
        {"image_id": 9, "category_id": 4, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5},
        {"image_id": 5, "category_id": 1, "bbox": [-5.0, 0.0, 15.0, 20.0], "score": 0.25},
    ]


def test_written_results_are_read_back(tmp_path: Path) -> None:
    results = [GOOD, {**GOOD, "image_id": 9, "category_id": 12}]
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json", TRUTH) == results
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        ({"image_id": 6}, "image_id 6"),
        ({"image_id": "5"}, "image_id: expected an integer"),
        ({"category_id": True}, "category_id: expected an integer"),
        ({"score": float("nan")}, "score: expected a finite number"),
        ({"score": 10**400}, "score: expected a finite number"),
        ({"score": None}, "score"),
        ({"bbox": [1, 2, 3]}, "bbox: expected 4"),
        ({"bbox": [1, 2, -3, 4]}, "must not be negative"),
        ({"bbox": "1 2 3 4"}, "bbox: expected 4"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, change: dict[str, Any], telling: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, {**GOOD, **change}]))
    with pytest.raises(DataError) as caught:
        read_results(path, TRUTH)
    assert str(caught.value).startswith(f"{path}: entry 1: ")
    assert telling in str(caught.value)


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("[1, 2", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"annotations": []}', "expected a list"),
        ("[3]", "entry 0: expected an object"),
        ('[{"image_id": 5}]', "lacks category_id, bbox, score"),
        (json.dumps([{**GOOD, "category_id": 3}]), "none of its category ids"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, telling: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_results(path, TRUTH)
    assert telling in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_results(tmp_path / "none.json", TRUTH)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{}] * 40))
    with pytest.raises(DataError) as caught:
        read_results(path, TRUTH)
    assert len(str(caught.value).splitlines()) == 12
    assert "and 30 more" in str(caught.value)
