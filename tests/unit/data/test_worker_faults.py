"""Data workers that lack shared memory or file descriptors end, and the reason is heard."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from msdetr.data.worker_faults import (
    WorkerReasons,
    explain_lack,
    leaving_child_signal,
    report_unless_abandoned,
    spare_descriptors,
)
from msdetr.errors import DataError, DataWorkerError

# Batches that the training process keeps, of more bytes and descriptors than there are.
PROGRAM = """
import os, resource, sys
import torch
from msdetr.data.batching import Collator
from msdetr.data.loading import BatchLoader
from msdetr.data.sample import Sample
from msdetr.errors import DataWorkerError

class Images(torch.utils.data.Dataset):
    def __getitem__(self, key):
        none = torch.zeros(0, dtype=torch.int64)
        pixels = torch.zeros(3, 512, 512, dtype=torch.uint8)
        return Sample(pixels, torch.zeros(0, 4), none, key[1], (512, 512))

collate = Collator((0.0,) * 3, (1.0,) * 3, 0, (8,))
loader = BatchLoader(Images(), collate, num_workers=2)
kept, more = [], int(sys.argv[1])
if more:
    limit = len(os.listdir("/proc/self/fd")) + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
try:
    for batch in loader.load([[(0, position)] for position in range(99)]):
        kept.append(batch)
except DataWorkerError as error:
    for _ in range(4):  # what saving a state opens
        kept.append(open(os.devnull))
    print(error, flush=True)
    os._exit(0)
"""
MORE = 24


def run(*command: str) -> str:
    """Run the program; that it ends at all is half of the test."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_too_few_descriptors_end_in_one_line() -> None:
    assert run(sys.executable, "-c", PROGRAM, str(MORE)) == (
        "the data workers ran out of file descriptors (Too many open files); raise the limit "
        "(ulimit -n 65536), or set data.num_workers: 0\n"
    )


def test_full_shared_memory_ends_in_one_line() -> None:
    small = "mount -t tmpfs -o size=2m tmpfs /dev/shm"
    command = ["unshare", "-rm", "sh", "-c", small]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small /dev/shm: {mounted.stderr.strip()}")
    script = f'{small} && exec "$@"'
    said = run("unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", PROGRAM, "0")
    assert said.startswith("the data workers ran out of shared memory (")
    assert said.endswith(
        "); give /dev/shm more room (containers: --shm-size=8g), or set data.num_workers: 0\n"
    )


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "file descriptors"),
        (OSError(errno.ENFILE, "file table overflow"), "file descriptors"),
        (RuntimeError("received 0 items of ancdata"), "file descriptors"),
        (RuntimeError("Caught OSError\n[Errno 24] Too many open files: 'a.png'"), "descriptors"),
        (RuntimeError("unable to resize shared memory: Cannot allocate memory"), "shared memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "Bus error"),
        (OSError(errno.ENOSPC, "No space left on device"), "shared memory"),
        ("RuntimeError: unable to open shared memory object: Too many open files", "descriptors"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), None),
        (RuntimeError(""), None),
        (ValueError("something else"), None),
    ],
)
def test_what_is_lacking(error: BaseException | str, lack: str | None) -> None:
    explained = explain_lack(error)
    if lack is None:
        assert explained is None
    else:
        assert lack in str(explained)
        assert "set data.num_workers: 0" in str(explained)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of a worker that ends."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


class TestReasons:
    def test_a_worker_that_cannot_send_ends_and_is_heard(self, exits: list[int]) -> None:
        reasons = WorkerReasons()
        reasons.start.end(ValueError("a\nb" + "c" * 5000), ("index", "batch"))
        assert exits == [1]
        with pytest.raises(DataWorkerError, match=r"cannot hand over a batch: ValueError: a"):
            self.fail(reasons, RuntimeError("DataLoader worker exited unexpectedly"))

    @pytest.mark.parametrize("error", [DataError("shared memory.png", "is missing"), KeyError(3)])
    def test_other_failures_stay_as_they_are(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught:
            self.fail(WorkerReasons(), error)
        assert caught.value is error

    def test_a_thread_without_descriptors_ends_its_worker(
        self, exits: list[int], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """It would accept connections in vain for ever, and the training process wait."""
        reasons = WorkerReasons()
        error = OSError(errno.EMFILE, "Too many open files")
        reasons.start.report(type(error), error, None)
        assert exits == [1]
        reasons.start.report(EOFError, EOFError(), None)
        assert exits == [1]
        assert "Traceback" not in capfd.readouterr().err

    def fail(self, reasons: WorkerReasons, error: Exception) -> None:
        with reasons.explaining():
            raise error


def test_spare_descriptors_are_free_afterwards() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    with spare_descriptors():
        assert count() == before + 8
    assert count() == before


@pytest.mark.parametrize(
    ("error", "is_reported"),
    [(EOFError(), False), (ConnectionResetError(), False), (OSError("disk"), True)],
    ids=["eof", "reset", "other"],
)
def test_worker_says_nothing_of_a_training_that_hung_up(
    error: Exception, is_reported: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    report_unless_abandoned(type(error), error, None)
    assert bool(capfd.readouterr().err) is is_reported


def test_lost_workers_raise_nothing_elsewhere() -> None:
    def raise_it(*_: object) -> None:
        raise RuntimeError("lost")

    calls: list[int] = []
    own: Callable[..., object] = lambda number, _: calls.append(number)  # noqa: E731
    before = signal.signal(signal.SIGCHLD, own)
    try:
        with leaving_child_signal():
            signal.signal(signal.SIGCHLD, raise_it)
        signal.raise_signal(signal.SIGCHLD)
        assert calls == [signal.SIGCHLD]
    finally:
        signal.signal(signal.SIGCHLD, before)
