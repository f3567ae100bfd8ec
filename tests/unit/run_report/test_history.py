"""Logs of trainings: ours and the published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msdetr.errors import DataError
from msdetr.run_report.history import read_history

OURS = [
    {
        "kind": "step",
        "epoch": 0,
        "step": 5,
        "lr": 1e-3,
        "loss": 3.0,
        "terms": {"one_to_one/class/0": 0.5, "one_to_many/class/0": 0.6},
    },
    {
        "kind": "epoch",
        "epoch": 0,
        "step": 10,
        "lr": 5e-4,
        "loss": 2.0,
        "terms": {"one_to_one/class/0": 0.4, "one_to_one/class/1": 0.3, "proposals/class/0": 0.1},
        "ap": 0.25,
        "ap_small": None,
    },
]
PUBLISHED = {
    "epoch": 3,
    "train_lr": 2e-4,
    "train_class_error": 12.0,
    "train_loss": 9.0,
    "train_loss_ce": 0.30,
    "train_loss_bbox": 0.25,
    "train_loss_giou": 0.40,
    "train_loss_ce_0": 0.36,
    "train_loss_bbox_0": 0.30,
    "train_loss_giou_0": 0.50,
    "train_loss_ce_1": 0.33,
    "train_loss_ce_enc": 0.5,
    "test_coco_eval_bbox": [0.45, 0.62, 0.48, 0.27, -1, 0.6, 0.3, 0.6, 0.7, 0.4, 0.7, 0.8],
    "n_parameters": 40,
}
MIXED = {**PUBLISHED, "train_loss_ce_o2m": 0.8, "train_loss_ce_0_o2m": 0.9}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_our_rows_are_read(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", OURS)
    history = read_history(tmp_path)
    assert history.path == tmp_path / "metrics.jsonl"
    assert (len(history.steps), len(history.epochs)) == (1, 1)
    assert history.steps_per_epoch == 10
    assert history.num_layers == 2
    assert history.mixed_supervision
    assert history.epochs[0].scores == {"ap": 0.25}
    assert history.notes == ()


def test_run_without_one_to_many_losses_is_a_baseline(tmp_path: Path) -> None:
    assert not read_history(write(tmp_path / "m.jsonl", OURS[1:])).mixed_supervision


@pytest.mark.parametrize(("row", "class_weight"), [(PUBLISHED, 2.0), (MIXED, 1.0)])
def test_weights_of_published_losses_are_divided_out(
    row: dict[str, Any], class_weight: float, tmp_path: Path
) -> None:
    history = read_history(write(tmp_path / "log.txt", [row]))
    terms = history.epochs[0].terms
    assert history.num_layers == 3  # numbered ones, and the last without a number
    assert terms["one_to_one/class/2"] == pytest.approx(0.30 / class_weight)
    assert terms["one_to_one/class/0"] == pytest.approx(0.36 / class_weight)
    assert terms["one_to_one/box/2"] == pytest.approx(0.25 / 5)
    assert terms["one_to_one/giou/0"] == pytest.approx(0.50 / 2)
    assert terms["proposals/class/0"] == pytest.approx(0.5 / 2)
    assert history.mixed_supervision == (row is MIXED)
    assert len(history.notes) == 1
    if row is MIXED:
        assert terms["one_to_many/class/0"] == pytest.approx(0.9 / 2)


def test_unscaled_published_losses_are_taken_as_they_are(tmp_path: Path) -> None:
    row = {**MIXED, "train_loss_ce_unscaled": 0.31, "train_loss_ce_0_unscaled": 0.37}
    history = read_history(write(tmp_path / "log.txt", [row]))
    assert history.notes == ()
    assert history.epochs[0].terms == {"one_to_one/class/2": 0.31, "one_to_one/class/0": 0.37}


def test_published_scores_and_rate_are_read(tmp_path: Path) -> None:
    (row,) = read_history(write(tmp_path / "log.txt", [PUBLISHED])).epochs
    assert (row.epoch, row.step, row.lr) == (3, None, 2e-4)
    assert (row.scores["ap"], row.scores["ar_large"]) == (0.45, 0.8)
    assert "ap_medium" not in row.scores  # -1 says that there is none


def test_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", OURS)
    with path.open("a") as file:
        file.write('{"kind": "step", "ep')
    assert len(read_history(path).epochs) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no rows yet"),
        ("not json\n", "line 1: expected a JSON object, got 'not json'"),
        ('{"kind": "step"}\n[1]\n{}\n', r"line 2: expected a JSON object, got '\[1\]'"),
        ('{"kind": "step"}\n', "is neither a metrics.jsonl nor a published log.txt"),
        ('{"kind": ["x"]}\n', "is neither"),
        ('{"epoch": 1, "loss": 2}\n', "no train_loss_"),
    ],
)
def test_malformed_log_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_history(path)


def test_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_history(tmp_path / "nothing")
    with pytest.raises(DataError, match="holds neither"):
        read_history(tmp_path)
