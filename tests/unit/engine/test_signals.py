"""Signals, in this process and in a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from msdetr.engine.checkpoint import read_info, read_weights
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.signals import StopRequest, StopSignalError

Start = Callable[..., subprocess.Popen[str]]


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def usual_interrupt() -> Iterator[None]:
    """Python's own handler of SIGINT, which a process started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_interrupt")
def test_a_later_second_interrupt_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        later = time.monotonic() + 2.0
        monkeypatch.setattr("msdetr.engine.signals.time.monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("usual_interrupt")
def test_what_launchers_pass_on_is_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        later = time.monotonic() + 100.0
        monkeypatch.setattr("msdetr.engine.signals.time.monotonic", lambda: later)
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGINT


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert stop.number is None


def test_an_immediate_section_is_left_at_once() -> None:
    with StopRequest() as stop, pytest.raises(StopSignalError) as caught, stop.immediate():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM


def test_an_immediate_section_is_not_entered_after_a_signal() -> None:
    entered = []
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopSignalError), stop.immediate():
            entered.append(1)
    assert not entered


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_a_destructor_is_not_lost() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def use() -> None:
        Dying()

    with StopRequest() as stop, pytest.raises(StopSignalError), stop.immediate():
        use()


def test_other_threads_go_without() -> None:
    notes = []

    def run() -> None:
        with StopRequest() as stop:
            notes.append(stop.number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert notes == [None]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signalled_run_saves_its_state_and_can_go_on(
    start_toy: Start, toy: Any, tmp_path: Path, number: int, code: int
) -> None:
    run = RunDirectory(tmp_path / "run")
    process = start_toy(run.path, "--pause", "0.02", "--epochs", "50")
    wait_for(lambda: run.metrics_file.exists() and run.metrics_file.read_text().count("\n") > 2)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "continue with `resume=True`" in errors
    steps = read_info(run.last)["run_state"]["step"]
    assert steps >= 2
    # To the end of the epoch under way, in this process.
    epochs = steps // 5 + 1
    resumed = toy.make_trainer(run.path, epochs=epochs)
    resumed.resume(run.last)
    resumed.fit()
    toy.make_trainer(tmp_path / "undisturbed", epochs=epochs).fit()
    expected = read_weights(RunDirectory(tmp_path / "undisturbed").last)
    for name, value in read_weights(run.last).items():
        assert value.tolist() == expected[name].tolist()


def test_a_signal_in_evaluation_does_not_wait_for_its_end(start_toy: Start, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    process = start_toy(run.path, "--slow-evaluation")
    assert process.stderr is not None
    while "evaluating" not in process.stderr.readline():
        assert process.poll() is None
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert time.monotonic() - began < 20
    state = read_info(run.last)["run_state"]
    assert (state["epoch"], state["step_in_epoch"]) == (0, 5)
