"""Which process is gone, when a connection to another process of the run is lost.

A lost connection does not say whose fault it is: of four processes some lose it to one that has
merely noticed earlier. So each has a thread that looks once a second, in the store where the
processes met, whether somebody calls the roll, and answers even while the process computes or
waits. Whichever does not answer is gone; one that failed by itself has left a message.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self
from uuid import uuid4

from torch import distributed

from msdetr.engine.processes import Processes
from msdetr.errors import FaultElsewhereError, InterruptedRunError

_CALLED, _VERDICT = "called", "verdict"
_PRESENT = "present"
_LISTEN_SECONDS = 1.0
_POLL_SECONDS = 0.1
# A thread may have to wait for Python while its process computes; launchers kill after 30 s.
_PATIENCE_SECONDS = 10.0
_CONNECT_LIMIT = timedelta(seconds=10)
_WORDS_KEPT = 200


class LostProcessError(FaultElsewhereError):
    """Another process of the run cannot be reached."""


class Store(Protocol):
    """What is used of torch's stores, whose types torch does not export."""

    def check(self, keys: list[str], /) -> bool:
        """Tell whether all keys have been set."""
        ...

    def get(self, key: str, /) -> bytes:
        """Return the value of a key that has been set."""
        ...

    def set(self, key: str, value: str, /) -> None:
        """Set the value of a key."""
        ...


_FAULTS_OF_OTHERS = (FaultElsewhereError, InterruptedRunError)


class RollCall:
    """Answers for this process, and asks for the others, while it is entered.

    With one process it does nothing. Otherwise it costs a question per second to the store.

    Args:
        processes: The processes of the run; all must enter.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._store: Store | None = None
        self._leaving = threading.Event()
        self._listener: threading.Thread | None = None

    @property
    def num_processes(self) -> int:
        """Processes of the run."""
        return self._processes.num_processes

    def __enter__(self) -> Self:
        """Begin to answer."""
        if self.num_processes > 1:
            # A launcher's store outlives a restart of the processes; answers must not.
            name = self._processes.broadcast(uuid4().hex)
            self._store = _connect(f"msdetr/roll_call/{name}")
        if self._store is not None:
            self._leaving.clear()
            self._listener = threading.Thread(
                target=self._listen, args=(self._store,), name="roll call", daemon=True
            )
            self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop answering; leave a message for those who ask when this process has ended."""
        self._leaving.set()
        if self._listener is not None:
            self._listener.join()
        if self._store is not None and error is not None:
            with suppress(RuntimeError):
                self._answer(self._store, _last_words(error))
        self._store = self._listener = None

    def find_lost(self) -> str:
        """Ask who is there; takes up to ten seconds if somebody is gone.

        Returns:
            Who is gone or has failed, for a message; empty if all are there.
        """
        if self._store is None:
            return ""
        try:
            gone = self._call(self._store)
            words = {rank: self._words_of(self._store, rank) for rank in self._others()}
        except RuntimeError:
            return self._without_store()
        parts = [_name_gone(gone, self.num_processes)] if gone else []
        parts += [
            f"process {rank} of {self.num_processes} failed: {said}"
            for rank, said in words.items()
            if said not in (None, _PRESENT)
        ]
        return "; ".join(parts)

    def explain_loss(self, reason: str) -> LostProcessError:
        """Say which processes are gone, after a connection was lost.

        Args:
            reason: What the connection's failure said.
        """
        lost = self.find_lost() or (
            f"lost the connection to another of the {self.num_processes} processes; the launcher "
            "names the one that failed first"
        )
        return LostProcessError(f"{lost} ({reason})")

    def _others(self) -> list[int]:
        return [rank for rank in range(self.num_processes) if rank != self._processes.rank]

    def _listen(self, store: Store) -> None:
        # Without the store the processes cannot be told apart any more.
        with suppress(RuntimeError):
            while not self._leaving.wait(_LISTEN_SECONDS):
                if store.check([_CALLED]):
                    self._answer(store, _PRESENT)
                    return

    def _answer(self, store: Store, word: str) -> None:
        key = _answer_key(self._processes.rank)
        if word != _PRESENT or not store.check([key]):
            store.set(key, word)

    def _call(self, store: Store) -> list[int]:
        """List ranks that do not answer; the first to find out tells those who ask later."""
        self._answer(store, _PRESENT)
        store.set(_CALLED, "yes")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        missing = self._others()
        while missing and not store.check([_VERDICT]):
            if time.monotonic() > deadline:
                store.set(_VERDICT, " ".join(map(str, missing)))
                break
            time.sleep(_POLL_SECONDS)
            missing = [rank for rank in missing if not store.check([_answer_key(rank)])]
        if store.check([_VERDICT]):
            return [int(rank) for rank in store.get(_VERDICT).split()]
        return missing

    def _words_of(self, store: Store, rank: int) -> str | None:
        key = _answer_key(rank)
        return store.get(key).decode() if store.check([key]) else None

    def _without_store(self) -> str:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return f"lost the connection to the launcher of the {self.num_processes} processes"
        return _name_gone([0], self.num_processes)


def _connect(prefix: str) -> Store | None:
    """Open a connection of our own to the store where the processes met, if there is one."""
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        meeting = distributed.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=False, timeout=_CONNECT_LIMIT
        )
    except (KeyError, RuntimeError):
        return None
    store: Store = distributed.PrefixStore(prefix, meeting)  # type: ignore[attr-defined]
    return store


def _answer_key(rank: int) -> str:
    return f"answer/{rank}"


def _last_words(error: BaseException) -> str:
    if not isinstance(error, Exception) or isinstance(error, _FAULTS_OF_OTHERS):
        return _PRESENT
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:_WORDS_KEPT]


def _name_gone(ranks: Sequence[int], num_processes: int) -> str:
    names = ", ".join(map(str, ranks))
    who = (
        f"process {names} of {num_processes} is"
        if len(ranks) == 1
        else f"processes {names} of {num_processes} are"
    )
    return f"{who} gone: killed, crashed or out of reach; the launcher may say more"
