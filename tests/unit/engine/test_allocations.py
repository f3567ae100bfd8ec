from __future__ import annotations

import pytest
import torch

from msdetr.engine.allocations import AllocationGauge

MIB = 2**20 // 4  # floats


def test_peak_is_of_what_lives_at_the_same_time() -> None:
    before = torch.zeros(50 * MIB)
    with AllocationGauge() as gauge:
        first = torch.zeros(3 * MIB)
        del first
        kept = [torch.zeros(2 * MIB) for _ in range(2)]
        del before, kept[0]
        torch.zeros(1 * MIB)
    assert gauge.peak_mib == pytest.approx(4, abs=0.01)


def test_it_is_the_same_every_time_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    convolution = torch.nn.Conv2d(3, 16, 3)
    images = torch.randn(2, 3, 64, 64)

    def measure() -> float:
        convolution.zero_grad(set_to_none=True)
        with AllocationGauge() as gauge:
            convolution(images).sum().backward()
        return gauge.peak_mib

    first = measure()
    assert first > 0.4
    assert [measure() for _ in range(3)] == [first] * 3
    assert capfd.readouterr() == ("", "")


def test_a_failure_inside_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), AllocationGauge():
        raise ZeroDivisionError
