"""How much a difference of two checkpoints depends on the images that it was measured on.

This describes two checkpoints, never two methods: however many images there are, another seed of
the same method is another checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.evaluation.image_matches import ImageMatches
from msdetr.evaluation.weighted_metrics import weighted_metric
from msdetr.study.interval import Interval, percentile_interval

NUM_RESAMPLES = 1000

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ImageDifference:
    """Difference of a metric of two checkpoints on the same images.

    Attributes:
        metric: One of the twelve keys.
        difference: On all images, once each.
        interval: Percentile interval over resampled images. Somewhat too narrow with few: in 1,000
            simulated studies of AP50 of one class it held the true difference 92 times of 100 with
            20 images, 94 times with 40 and 95 times with 100.
    """

    metric: str
    difference: float
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": self.metric,
            "difference": self.difference,
            "interval": self.interval.to_dict(),
        }


def draw_images(num_images: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Integers:
    """Draw images with replacement.

    Returns:
        [S, I] how often every image was drawn; the same for the same numbers.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), num_resamples)


def bootstrap_images(
    arm: ImageMatches,
    baseline: ImageMatches,
    metric: str = "ap",
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> ImageDifference | None:
    """Resample the images of two checkpoints together and accumulate the metric anew each time.

    Args:
        arm: Matches of one checkpoint.
        baseline: Matches of the other, on the same images.
        metric: One of the twelve keys.
        num_resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        Arm minus baseline; None where the metric is undefined on these images.

    Raises:
        ValueError: The images differ.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    check_images([arm, baseline])
    num_images = len(arm.image_ids)
    once = np.ones((1, num_images), dtype=np.int64)
    observed = float(difference_of(arm, baseline, once, metric)[0])
    if np.isnan(observed):
        return None
    weights = draw_images(num_images, num_resamples, seed)
    resampled = difference_of(arm, baseline, weights, metric)
    return ImageDifference(metric, observed, percentile_interval(resampled))


def difference_of(
    arm: ImageMatches, baseline: ImageMatches, weights: Integers, metric: str
) -> NDArray[np.float64]:
    """Compute arm minus baseline, [S], under [S, I] weights."""
    return weighted_metric(arm, weights, metric) - weighted_metric(baseline, weights, metric)


def check_images(models: Sequence[ImageMatches]) -> None:
    """Refuse models that were not matched on the same images.

    Raises:
        ValueError: The images differ.
    """
    if any(model.image_ids != models[0].image_ids for model in models):
        raise ValueError("the models were not matched on the same images")
