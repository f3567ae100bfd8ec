"""The job of a cell: starts its process, stops it, and says why it failed."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer

import pytest

from msdetr.api.study.cell_job import CellJob, StudyRun
from msdetr.api.study.cell_process import CellOrder
from msdetr.process_lock import hold, is_held, read_holder
from msdetr.study.cell import Cell

MakeJob = Callable[..., CellJob]
SLEEP = ("sleep", "60")


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    (tmp_path / "jobs").mkdir()
    return Cell("mixed", 7, tmp_path / "cells" / "mixed" / "seed_7", tmp_path / "jobs")


@pytest.fixture
def make_job(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    """Make a job whose cell's process runs a command, beside further options."""

    def make(
        command: Sequence[str], *, lock_file: Path | None = None, **environment: str
    ) -> CellJob:
        monkeypatch.setattr(CellOrder, "command", lambda _: list(command))
        run = StudyRun("this run", stop_file=tmp_path / "stop", lock_file=lock_file)
        return CellJob(cell, run, "cpu", environment)

    return make


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 0", None),
        ("exit 3", "its process ended with exit code 3"),
        ("kill -KILL $$", "its process was killed by SIGKILL; out of memory?"),
        ("kill -SEGV $$", "its process was killed by SIGSEGV"),
        ("exit 143", None),
        ("exit 130", None),
        ("kill -TERM $$", None),
    ],
)
def test_failures_are_left_in_words_and_stops_are_none(
    make_job: MakeJob, cell: Cell, script: str, error: str | None
) -> None:
    cell.error_file.write_text("of an earlier attempt\n")
    make_job(shell(script))()
    assert cell.error == error
    assert not is_held(cell.lock_file)


def test_what_the_process_said_goes_before_its_exit_code(make_job: MakeJob, cell: Cell) -> None:
    make_job(shell(f"echo no such image > {cell.error_file}; exit 2"))()
    assert cell.error == "no such image"


def test_its_output_is_kept_and_its_environment_is_set(make_job: MakeJob, cell: Cell) -> None:
    for number in ("1", "2"):
        make_job(shell("echo $OMP_NUM_THREADS threads >&2"), OMP_NUM_THREADS=number)()
    assert cell.output_file.read_text() == "1 threads\n2 threads\n"


def test_the_lock_is_held_while_the_process_works(make_job: MakeJob, cell: Cell) -> None:
    code = (
        "import sys; from pathlib import Path; from msdetr.process_lock import is_held\n"
        "sys.exit(0 if is_held(Path(sys.argv[1])) else 9)"
    )
    make_job([sys.executable, "-c", code, str(cell.lock_file)])()
    assert cell.error is None


def test_a_stop_file_stops_it(make_job: MakeJob, cell: Cell, tmp_path: Path) -> None:
    began = time.monotonic()
    Timer(0.5, (tmp_path / "stop").touch).start()
    make_job(SLEEP)()
    assert time.monotonic() - began < 10
    assert cell.error is None


def test_one_that_crashes_while_it_stops_has_not_failed(
    make_job: MakeJob, cell: Cell, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    job = make_job(shell(f"trap 'kill -ABRT $$' TERM; touch {started}; while :; do sleep .1; done"))
    timer = Timer(1.0, (tmp_path / "stop").touch)
    timer.start()
    job()
    timer.join()
    assert started.exists()
    assert cell.error is None


def test_it_stops_when_nobody_looks_after_it(make_job: MakeJob, tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    began = time.monotonic()
    with hold(lock, run="this run"):
        make_job(shell("exit 0"), lock_file=lock)()
    make_job(SLEEP, lock_file=lock)()
    with hold(lock, run="another run"):
        make_job(SLEEP, lock_file=lock)()
    assert time.monotonic() - began < 20


def test_it_goes_on_while_its_run_lives(make_job: MakeJob, cell: Cell, tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with hold(lock, run="this run"):
        make_job(shell("sleep 1.5; echo done"), lock_file=lock)()
    assert cell.output_file.read_text() == "done\n"


def test_two_processes_never_train_one_cell(
    make_job: MakeJob, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msdetr.api.study.cell_job._PATIENCE_SECONDS", 0.3)
    with hold(cell.lock_file):
        holder = read_holder(cell.lock_file)
        make_job(shell("echo trained"))()
    assert cell.error == f"is being trained by {holder} already"
    assert not cell.output_file.exists()


def test_a_preempted_job_stops_its_process_and_is_queued_again(
    make_job: MakeJob, cell: Cell
) -> None:
    job = make_job(shell("trap 'echo saved; exit 143' TERM; sleep 60 & wait"))
    again = []

    def preempt() -> None:
        again.append(job.checkpoint())

    timer = Timer(1.0, preempt)
    timer.start()
    began = time.monotonic()
    job()
    timer.join()
    assert time.monotonic() - began < 10
    assert cell.output_file.read_text() == "saved\n"
    assert cell.error is None
    (submission,) = again
    assert submission.function.cell == cell
    pickle.loads(pickle.dumps(submission.function))  # noqa: S301 - what this test has pickled


def test_jobs_wait_without_torch() -> None:
    code = "import sys, msdetr.api.study.cell_job; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
