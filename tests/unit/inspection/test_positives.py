"""Positives per target: those of the assignment, and what the cap left of the candidates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.assignment import OneToManyAssigner
from msdetr.errors import DataError
from msdetr.inspection.positives import count_positives, read_positives, write_positives
from msdetr.inspection.rematch import iou_of, score_steps

MakeScene = Callable[..., Any]


def test_counts_are_those_of_the_steps(scene: MakeScene) -> None:
    trace = scene(max_positive_fraction=0.1).trace
    rows = list(count_positives(trace))
    rule = trace.info.one_to_many
    assert isinstance(rule, OneToManyAssigner)
    assert len(rows) == 2 * 9
    place = {(row.image_id, row.layer, row.annotation_id): row for row in rows}
    for number, image in enumerate(trace.images):
        if not image.num_targets:
            continue
        steps = score_steps(image, rule, iou_of(image))
        for layer in range(2):
            for target in range(image.num_targets):
                row = place[image.image_id, layer, 100 * number + target]
                mine = steps.candidate[layer] == target
                positive = steps.above_threshold[layer] | steps.forced[layer]
                assert row.candidates == int((mine & positive).sum())
                assert row.kept == int(steps.num_positives[layer, target])
                assert row.positives == min(row.kept, rule.k)
    assert any(row.kept < row.candidates for row in rows)


def test_nothing_is_dropped_without_a_cap(scene: MakeScene) -> None:
    rows = list(count_positives(scene(max_positive_fraction=None).trace))
    assert all(row.kept == row.candidates for row in rows)
    assert sum(row.positives for row in rows) > 0


def test_file_keeps_the_rows(scene: MakeScene, tmp_path: Path) -> None:
    rows = list(count_positives(scene().trace))
    path = tmp_path / "positives.csv"
    write_positives(path, rows)
    assert read_positives(path) == rows
    assert path.read_bytes().count(b"\n") == 1 + len(rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: expected the columns image_id,annotation_id,"),
        ("HEADER\n1,2,3\n", "line 2: expected six integers, got '1,2,3'"),
        ("HEADER\n1,2,3,4,5,x\n", "line 2: expected six integers"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "positives.csv"
    write_positives(path, [])
    path.write_text(text.replace("HEADER\n", path.read_text()))
    with pytest.raises(DataError, match=expected):
        read_positives(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_positives(tmp_path / "none.csv")
