"""The difference of two methods with the uncertainty of seeds and images together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdetr.evaluation.image_matches import ImageMatches
from msdetr.study.image_bootstrap import NUM_RESAMPLES, Resampled, check_images, resample
from msdetr.study.interval import Interval, percentile_interval


@dataclass(frozen=True)
class Headline:
    """Mean difference over seeds, arm minus baseline.

    Attributes:
        metric: One of the twelve keys.
        difference: Mean over the seeds, on all images.
        interval: Percentile interval over resampled seeds and images. With few seeds it is too
            narrow, since resampling S of them shows only (S - 1) / S of their variance and knows
            no t: where seeds are all that matters, it covers the truth 74 times of 100 with
            3 seeds, 83 times with 5 and 90 times with 10. Verdicts therefore go by the t interval.
        num_seeds: Seeds that both have.
        num_images: Images.
    """

    metric: str
    difference: float
    interval: Interval
    num_seeds: int
    num_images: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": self.metric,
            "difference": self.difference,
            "interval": self.interval.to_dict(),
            "num_seeds": self.num_seeds,
            "num_images": self.num_images,
        }


def bootstrap_headline(
    arm: Mapping[int, ImageMatches],
    baseline: Mapping[int, ImageMatches],
    metric: str = "ap",
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Headline | None:
    """Resample seeds, then images: the same images for all seeds of a resample.

    Args:
        arm: Matches of one method by seed.
        baseline: Matches of the other by seed, all on the same images.
        metric: One of the twelve keys.
        num_resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        The headline; None where the metric is undefined on these images.

    Raises:
        ValueError: There are no common seeds, or the images differ.

    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007.
    """
    resampled = (
        {
            number: resample(matches, metric, num_resamples=num_resamples, seed=seed)
            for number, matches in method.items()
            if number in arm.keys() & baseline.keys()
        }
        for method in (arm, baseline)
    )
    return headline_of(*resampled, seed=seed)


def headline_of(
    arm: Mapping[int, Resampled], baseline: Mapping[int, Resampled], *, seed: int = 0
) -> Headline | None:
    """Resample the seeds of checkpoints whose images were resampled with the same numbers.

    Args:
        arm: Of one method by seed.
        baseline: Of the other by seed.
        seed: Of the draws.

    Returns:
        The headline; None where the metric is undefined on these images.

    Raises:
        ValueError: There are no common seeds, or the images differ.
    """
    seeds = sorted(arm.keys() & baseline.keys())
    if not seeds:
        raise ValueError("the methods have no seed in common")
    check_images([method[each] for method in (arm, baseline) for each in seeds])
    # [seeds, 1 + resamples]; the first column is the observation.
    values = np.stack([arm[each].values - baseline[each].values for each in seeds])
    observed = float(values[:, 0].mean())
    if np.isnan(observed):
        return None
    shape = (len(seeds), values.shape[1] - 1)
    drawn = np.random.default_rng([seed, 1]).integers(len(seeds), size=shape)
    resampled = np.take_along_axis(values[:, 1:], drawn, axis=0).mean(axis=0)
    first = arm[seeds[0]]
    interval = percentile_interval(resampled)
    return Headline(first.metric, observed, interval, len(seeds), len(first.image_ids))
