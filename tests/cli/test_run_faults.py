"""What can break around a training: the disk, the rights, the processes that read images."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.engine.records import RunRecords
from msdetr.engine.run_state import RunState
from msdetr.engine.step_report import StepReport

Train = Callable[..., Any]
Disk = Callable[..., Path]


def sums_of(run: Path) -> list[str]:
    """Digests of the weights and the optimizer's state."""
    lines = (run / "checkpoints" / "last" / "SHA256SUMS").read_text().splitlines()
    return [line for line in lines if not line.endswith("checkpoint.json")]


@contextmanager
def after_step(num_step: int, act: Callable[[], None]) -> Iterator[None]:
    """Do something when a step is finished."""
    record = RunRecords.step

    def record_and_act(self: RunRecords, state: RunState, report: StepReport) -> None:
        record(self, state, report)
        if state.step == num_step:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecords, "step", record_and_act)
        yield


def fill_up(path: Path, num_bytes: int) -> None:
    """Append to a file until the disk is full."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(num_bytes))


def test_full_disk_leaves_the_previous_checkpoint(
    run_dir: Path, small_disk: Disk, train: Train
) -> None:
    size = sum(file.stat().st_size for file in (run_dir / "checkpoints/last").iterdir())
    disk = small_disk(10 * size)
    output, ballast = disk / "run", disk / "ballast"

    def fill() -> None:
        # The first epoch's two checkpoints are there; half of one more has room.
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write_bytes(bytes(free - size // 2))

    with after_step(3, fill):
        stopped = train(output)
    assert (stopped.code, stopped.out) == (1, "")
    assert "Traceback" not in stopped.err
    assert "last: cannot save the checkpoint: No space left on device" in stopped.err
    info = json.loads((output / "checkpoints/last/checkpoint.json").read_text())
    assert info["run_state"]["epoch"] == 1
    assert not list(output.glob("checkpoints/*.new"))
    ballast.unlink()
    resumed = train(output, "--resume")
    assert resumed.code == 0, resumed.err
    assert sums_of(output) == sums_of(run_dir)


def test_disk_without_room_for_a_row_stops_in_one_line(small_disk: Disk, train: Train) -> None:
    disk = small_disk(4_000_000)
    output = disk / "run"

    def fill() -> None:
        fill_up(disk / "ballast", 4096)
        # The last page of the metrics file still has room for some rows.
        fill_up(output / "metrics.jsonl", 64)

    with after_step(1, fill):
        stopped = train(output)
    assert (stopped.code, stopped.out) == (1, "")
    assert f"{output}: No space left on device; what was saved before is" in stopped.err
    assert "Traceback" not in stopped.err
    assert "Logging error" not in stopped.err


def test_read_only_output_is_refused(
    small_disk: Disk, msdetr: Train, tiny: list[str], shapes_root: Path
) -> None:
    assert shapes_root.is_dir()
    disk = small_disk(100_000, "ro")
    done = msdetr("train", "shapes_tiny", "--output", disk / "run", "--device", "cpu", *tiny)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"error: {disk / 'run'}: cannot be written: {disk} is read-only or needs other rights; "
        "give another --output"
    ]


def test_dead_data_worker_is_one_line_and_resumable(
    run_dir: Path, tmp_path: Path, train: Train
) -> None:
    output, worker = tmp_path / "run", ("--set", "data.num_workers=1")
    killed: list[int] = []

    def kill_worker() -> None:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    with after_step(1, kill_worker):
        stopped = train(output, *worker)
    assert (stopped.code, stopped.out) == (1, ""), stopped.err
    last_line = stopped.err.splitlines()[-1]
    # Which of the two depends on whether it was just handing over a batch.
    who = f"error: a data worker (process {killed[0]}", "error: a data worker died"
    assert last_line.startswith(who)
    assert "smaller data.num_workers" in last_line
    assert "is saved in" in stopped.err
    assert "Traceback" not in stopped.err
    assert train(output, *worker, "--resume").code == 0
    assert sums_of(output) == sums_of(run_dir)


def test_full_shared_memory_stops_with_the_ways_out_and_keeps_the_state(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a full /dev/shm does in a worker, which inherits the patch; truly in the unit test."""
    output, sign, share = tmp_path / "run", tmp_path / "full", torch.UntypedStorage._share_fd_cpu_

    def refuse_if_full(storage: torch.UntypedStorage) -> object:
        if sign.exists():
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>")
        return share(storage)

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse_if_full)
    options = ("--set", "data.num_workers=1", "--set", "evaluation.every_epochs=2")
    with after_step(2, sign.touch):
        stopped = train(output, *options)
    assert (stopped.code, stopped.out) == (1, ""), stopped.err
    last_line = stopped.err.splitlines()[-1]
    assert last_line.startswith("error: the data workers ran out of shared memory (RuntimeError: ")
    assert "--shm-size=8g" in last_line
    assert "data.num_workers: 0" in last_line
    assert "is saved in" in stopped.err
    info = json.loads((output / "checkpoints/last/checkpoint.json").read_text())
    assert info["run_state"]["step"] == 2
