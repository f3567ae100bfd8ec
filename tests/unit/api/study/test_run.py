"""How many cells run at the same time, and which GPUs each sees; tests/cli runs whole studies."""

from __future__ import annotations

import pytest
import torch

from msdetr.api.study import run
from msdetr.api.study.run import Workers
from msdetr.errors import UsageError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch see five GPUs, which are not the machine's first ones."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6,7")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("workers", "visible"),
    [
        (Workers(), ["3", "4", "5", "6", "7"]),
        (Workers(device="cuda:1"), ["4"]),
        (Workers(processes=2), ["3,4", "5,6"]),
        (Workers(processes=5), ["3,4,5,6,7"]),
        (Workers(3, processes=2), ["3,4", "5,6", "3,4"]),
    ],
)
def test_gpus_are_dealt_to_cells(workers: Workers, visible: list[str]) -> None:
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in workers.slots()] == visible


@pytest.mark.usefixtures("gpus")
def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="6 processes need a GPU each, and there are 5"):
        Workers(processes=6).slots()


@pytest.mark.parametrize(
    ("threads", "processes", "number"), [(1, 1, 8), (2, 1, 4), (2, 2, 2), (3, 2, 1), (9, 2, 1)]
)
def test_cores_are_dealt_to_cells(
    threads: int, processes: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "count_cores", lambda: 8)
    workers = Workers(threads=threads, processes=processes, device="cpu")
    assert workers.slots() == [{}] * number
    assert workers.cores_per_cell == threads * processes
