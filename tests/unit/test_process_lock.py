"""Locks end with the processes that hold them."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msdetr.process_lock import HeldError, hold, is_held, note_holder, read_holder


def test_a_lock_is_held_inside_the_block_only(tmp_path: Path) -> None:
    file = tmp_path / "jobs" / "cell.lock"
    assert not is_held(file)
    with hold(file, run="first"):
        assert is_held(file)
        holder = read_holder(file)
        assert holder is not None
        assert (holder.pid, holder.host, holder.run) == (os.getpid(), socket.gethostname(), "first")
        with pytest.raises(HeldError, match=f"process {os.getpid()} on "), hold(file):
            pass
        assert is_held(file)
    assert not is_held(file)


def test_a_child_that_inherits_it_holds_it_on(tmp_path: Path) -> None:
    file = tmp_path / "cell.lock"
    with hold(file) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
        note_holder(descriptor, child.pid)
    assert is_held(file)
    with pytest.raises(HeldError, match=f"process {child.pid} on "), hold(file):
        pass
    child.kill()
    child.wait()
    with hold(file, wait_seconds=5):
        assert is_held(file)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cell.lock"
    code = (
        "import sys, time; from pathlib import Path; from msdetr.process_lock import hold\n"
        "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(file)
        holder.kill()
    assert not is_held(file)


def test_waiting_ends_in_time(tmp_path: Path) -> None:
    file = tmp_path / "cell.lock"
    with hold(file):
        began = time.monotonic()
        with pytest.raises(HeldError), hold(file, wait_seconds=0.3):
            pass
        assert 0.3 <= time.monotonic() - began < 5


def test_a_lock_that_says_nothing_has_no_holder(tmp_path: Path) -> None:
    (tmp_path / "cell.lock").write_text("")
    assert read_holder(tmp_path / "cell.lock") is None
    assert read_holder(tmp_path / "none.lock") is None


def test_the_file_is_left_for_those_who_ask_or_removed(tmp_path: Path) -> None:
    with hold(tmp_path / "kept.lock"), hold(tmp_path / "gone.lock", keep_file=False):
        assert is_held(tmp_path / "gone.lock")
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.lock"]


def test_a_lock_on_a_removed_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last holder removes its file between another's opening and locking of it."""
    file, lock, times = tmp_path / "run" / "run.lock", fcntl.flock, []

    def remove_and_lock(descriptor: int, operation: int) -> None:
        times.append(operation)
        if len(times) == 1:
            file.unlink()
            file.parent.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with hold(file):
        assert len(times) == 2
        assert is_held(file)


def test_a_forked_child_holds_nothing_on(tmp_path: Path) -> None:
    file = tmp_path / "run.lock"
    code = (
        "import os, sys, time; from pathlib import Path; from msdetr.process_lock import hold\n"
        "with hold(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert is_held(file)
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        try:
            with hold(file, wait_seconds=5):
                assert is_held(file)
        finally:
            os.kill(child, signal.SIGKILL)
