"""Who is there, asked over a store of torch: the processes are threads here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import pytest
from torch import distributed

from msdetr.engine import roll_call
from msdetr.engine.processes import OtherProcessError, Processes
from msdetr.engine.roll_call import LostProcessError, RollCall
from msdetr.engine.signals import StopSignalError
from msdetr.errors import InterruptedRunError, MsdetrError

NUM_PROCESSES = 4

Enter = Callable[..., RollCall]


@dataclass(frozen=True)
class Place:
    """Stands for the processes: their number and which one this is."""

    rank: int
    num_processes: int = NUM_PROCESSES

    def broadcast(self, _: str) -> str:
        return "the same name"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for threads of the same process."""
    monkeypatch.setattr(roll_call, "_LISTEN_SECONDS", 0.02)
    monkeypatch.setattr(roll_call, "_PATIENCE_SECONDS", 1.0)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Where the processes met, in a list so that a test can let it go."""
    server = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    holder = [server]
    del server
    yield holder
    holder.clear()


@pytest.fixture
def enter(store: list[Any]) -> Iterator[Enter]:
    """Let processes of some ranks begin to answer."""
    assert store
    with ExitStack() as stack:
        yield lambda rank: stack.enter_context(RollCall(cast("Processes", Place(rank))))


def leave(rank: int, error: BaseException | None) -> None:
    """Enter and leave, with an error or without."""
    call = RollCall(cast("Processes", Place(rank)))
    call.__enter__()
    call.__exit__(None if error is None else type(error), error, None)


def test_all_are_there(enter: Enter) -> None:
    first, *_ = [enter(rank) for rank in range(NUM_PROCESSES)]
    assert first.find_lost() == ""
    assert str(first.explain_loss("closed")) == (
        "lost the connection to another of the 4 processes; the launcher names the one that "
        "failed first (closed)"
    )


def test_who_does_not_answer_is_gone(enter: Enter) -> None:
    first, _ = enter(0), enter(2)
    assert str(first.explain_loss("Connection reset by peer")) == (
        "processes 1, 3 of 4 are gone: killed, crashed or out of reach; the launcher may say more "
        "(Connection reset by peer)"
    )


def test_a_process_answers_while_it_computes(enter: Enter) -> None:
    """Its main thread need not ask for anything."""
    calls = [enter(rank) for rank in range(NUM_PROCESSES)]
    busy = threading.Event()
    worker = threading.Thread(target=busy.wait)
    worker.start()
    assert calls[3].find_lost() == ""
    busy.set()
    worker.join()


@pytest.mark.parametrize(
    "error",
    [
        LostProcessError("process 3 of 4 is gone"),
        OtherProcessError("process 3 of 4 failed"),
        InterruptedRunError(15, "stopped by SIGTERM"),
        StopSignalError(15),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_who_left_for_another_s_sake_is_not_lost(enter: Enter, error: BaseException) -> None:
    leave(1, error)
    first, _ = enter(0), enter(2)
    assert first.find_lost().startswith("process 3 of 4 is gone: ")


def test_who_failed_has_left_word(enter: Enter) -> None:
    leave(2, MsdetrError("run/metrics.jsonl:\nNo space left on device"))
    first, *_ = [enter(rank) for rank in (0, 1, 3)]
    assert first.find_lost() == "process 2 of 4 failed: run/metrics.jsonl: No space left on device"


def test_late_comers_do_not_wait_and_blame_the_same(
    enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = enter(2)
    first = RollCall(cast("Processes", Place(0)))
    leave(1, LostProcessError("noticed before"))
    first.__enter__()
    said = first.find_lost()
    first.__exit__(LostProcessError, LostProcessError(said), None)
    monkeypatch.setattr(roll_call, "_PATIENCE_SECONDS", 1e9)
    assert late.find_lost() == said
    assert said.startswith("process 3 of 4 is gone: ")


@pytest.mark.parametrize(
    ("agent", "telling"),
    [("", "process 0 of 4 is gone: "), ("True", "the connection to the launcher of the 4")],
    ids=["in process 0", "in the launcher"],
)
def test_the_store_is_gone(
    enter: Enter,
    store: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    agent: str,
    telling: str,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", agent)
    call = enter(1)
    store.clear()
    assert telling in call.find_lost()


def test_there_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with RollCall(cast("Processes", Place(1))) as call:
        assert call.find_lost() == ""


def test_one_process_asks_nobody() -> None:
    before = threading.active_count()
    with RollCall(cast("Processes", Place(0, num_processes=1))) as call:
        assert threading.active_count() == before
        assert call.find_lost() == ""
