from __future__ import annotations

from msdetr.engine.step_report import BadMicroBatch, StepDivergedError, StepReport
from msdetr.engine.task import MicroBatchPlace

PLACE = MicroBatchPlace(seed=0, epoch=1, step=6, index=0)


def test_parts_are_the_weighted_sums_of_branches() -> None:
    terms = {"one/class/0": 1.0, "one/class/1": 2.0, "one/box/0": 10.0, "many/class/0": 4.0}
    weights = {"one/class/0": 2.0, "one/class/1": 2.0, "one/box/0": 0.5, "many/class/0": 1.0}
    report = StepReport(15.0, terms, weights, grad_norm=1.0, lr=0.1, num_images=4)
    assert report.parts() == {"one": 11.0, "many": 4.0}


def test_a_bad_micro_batch_shows_its_first_terms() -> None:
    values = {f"main/{index}": "nan" for index in range(10)}
    shown = ", ".join(f"main/{index} = nan" for index in range(8))
    assert (
        str(BadMicroBatch(2, [7, 9], values)) == f"micro-batch 2, images 7, 9: {shown}, and 2 more"
    )
    assert str(BadMicroBatch(2, [7], {"a": "inf"})) == "micro-batch 2, images 7: a = inf"


def test_a_diverged_step_counts_from_one_and_lists_its_micro_batches() -> None:
    bad = [BadMicroBatch(0, [1], {"a": "nan"}), BadMicroBatch(3, [2], {"a": "inf"})]
    error = StepDivergedError(PLACE, bad)
    assert str(error).splitlines() == [
        "step 7 (epoch 2) diverged: the loss is not finite",
        "  micro-batch 0, images 1: a = nan",
        "  micro-batch 3, images 2: a = inf",
    ]
    assert (error.step, error.micro_batches, error.exit_code) == (6, tuple(bad), 3)


def test_a_diverged_gradient_is_told_from_a_diverged_loss() -> None:
    assert str(StepDivergedError(PLACE, [])) == (
        "step 7 (epoch 2) diverged: the losses are finite, but the norm of the gradient is not"
    )
