"""One training run per directory."""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from msdetr.engine.processes import Processes, create_accelerator
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_lock import holding_run
from msdetr.errors import RunDirectoryError
from msdetr.process_lock import is_held


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes(create_accelerator(device="cpu"))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "mine")


def test_a_second_one_is_told_who_trains(run: RunDirectory, processes: Processes) -> None:
    with holding_run(run, processes):
        run.create(recipe_text="x: 1\n", environment={})
        with pytest.raises(RunDirectoryError) as caught, holding_run(run, processes):
            pass
        assert str(caught.value) == (
            f"{run.path}: is being trained by process {os.getpid()} on {socket.gethostname()}; "
            "wait for it to end, or give another `output`"
        )
        assert is_held(run.lock_file)
    assert not run.lock_file.exists()
    assert run.holds_run


def test_a_new_run_is_not_hindered_by_its_own_lock(run: RunDirectory, processes: Processes) -> None:
    with holding_run(run, processes):
        run.check_free()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RunDirectoryError("run", "refused")])
def test_nothing_is_left_of_a_run_that_never_began(
    run: RunDirectory, processes: Processes, tmp_path: Path, failure: BaseException
) -> None:
    with pytest.raises((KeyboardInterrupt, RunDirectoryError)), holding_run(run, processes):
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_stay(run: RunDirectory, processes: Processes) -> None:
    run.path.mkdir(parents=True)
    with holding_run(run, processes):
        pass
    assert list(run.path.parent.iterdir()) == [run.path]


def test_what_a_killed_run_left_is_taken_over(run: RunDirectory, processes: Processes) -> None:
    run.path.mkdir(parents=True)
    run.lock_file.write_text('{"pid": 1, "host": "elsewhere", "run": ""}')
    with holding_run(run, processes):
        assert is_held(run.lock_file)
    assert not run.lock_file.exists()


def test_the_main_process_holds_it_for_the_others(run: RunDirectory, processes: Processes) -> None:
    other = copy.copy(processes)
    other.rank = 1
    with holding_run(run, processes), holding_run(run, other):
        assert is_held(run.lock_file)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_line_says_so(
    run: RunDirectory,
    processes: Processes,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with holding_run(run, processes):
        run.create(recipe_text="x: 1\n", environment={})
    assert capsys.readouterr().err == (
        f"{run.lock_file}: cannot be locked ({os.strerror(number)}); make sure that no second "
        "training run uses this directory\n"
    )


def test_a_place_that_cannot_be_is_refused(run: RunDirectory, processes: Processes) -> None:
    run.path.parent.mkdir()
    run.path.write_text("")
    with pytest.raises(RunDirectoryError, match=r"mine: is a file"), holding_run(run, processes):
        pass
    inside = RunDirectory(run.path / "inside")
    with (
        pytest.raises(RunDirectoryError, match="cannot be written"),
        holding_run(inside, processes),
    ):
        pass


def test_a_read_only_place_is_refused(
    small_disk: Callable[..., Path], processes: Processes
) -> None:
    run = RunDirectory(small_disk(100_000, "ro") / "mine")
    with pytest.raises(RunDirectoryError, match="is read-only"), holding_run(run, processes):
        pass
