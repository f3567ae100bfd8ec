"""How many processes a command starts, and when it refuses to."""

from __future__ import annotations

import pytest
import torch

from msdetr.api.launch import count_processes
from msdetr.errors import UsageError


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch see four GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("asked", "device", "number"),
    [
        ("auto", "auto", 4),
        ("auto", "cuda", 4),
        ("auto", "cuda:2", 1),
        ("auto", "cpu", 1),
        ("4", "auto", 4),
        ("3", "cuda", 3),
        ("8", "cpu", 8),
    ],
)
def test_numbers_and_auto(asked: str, device: str, number: int) -> None:
    assert count_processes(asked, device=device) == number


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("asked", "device", "message"),
    [
        ("0", "cpu", "expected a whole number of at least 1 or auto, got '0'"),
        ("-1", "cpu", "got '-1'"),
        ("1.5", "cpu", "got '1.5'"),
        ("all", "auto", "got 'all'"),
        ("5", "auto", "5 processes need a GPU each, and `device='auto'` has 4"),
        ("2", "cuda:1", "2 processes need a GPU each, and `device='cuda:1'` has 1"),
        ("2", "cuda:9", "not available"),
    ],
)
def test_what_cannot_be_is_refused(asked: str, device: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        count_processes(asked, device=device)
    assert message in str(caught.value)


def test_auto_is_one_process_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert count_processes("auto", device="auto") == 1


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_under_a_launcher_it_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError, match=f"a launcher has started this process already .{name} "):
        count_processes("2", device="cpu")
