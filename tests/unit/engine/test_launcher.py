"""Processes that the launcher starts: what they get, how they end, and who is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from msdetr.engine.device import count_cores
from msdetr.engine.launcher import ProcessFailedError, launch
from msdetr.errors import InterruptedRunError

RANK = "import os, signal, sys, time; rank = int(os.environ['RANK']); "
REPORT = "from msdetr.launched import report_failure as report; "


def run(code: str, num_processes: int = 2) -> int:
    """Run Python code, which knows its ``rank``, by several processes."""
    return launch(["-c", RANK + REPORT + code], num_processes)


def test_processes_know_each_other_and_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "OMP_NUM_THREADS")
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join(os.environ[n] for n in {names}))"
    assert run(code) == 0
    threads = max(1, count_cores() // 2)
    found = sorted(path.read_text() for path in tmp_path.iterdir())
    assert found == [f"{rank} 2 {rank} 127.0.0.1 {threads}" for rank in range(2)]
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_threads_that_the_user_has_chosen_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run(f"open(f'{tmp_path}/{{rank}}', 'w').write(os.environ['OMP_NUM_THREADS'])") == 0
    assert [path.read_text() for path in tmp_path.iterdir()] == ["7", "7"]


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [
        ("sys.exit(3) if rank else time.sleep(60)", 3, "process 1 of 2 ended with exit code 3"),
        (
            "os.kill(os.getpid(), signal.SIGKILL) if rank else time.sleep(60)",
            1,
            "process 1 of 2 was killed by SIGKILL; out of memory?",
        ),
        (
            "os.kill(os.getpid(), signal.SIGSEGV) if rank else time.sleep(60)",
            1,
            "process 1 of 2 was killed by SIGSEGV",
        ),
        ("report('no such file'); sys.exit(2)", 2, "no such file"),
        # A killed one leaves no word; that others miss it is less than how it ended.
        (
            "rank and os.kill(os.getpid(), signal.SIGKILL); report('1 is gone', is_elsewhere=True);"
            "sys.exit(1)",
            1,
            "process 1 of 2 was killed by SIGKILL; out of memory?",
        ),
    ],
    ids=["exit code", "killed", "crashed", "twice the same", "lost"],
)
def test_who_failed_first_is_named(
    code: str, exit_code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProcessFailedError) as caught:
        run(code)
    assert (str(caught.value), caught.value.exit_code) == (message, exit_code)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("first", "second", "exit_code"),
    [
        # The second one fails because the first has, and is faster to say so.
        ("report('a.jpg: is damaged'); sys.exit(2)", "report('0 failed', is_elsewhere=True)", 2),
        # The first one was about to stop when the second one's disk was full.
        ("report('stopped'); sys.exit(143)", "report('a.jpg: is damaged'); sys.exit(2)", 2),
    ],
)
def test_what_follows_from_a_failure_is_not_said(
    first: str, second: str, exit_code: int, tmp_path: Path
) -> None:
    meet = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open(f'{tmp_path}/{{rank}}', 'w')\n"
        f"while len(os.listdir('{tmp_path}')) < 2: time.sleep(0.01)\n"
    )
    ends = f"if rank == 0:\n    time.sleep(0.05); {first}\n{second}; sys.exit(1)"
    with pytest.raises(ProcessFailedError, match=r"^a.jpg: is damaged$") as caught:
        run(meet + ends)
    assert caught.value.exit_code == exit_code


def test_a_stop_that_was_reported_is_an_interruption() -> None:
    with pytest.raises(InterruptedRunError, match=r"^saved$") as caught:
        run("report('saved'); sys.exit(143)")
    assert caught.value.exit_code == 143


def interrupt_once_ready(folder: Path, count: int) -> threading.Thread:
    """Send Ctrl-C ``count`` times to this process once both processes have left a file."""

    def send() -> None:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.02)
        for _ in range(count):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def handling_sigint(folder: Path, statement: str) -> str:
    """Code that handles SIGINT so, leaves a file and works for long."""
    return (
        f"signal.signal(signal.SIGINT, lambda *_: {statement}); "
        f"open(f'{folder}/{{rank}}', 'w'); [time.sleep(0.2) for _ in range(600)]"
    )


@pytest.mark.parametrize(("statement", "count"), [("sys.exit(130)", 1), ("None", 3)])
def test_ctrl_c_reaches_all_and_a_third_one_kills(
    tmp_path: Path, statement: str, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with subprocess.Popen(["sleep", "60"]) as other:
        thread = interrupt_once_ready(tmp_path, count)
        began = time.monotonic()
        assert run(handling_sigint(tmp_path, statement)) == 130
        assert time.monotonic() - began < 30
        assert other.poll() is None  # no business of the launcher
        other.kill()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
    assert capfd.readouterr() == ("", "")


def test_one_that_is_ended_while_it_leaves_has_still_been_interrupted(tmp_path: Path) -> None:
    interrupt = interrupt_once_ready(tmp_path, 1)
    leave = "(report('saved'), os.kill(os.getpid(), signal.SIGTERM))"
    with pytest.raises(InterruptedRunError, match=r"^saved$") as caught:
        run(handling_sigint(tmp_path, leave))
    interrupt.join()
    assert caught.value.exit_code == 130


@pytest.mark.parametrize(("handler", "code"), [(signal.SIG_DFL, 129), (signal.SIG_IGN, 0)])
def test_a_lost_terminal_ends_all_unless_it_is_ignored(handler: signal.Handlers, code: int) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert run("rank or os.kill(os.getppid(), signal.SIGHUP); time.sleep(1)") == code
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


SCRIPT = """\
import sys
from msdetr.engine.launcher import launch
code = "from msdetr.launched import settle_in; import time; settle_in();"
launch(["-c", code + "print('ready', flush=True); time.sleep(60)"], 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell of a parent's end")
def test_processes_end_with_the_launcher() -> None:
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        # The second process prints nothing.
        assert launcher.stdout.readline() == "ready\n"
        launcher.kill()
        # The pipe ends when the last process that could write to it has ended.
        assert launcher.stdout.read() == ""
    assert time.monotonic() - began < 60
