from __future__ import annotations

import json

import pytest

from msdetr.engine.run_state import RunState
from msdetr.errors import CheckpointError


def test_state_survives_json() -> None:
    state = RunState()
    state.finish_step(0.1 + 0.2, {"a": 1 / 3})
    state.record_scores({"ap": 0.25, "ap_small": None}, "ap")
    copy = RunState.from_dict(json.loads(json.dumps(state.to_dict())), "x")
    assert copy == state


def test_means_are_of_the_epoch_under_way() -> None:
    state = RunState()
    for loss in (1.0, 2.0):
        state.finish_step(loss, {"a": 10 * loss})
    assert state.mean_losses() == (1.5, {"a": 15.0})
    state.finish_epoch()
    assert (state.epoch, state.step, state.step_in_epoch) == (1, 2, 0)
    assert state.mean_losses() == (None, {})


def test_skipped_images_are_counted_over_all_epochs() -> None:
    state = RunState()
    state.finish_step(1.0, {}, 2)
    state.finish_epoch()
    state.finish_step(1.0, {}, 1)
    assert state.skipped_images == 3


def test_best_is_the_first_of_equal_scores() -> None:
    state = RunState()
    assert [state.record_scores({"ap": ap}, "ap") for ap in (0.0, 0.2, 0.2, None, 0.1)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert state.best_score == 0.2
    assert state.scores == {"ap": 0.1}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epoch", -1), ("step", "3"), ("step_in_epoch", 1.5), ("skipped_images", True)),
        *(("loss_sum", None), ("term_sums", [1.0]), ("scores", {"ap": "high"})),
        *(("best_score", {}), ("best_epoch", -2)),
    ],
)
def test_odd_values_are_refused(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"^x: run state has odd values: {key}$"):
        RunState.from_dict({**RunState().to_dict(), key: value}, "x")


@pytest.mark.parametrize("change", [{"speed": 3}, {"epoch": None}])
def test_other_fields_are_refused(change: dict[str, int | None]) -> None:
    values = {k: v for k, v in {**RunState().to_dict(), **change}.items() if k != "step"}
    with pytest.raises(CheckpointError, match="step"):
        RunState.from_dict(values, "x")
