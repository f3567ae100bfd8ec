"""When one process of a run fails, all stop at once, say so, and the run goes on exactly."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SECONDS_TO_STOP = 60.0
PROCESSES, KILLED = 4, 2
EPOCHS = ("--set", "train.epochs=2")

Run = Callable[..., None]
Rows = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, run: Run, small: list[str]) -> Path:
    """The run of four processes that nobody kills."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    run((PROCESSES, [*small, *EPOCHS, "--output", output]))
    return output


def sums_of(run_dir: Path) -> list[str]:
    """Digests of the weights and the optimizer's state of the last checkpoint."""
    lines = (run_dir / "checkpoints" / "last" / "SHA256SUMS").read_text().splitlines()
    return [line for line in lines if not line.endswith("checkpoint.json")]


def info_of(run_dir: Path) -> dict[str, Any]:
    """What the last checkpoint says beside them."""
    info: dict[str, Any] = json.loads(
        (run_dir / "checkpoints" / "last" / "checkpoint.json").read_text()
    )
    return info


def steps_saved(run_dir: Path) -> int:
    """Steps of the last checkpoint."""
    return int(info_of(run_dir)["run_state"]["step"])


def process_of_rank(launcher: int, rank: int) -> int:
    """Process id of a rank that a launcher has started."""
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"rank {rank} is not there")


@pytest.fixture
def killed(tmp_path: Path, small: list[str], environment: dict[str, str]) -> tuple[Path, str]:
    """A run under torchrun of which one process was killed in the second epoch; what was said."""
    output = tmp_path / "run"
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES))
    launcher = subprocess.Popen(
        [sys.executable, *launch, "-m", "msdetr.cli", *small, *EPOCHS, "--output", str(output)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        metrics = output / "metrics.jsonl"
        # Three steps and the row of the first epoch, then a step of the second.
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert launcher.poll() is None, launcher.communicate()
            time.sleep(0.01)
        os.kill(process_of_rank(launcher.pid, KILLED), signal.SIGKILL)
        _, said = launcher.communicate(timeout=SECONDS_TO_STOP)
    finally:
        launcher.kill()
    assert launcher.returncode != 0
    return output, said


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_a_killed_process_stops_the_run(
    undisturbed: Path, killed: tuple[Path, str], small: list[str], run: Run, rows_of: Rows
) -> None:
    output, said = killed
    assert re.search(rf"rank +: {KILLED} .*\n +exitcode +: -9 ", said), said
    named = f"error: process {KILLED} of {PROCESSES} is gone: killed, crashed or out of reach"
    assert said.count(named) == PROCESSES - 1, said
    assert steps_saved(output) >= 4
    run((PROCESSES, [*small, *EPOCHS, "--output", output, "--resume"]))
    info, expected = info_of(output), info_of(undisturbed)
    assert info.pop("costs").keys() == expected.pop("costs").keys()
    assert info == expected
    assert sums_of(output) == sums_of(undisturbed)
    assert rows_of(output) == rows_of(undisturbed)


def test_an_image_that_fails_one_process_stops_all_in_order(
    undisturbed: Path, truncated_image: Path, data_root: Path, small: list[str], request: Any
) -> None:
    root = truncated_image.parents[1]
    output = root.with_name("run")
    words = [*small, *EPOCHS, "--set", f"data.root={root}", "--output", str(output)]
    codes, said = request.getfixturevalue("run_ranks")((PROCESSES, words))
    assert codes == [[1, 2, 1, 1]], said
    assert said.count(f"process 1 of 4 failed: {truncated_image}: ") == PROCESSES - 1
    assert "Traceback" not in said
    assert steps_saved(output) == 1
    shutil.copy(data_root / "train2017" / truncated_image.name, truncated_image)
    request.getfixturevalue("run")((PROCESSES, [*words, "--resume"]))
    # The recipes name different places of the data.
    assert sums_of(output) == sums_of(undisturbed)
