"""Intervals of means over targets."""

from __future__ import annotations

import torch

from msdetr.inspection.bootstrap import bootstrap_means


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(100):
        # Targets of one image share an offset, so that they are far from independent.
        values = [
            (torch.randn(1, generator=generator) + 0.3 * torch.randn(4, generator=generator))[
                :, None
            ]
            for _ in range(40)
        ]
        (estimate,) = bootstrap_means(values)
        covered += estimate.low <= 0 <= estimate.high
    assert 86 <= covered <= 100


def test_mean_is_over_targets_and_repeats() -> None:
    values = [torch.tensor([[1.0, 0.0]]), torch.zeros(0, 2), torch.tensor([[4.0, 0.0], [4.0, 3.0]])]
    first, second = bootstrap_means(values), bootstrap_means(values)
    assert first == second
    assert [estimate.mean for estimate in first] == [3.0, 1.0]
    assert (first[0].low, first[0].high) == (1.0, 4.0)
