"""A cell's process ends with the one that waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """\
import json, sys, time, types
training = types.ModuleType("msdetr.api.train")
def train(*_, **__):
    print("training", flush=True)
    {what}
training.train = train
sys.modules["msdetr.api.train"] = training
from msdetr.api.study.cell_process import CellOrder, main
sys.exit(main(CellOrder(**json.loads({order!r}), parent=int(sys.argv[1]))))
"""
PARENT = "import os, subprocess, sys; subprocess.run([*sys.argv[1:], str(os.getpid())])"


def write_script(tmp_path: Path, what: str) -> Path:
    """Write the process of a cell whose training is a stub; it takes its parent's id."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("extends: shapes_tiny\n")
    order = {
        "recipe": str(recipe),
        "output": str(tmp_path / "run"),
        "device": "cpu",
        "error_file": str(tmp_path / "error"),
    }
    script = tmp_path / "process.py"
    script.write_text(SCRIPT.format(what=what, order=json.dumps(order)))
    return script


def start(tmp_path: Path, what: str, parent: int | None = None) -> subprocess.Popen[str]:
    """Start such a process."""
    words = [str(write_script(tmp_path, what)), str(parent or os.getpid())]
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("what", "code", "error"),
    [
        ("raise ValueError('of an\\n odd kind')", 1, "ValueError: of an odd kind\n"),
        (
            "from msdetr.errors import DataError; raise DataError('a.json', 'is empty')",
            2,
            "a.json: is empty\n",
        ),
    ],
)
def test_failures_are_reported_in_one_line(
    tmp_path: Path, what: str, code: int, error: str
) -> None:
    process = start(tmp_path, what)
    _, said = process.communicate()
    assert process.returncode == code, said
    assert (tmp_path / "error").read_text() == error
    assert ("Traceback" in said) == (code == 1)


def test_an_interrupted_training_is_no_failure(tmp_path: Path) -> None:
    what = "from msdetr.errors import InterruptedRunError; raise InterruptedRunError(15, 'saved')"
    process = start(tmp_path, what)
    assert process.wait() == 143
    assert not (tmp_path / "error").exists()


def test_nothing_begins_without_the_one_that_waits(tmp_path: Path) -> None:
    process = start(tmp_path, "pass", parent=1)
    said, _ = process.communicate()
    assert (process.returncode, said) == (143, "")


def test_signals_of_a_cluster_do_not_end_it(tmp_path: Path) -> None:
    process = start(tmp_path, "time.sleep(1.5); sys.exit(7)")
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 7


def test_it_is_terminated_when_the_one_that_waits_dies(tmp_path: Path) -> None:
    script = write_script(tmp_path, "time.sleep(60)")
    command = [sys.executable, "-c", PARENT, sys.executable, str(script)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "training\n"
        parent.kill()
        # The pipe ends when the last process that could write to it has ended.
        assert parent.stdout.read() == ""
    assert time.monotonic() - began < 30
