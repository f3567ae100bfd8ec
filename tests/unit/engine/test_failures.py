"""What torch raises, in one line."""

from __future__ import annotations

import pytest
from torch import distributed

from msdetr.engine.failures import DataWorkerError, LostProcessError, explain_failure
from msdetr.errors import DataError

GLOO = "[/x/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.0.0.2]:5"


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        (
            "DataLoader worker (pid 77) is killed by signal: Killed. \nIt is possible that",
            "a data worker (process 77) is killed by signal: Killed; if",
        ),
        (
            "DataLoader worker (pid(s) 5, 6) exited unexpectedly",
            "a data worker (process 5, 6) exited unexpectedly; if",
        ),
    ],
    ids=["signal", "exit"],
)
def test_a_dead_worker_is_named(text: str, telling: str) -> None:
    explained = explain_failure(RuntimeError(text), 1)
    assert isinstance(explained, DataWorkerError)
    assert telling in str(explained)
    assert "\n" not in str(explained)


@pytest.mark.parametrize("error", [RuntimeError(GLOO), distributed.DistBackendError("NCCL error")])
def test_a_lost_process_points_to_the_launcher(error: Exception) -> None:
    explained = explain_failure(error, 4)
    assert isinstance(explained, LostProcessError)
    assert "another of the 4 processes; the launcher names" in str(explained)
    assert "third_party" not in str(explained)


@pytest.mark.parametrize(
    ("error", "processes"),
    [(RuntimeError(GLOO), 1), (RuntimeError("out of memory"), 2), (DataError("a", "gloo"), 2)],
    ids=["no other process", "nothing of the surroundings", "one of ours"],
)
def test_others_stay_as_they_are(error: Exception, processes: int) -> None:
    assert explain_failure(error, processes) is error
