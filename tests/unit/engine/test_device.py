from __future__ import annotations

import pytest
import torch

from msdetr.engine.device import resolve_device
from msdetr.errors import UsageError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Let torch see this many GPUs."""
    number: int = request.param
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    return number


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_names_of_devices_that_are_there(name: str, expected: str) -> None:
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")], indirect=["gpus"]
)
def test_a_gpu_that_is_not_there_is_refused(gpus: int, name: str) -> None:
    telling = f"'{name}' is not available: torch sees {gpus} CUDA devices"
    with pytest.raises(UsageError, match=telling):
        resolve_device(name)


@pytest.mark.parametrize("name", ["tpu0", "mps", "meta", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"expected auto, cpu, cuda or cuda:N, got '{name}'"):
        resolve_device(name)
