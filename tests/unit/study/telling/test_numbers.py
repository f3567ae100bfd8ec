"""Numbers as text."""

from __future__ import annotations

import pytest

from msdetr.study.interval import Interval
from msdetr.study.seed_means import SeedMean
from msdetr.study.telling import numbers


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (numbers.plain(0.12345), "0.123"),
        (numbers.plain(None), "–"),  # noqa: RUF001
        (numbers.share(0.1234), "12.3%"),
        (numbers.small(0.01234), "0.0123"),
        (numbers.with_spread(0.5, 0.01), "0.500 ± 0.010"),
        (numbers.with_spread(0.5, None), "0.500"),
        (numbers.large(12_300_000_000), "12.3 G"),
        (numbers.large(12.0), "12"),
        (numbers.seconds(3661.4), "1:01:01"),
        (numbers.metric_title("ap_small"), "AP small"),
        (numbers.metric_title("ap75"), "AP75"),
        (numbers.difference(SeedMean(1, None, 1, -0.01)), "-0.010"),
        (
            numbers.difference(SeedMean(1, None, 2, 0.01, Interval(-0.02, 0.04))),
            "+0.010 (-0.020 to +0.040)",
        ),
    ],
)
def test_text(said: str, expected: str) -> None:
    assert said == expected
