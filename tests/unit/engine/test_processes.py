"""Two processes over gloo do what one does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from msdetr.engine.checkpoint import read_info, read_weights
from msdetr.engine.metrics_file import read_rows
from msdetr.engine.processes import WAIT_LIMIT, Processes, create_accelerator
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import UsageError

STANDALONE = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
TORCHRUN = (*STANDALONE, "2")
# For several processes on CPUs it wants MPI; what it starts for GPUs may choose the CPU. Port 0 is
# any free one: tests run beside each other.
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--main_process_port", "0"),
)

Start = Callable[..., subprocess.Popen[str]]


def process_of_rank(launcher: int, rank: int) -> int:
    """Process id of a rank that a launcher has started."""
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"rank {rank} is not there")


def test_one_process_agrees_with_itself() -> None:
    processes = Processes(create_accelerator(device="cpu"))
    assert processes.sum([1, 2.5]) == [1.0, 2.5]
    assert processes.gather("a") == ["a"]
    assert processes.broadcast({"ap": None}) == {"ap": None}
    assert processes.is_main


@pytest.mark.parametrize("device", ["tpu0", "mps", "cuda:77", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=device):
        create_accelerator(device=device)


def test_a_launcher_s_accumulation_does_not_divide_the_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = create_accelerator(device="cpu")
    weight = torch.ones(1, requires_grad=True)
    accelerator.backward(3 * weight.sum())
    assert weight.grad is not None
    assert weight.grad.item() == 3.0


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_train_like_one(
    start_toy: Start, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    """Different sizes, dropout, two micro-batches per process, one of them without targets."""
    pair = start_toy(tmp_path / "pair", launcher=launcher)
    single = start_toy(tmp_path / "single")
    for process in (pair, single):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    environments = (tmp_path / name / "environment.json" for name in ("pair", "single"))
    assert [json.loads(file.read_text())["processes"] for file in environments] == [2, 1]
    expected = read_weights(RunDirectory(tmp_path / "single").last, averaged=False)
    for name, value in read_weights(RunDirectory(tmp_path / "pair").last, averaged=False).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0.0)
    rows, other = (
        read_rows(RunDirectory(tmp_path / name).metrics_file) for name in ("pair", "single")
    )
    assert len(rows) == len(other) == 12
    for row, twin in zip(rows, other, strict=True):
        assert row["loss"] == pytest.approx(twin["loss"], rel=1e-5)
        assert row["terms"] == pytest.approx(twin["terms"], rel=1e-5)
        # Neither clipping nor AdamW would let a gradient of the wrong size show in the weights.
        assert row.get("grad_norm", 0) == pytest.approx(twin.get("grad_norm", 0), rel=1e-4)


def test_all_processes_stop_when_one_diverges(start_toy: Start, tmp_path: Path) -> None:
    process = start_toy(tmp_path / "run", "--nan-at", "2", launcher=TORCHRUN)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    # Micro-batch 1 runs on the second process; both processes name it.
    assert errors.count("micro-batch 1, images 21: total = nan, main/square = nan") == 2
    assert "step 3 (epoch 1)" in (tmp_path / "run" / "train.log").read_text()


def test_all_processes_stop_when_one_is_signalled(start_toy: Start, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    process = start_toy(run.path, "--pause", "0.02", "--epochs", "500", launcher=TORCHRUN)
    while not run.metrics_file.exists() or run.metrics_file.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process_of_rank(process.pid, 1), signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    # What torchrun makes of 143, which it takes for a signal of its own.
    assert errors.count("exitcode  : 143") == 2, errors
    stopped = re.findall(r"stopped by SIGTERM after step (\d+)", errors)
    assert len(stopped) == 2
    assert len(set(stopped)) == 1
    state = read_info(run.last)["run_state"]
    assert str(state["step"]) == stopped[0]


def test_the_others_wait_for_rank_0(start_toy: Start, tmp_path: Path) -> None:
    """The limit is what ends the wait, and it is far beyond any evaluation or build."""
    assert timedelta(hours=6) <= WAIT_LIMIT
    options = ("--evaluation-seconds", "8", "--wait-seconds")
    patient, hasty = (
        start_toy(tmp_path / limit, *options, limit, "--epochs", "1", launcher=TORCHRUN)
        for limit in ("600", "3")
    )
    _, errors = patient.communicate(timeout=300)
    assert patient.returncode == 0, errors
    _, errors = hasty.communicate(timeout=300)
    assert hasty.returncode != 0
    assert re.search("[Tt]imed ?out", errors), errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "killed", "options"),
    [(2, 0, ()), (4, 2, ()), (4, 1, ("--evaluation-seconds", "60"))],
    ids=["the first of two", "one of four", "one of four that wait for the first's evaluation"],
)
def test_all_name_the_one_that_was_killed(
    start_toy: Start, tmp_path: Path, processes: int, killed: int, options: tuple[str, ...]
) -> None:
    """Also those that lose the connection only because others have left."""
    run = RunDirectory(tmp_path / "run")
    pause = ("--pause", "0.02") if not options else ()
    launcher = (*STANDALONE, str(processes))
    process = start_toy(run.path, "--epochs", "500", *pause, *options, launcher=launcher)
    num_rows = 5 if options else 3
    while not run.metrics_file.exists() or run.metrics_file.read_text().count("\n") < num_rows:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process_of_rank(process.pid, killed), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count(f"process {killed} of {processes} is gone: ") == processes - 1, errors
    assert errors.count(" gone: ") == processes - 1, errors
    assert errors.count("Traceback") == 1  # torchrun's own
