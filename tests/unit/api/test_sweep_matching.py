"""Settings of a sweep: their ranges, and what is taken from the trace."""

from __future__ import annotations

from typing import Any

import pytest

from msdetr.api.sweep_matching import SweepOptions, complete_grid
from msdetr.assignment import OneToManyAssigner
from msdetr.errors import UsageError
from msdetr.inspection.sweep.statistics import SweepGrid

OWN = OneToManyAssigner(
    k=6, threshold=0.4, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ks": (4, 0)}, "`ks`: expected numbers from 1, got 0"),
        ({"thresholds": (0.5, 1.5)}, "`thresholds`: expected numbers from 0 to 1, got 1.5"),
        ({"iou_weights": (-0.5,)}, "`iou_weights`: expected numbers from 0 to 1, got -0.5"),
        ({"max_positive_fraction": 0.0}, "`max_positive_fraction`: expected one number above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SweepOptions(**given)


def test_what_is_not_given_is_the_own_setting() -> None:
    assert complete_grid(SweepOptions(), OWN) == SweepGrid((6,), (0.4,), (0.7,), 0.25)


def test_given_values_are_tried_once_each_in_their_order() -> None:
    options = SweepOptions((4, 2, 4), (0.5,), (1.0, 0.0), max_positive_fraction=None)
    assert complete_grid(options, OWN) == SweepGrid((4, 2), (0.5,), (1.0, 0.0), None)


def test_too_many_settings_are_refused() -> None:
    options = SweepOptions(ks=tuple(range(1, 20_002)))
    with pytest.raises(UsageError, match="20001 settings in all"):
        complete_grid(options, OWN)
