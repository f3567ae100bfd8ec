"""1,000 simulated studies with a known difference: how often the intervals hold it."""

from __future__ import annotations

import numpy as np
import pytest

from msdetr.evaluation.image_matches import ImageMatches
from msdetr.evaluation.weighted_metrics import weighted_metric
from msdetr.study.image_bootstrap import bootstrap_images
from msdetr.study.paired import PairedComparison, compare_pair
from msdetr.study.verdict import Outcome, decide

NUM_STUDIES = 1000


def simulated(difference: float, num_seeds: int = 5) -> list[PairedComparison]:
    """Studies of two arms that share what a seed does to both."""
    generator = np.random.default_rng(0)
    shared = generator.normal(0.5, 0.003, (NUM_STUDIES, num_seeds))
    own = generator.normal(0, 0.003, (2, NUM_STUDIES, num_seeds))
    arms = [shared + difference + own[0], shared + own[1]]
    return [
        compare_pair(
            *("arm", dict(enumerate(ours.tolist()))), *("base", dict(enumerate(theirs.tolist())))
        )
        for ours, theirs in zip(*arms, strict=True)
    ]


def test_t_intervals_hold_the_difference_at_their_rate() -> None:
    difference = 0.004
    studies = simulated(difference)
    held = [each.paired.low <= difference <= each.paired.high for each in studies]
    assert 0.935 <= np.mean(held) <= 0.965
    # Where seeds correlate, ignoring the pairs gives intervals that are too wide.
    unpaired = [each.unpaired.low <= difference <= each.unpaired.high for each in studies]
    assert np.mean(unpaired) > np.mean(held)


def test_equal_methods_are_rarely_told_apart() -> None:
    outcomes = [decide(each, 0.0001).outcome for each in simulated(0.0)]
    wrong = sum(each in {Outcome.BETTER, Outcome.WORSE} for each in outcomes)
    assert 0.035 <= wrong / NUM_STUDIES <= 0.065
    assert np.mean([each.sign_flip_p <= 0.0625 for each in simulated(0.0)]) <= 0.0625 + 0.02


@pytest.mark.slow
def test_bootstrap_over_images_holds_the_difference(pool: dict[str, ImageMatches]) -> None:
    """A little less often than 95 times of 100, as percentile intervals of 40 images do."""
    everything = np.ones((1, len(pool["better"].image_ids)), dtype=np.int64)
    better, worse = (weighted_metric(pool[name], everything, "ap50") for name in pool)
    truth = (better - worse)[0]
    assert truth > 0.02
    generator = np.random.default_rng(1)
    held = []
    for study in range(NUM_STUDIES):
        images = np.sort(generator.choice(everything.size, 40, replace=False))
        pair = (pool["better"].of_images(images), pool["worse"].of_images(images))
        found = bootstrap_images(*pair, "ap50", num_resamples=300, seed=study)
        assert found is not None
        held.append(found.interval.low <= truth <= found.interval.high)
    assert 0.90 <= np.mean(held) <= 0.96


@pytest.mark.parametrize("seed", range(3))
def test_detector_against_itself_differs_nowhere(pool: dict[str, ImageMatches], seed: int) -> None:
    images = np.sort(np.random.default_rng(seed).choice(3000, 40, replace=False))
    few = pool["better"].of_images(images)
    values = {number: 0.5 + 0.01 * number for number in range(3)}
    found = bootstrap_images(few, few, num_resamples=100, seed=seed)
    assert found is not None
    assert found.difference == found.interval.low == found.interval.high == 0
    verdict = decide(compare_pair("a", values, "a again", values), 0.005)
    assert verdict.outcome is Outcome.NO_DIFFERENCE
