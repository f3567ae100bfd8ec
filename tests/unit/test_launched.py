"""A process that knows it was started as one of several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msdetr.launched import Failure, is_launched, launcher_variables, report_failure

CODE = "from msdetr.launched import settle_in; settle_in(); print('result', flush=True); {}"


def run(rank: str, then: str = "pass", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a process that settles in, prints a result and does something else."""
    return subprocess.run(
        [sys.executable, "-c", CODE.format(then)],
        env={**os.environ, "RANK": rank, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_process_alone_prints_results() -> None:
    said = [run(rank, **launcher_variables()).stdout for rank in ("0", "1")]
    assert said == ["result\n", ""]


def test_a_process_of_another_launcher_is_none() -> None:
    assert run("1").stdout == "result\n"
    assert run("1", MSDETR_LAUNCHER="1").stdout == "result\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell of a launcher's end")
@pytest.mark.parametrize("is_awaited", [True, False])
def test_a_process_whose_launcher_has_ended_does_nothing(is_awaited: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.read()
        if is_awaited:
            launcher.wait()
        else:
            time.sleep(1)  # its output ends shortly before it does
        done = run("1", MSDETR_LAUNCHER=str(launcher.pid))
    assert (done.returncode, done.stdout) == (143, "")


def test_its_failure_is_left_for_the_launcher(tmp_path: Path) -> None:
    then = "from msdetr.launched import report_failure; print(report_failure('a: is empty'))"
    file = tmp_path / "error.json"
    done = run("0", then, **launcher_variables(), TORCHELASTIC_ERROR_FILE=str(file))
    assert done.stdout == "result\nTrue\n"
    failure = Failure.of(json.loads(file.read_text()))
    assert failure is not None
    assert (failure.message, failure.is_elsewhere) == ("a: is empty", False)


def test_what_cannot_be_left_is_to_be_said(tmp_path: Path) -> None:
    then = "from msdetr.launched import report_failure; print(report_failure('a: is empty'))"
    nowhere = {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "missing" / "error.json")}
    assert run("0", then, **launcher_variables(), **nowhere).stdout == "result\nFalse\n"


def test_this_process_was_started_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert not is_launched()
    assert not report_failure("a: is empty")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [{}, {"message": "<NONE>"}, {"message": "x", "other": 1}])
def test_what_torch_leaves_is_no_failure_of_ours(content: dict[str, object]) -> None:
    assert Failure.of(content) is None
