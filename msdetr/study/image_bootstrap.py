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


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of one checkpoint on all images and on resampled ones.

    Checkpoints that were resampled with the same numbers have the same images in every place.

    Attributes:
        metric: One of the twelve keys.
        image_ids: Images that were drawn from.
        values: [1 + S] float64, the observation first; NaN where no image drawn has ground truth.
    """

    metric: str
    image_ids: tuple[int, ...]
    values: NDArray[np.float64]


def resample(
    matches: ImageMatches,
    metric: str = "ap",
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Resampled:
    """Accumulate a metric anew for every draw of the images.

    Args:
        matches: Of one checkpoint.
        metric: One of the twelve keys.
        num_resamples: Number of resamples.
        seed: Of the draws.
    """
    num_images = len(matches.image_ids)
    once = np.ones((1, num_images), dtype=np.int64)
    weights = np.concatenate([once, draw_images(num_images, num_resamples, seed)])
    return Resampled(metric, matches.image_ids, weighted_metric(matches, weights, metric))


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
    first, second = (
        resample(each, metric, num_resamples=num_resamples, seed=seed) for each in (arm, baseline)
    )
    return image_difference(first, second)


def image_difference(arm: Resampled, baseline: Resampled) -> ImageDifference | None:
    """Compare two checkpoints that were resampled with the same numbers.

    Returns:
        Arm minus baseline; None where the metric is undefined on these images.

    Raises:
        ValueError: The images differ.
    """
    check_images([arm, baseline])
    differences = arm.values - baseline.values
    if np.isnan(differences[0]):
        return None
    interval = percentile_interval(differences[1:])
    return ImageDifference(arm.metric, float(differences[0]), interval)


def check_images(models: Sequence[ImageMatches | Resampled]) -> None:
    """Refuse models that were not scored on the same images.

    Raises:
        ValueError: The images differ.
    """
    if any(model.image_ids != models[0].image_ids for model in models):
        raise ValueError("the models were not matched on the same images")
