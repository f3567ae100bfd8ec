from __future__ import annotations

import pytest

from msdetr.engine.schedule import Schedule


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 1.0), (10, 1.0), (11, 0.1)],
    ids=["first", "the eleventh epoch is still at full rate", "after 11 epochs"],
)
def test_published_schedule(epoch: int, factor: float) -> None:
    schedule = Schedule(drop_epochs=(11,), drop_factor=0.1)
    assert schedule.factor(step=epoch * 7, epoch=epoch) == pytest.approx(factor)


def test_several_drops_multiply() -> None:
    schedule = Schedule(drop_epochs=(2, 4), drop_factor=0.5)
    factors = [schedule.factor(step=0, epoch=epoch) for epoch in range(6)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_warmup_rises_linearly_to_the_full_rate() -> None:
    schedule = Schedule(warmup_steps=4)
    assert [schedule.factor(step=s, epoch=0) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine_falls_from_one_to_zero_without_drops() -> None:
    schedule = Schedule(kind="cosine", total_steps=10, drop_epochs=(0,))
    factors = [schedule.factor(step=s, epoch=s // 5) for s in range(11)]
    assert factors[0] == 1.0
    assert factors[5] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)
    assert factors == sorted(factors, reverse=True)


def test_warmup_scales_the_cosine() -> None:
    plain = Schedule(kind="cosine", total_steps=10)
    warm = Schedule(kind="cosine", total_steps=10, warmup_steps=2)
    assert warm.factor(step=0, epoch=0) == pytest.approx(0.5 * plain.factor(step=0, epoch=0))
    assert warm.factor(step=3, epoch=0) == plain.factor(step=3, epoch=0)
