"""What a step reports."""

from __future__ import annotations

from msdetr.engine.step import StepReport


def test_parts_are_weighted_sums_of_branches_and_add_up_numbered_ones() -> None:
    terms = {
        "one_to_one/class/0": 1.0,
        "one_to_one/class/11": 2.0,
        "group_1/class/0": 4.0,
        "group_12/class/0": 8.0,
        "group_1_proposals/class/0": 16.0,
        "group_2_proposals/class/0": 32.0,
    }
    weights = dict.fromkeys(terms, 2.0) | {"group_12/class/0": 0.5}
    report = StepReport(
        loss=0.0, terms=terms, weights=weights, grad_norm=None, lr=0.0, num_images=1
    )
    assert report.parts() == {"one_to_one": 6.0, "group": 12.0, "group_proposals": 96.0}
