"""What torch raises, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest
from torch import distributed

from msdetr.engine.failures import explain_failure
from msdetr.engine.roll_call import LostProcessError, RollCall
from msdetr.errors import DataError, DataWorkerError

GLOO = (
    "[/x/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.0.0.2]:5. "
    "This is typical"
)


@dataclass(frozen=True)
class AskedRollCall:
    """Stands for a roll call."""

    num_processes: int

    def explain_loss(self, reason: str) -> LostProcessError:
        return LostProcessError(f"process 1 of {self.num_processes} is gone ({reason})")


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
    explained = explain_failure(RuntimeError(text), cast("RollCall", AskedRollCall(1)))
    assert isinstance(explained, DataWorkerError)
    assert telling in str(explained)
    assert "\n" not in str(explained)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(GLOO), "Connection closed by peer [10.0.0.2]:5"),
        (distributed.DistBackendError("NCCL error"), "NCCL error"),
    ],
)
def test_a_lost_connection_calls_the_roll(error: Exception, reason: str) -> None:
    explained = explain_failure(error, cast("RollCall", AskedRollCall(4)))
    assert isinstance(explained, LostProcessError)
    assert str(explained) == f"process 1 of 4 is gone ({reason})"


@pytest.mark.parametrize(
    ("error", "processes"),
    [(RuntimeError(GLOO), 1), (RuntimeError("out of memory"), 2), (DataError("a", "gloo"), 2)],
    ids=["no other process", "nothing of the surroundings", "one of ours"],
)
def test_others_stay_as_they_are(error: Exception, processes: int) -> None:
    assert explain_failure(error, cast("RollCall", AskedRollCall(processes))) is error
