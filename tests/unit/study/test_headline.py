"""Seeds and images resampled together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msdetr.evaluation.image_matches import ImageMatches
from msdetr.evaluation.weighted_metrics import weighted_metric
from msdetr.study.headline import bootstrap_headline
from msdetr.study.image_bootstrap import bootstrap_images
from msdetr.study.interval import Interval

Pool = dict[str, ImageMatches]


def seeds_of(matches: ImageMatches, count: int, size: int = 40) -> dict[int, ImageMatches]:
    """Different detectors on images of the same names: those of other images of the pool."""
    names = tuple(range(size))
    found = {}
    for seed in range(count):
        few = matches.of_images(np.arange(size * seed, size * (seed + 1)))
        found[seed] = ImageMatches(
            names, few.iou_thresholds, few.recall_thresholds, few.max_detections, few.classes
        )
    return found


def test_one_seed_is_the_bootstrap_over_images(pool: Pool) -> None:
    arm, base = (seeds_of(pool[name], 1) for name in ("better", "worse"))
    headline = bootstrap_headline(arm, base, "ap50", num_resamples=200)
    images = bootstrap_images(arm[0], base[0], "ap50", num_resamples=200)
    assert headline is not None
    assert images is not None
    assert (headline.difference, headline.interval) == (images.difference, images.interval)


def test_difference_is_the_mean_over_seeds_that_both_have(pool: Pool) -> None:
    arm, base = (seeds_of(pool[name], 3) for name in ("better", "worse"))
    del base[2]
    headline = bootstrap_headline(arm, base, "ap50", num_resamples=200)
    once = np.ones((1, 40), dtype=np.int64)
    each = [
        weighted_metric(arm[seed], once, "ap50") - weighted_metric(base[seed], once, "ap50")
        for seed in (0, 1)
    ]
    assert headline is not None
    assert headline.difference == pytest.approx(np.mean(each))
    assert (headline.num_seeds, headline.num_images) == (2, 40)
    assert json.loads(json.dumps(headline.to_dict()))["num_seeds"] == 2


def test_seeds_that_differ_widen_the_interval(pool: Pool) -> None:
    base = seeds_of(pool["worse"], 2)
    good = seeds_of(pool["better"], 2)
    mixed = {0: good[0], 1: base[1]}
    same = {0: good[0], 1: good[0]}
    same_base = {0: base[0], 1: base[0]}
    wide = bootstrap_headline(mixed, base, "ap50", num_resamples=500)
    narrow = bootstrap_headline(same, same_base, "ap50", num_resamples=500)
    images = bootstrap_images(good[0], base[0], "ap50", num_resamples=500)
    assert wide is not None
    assert narrow is not None
    assert images is not None
    assert narrow.interval == images.interval
    assert wide.interval.low <= 0 <= wide.interval.high


def test_method_against_itself(pool: Pool) -> None:
    arm = seeds_of(pool["better"], 3)
    headline = bootstrap_headline(arm, arm, "ap50", num_resamples=50)
    assert headline is not None
    assert (headline.difference, headline.interval) == (0, Interval(0, 0))


def test_no_common_seed_is_refused(pool: Pool) -> None:
    arm = seeds_of(pool["better"], 2)
    with pytest.raises(ValueError, match="no seed in common"):
        bootstrap_headline({0: arm[0]}, {1: arm[1]})
