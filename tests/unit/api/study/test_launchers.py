"""Jobs beside each other on this machine, and under stand-ins for SLURM's commands."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from msdetr.api.study.cell_job import CellJob, StudyRun
from msdetr.api.study.launchers import Launcher, LocalLauncher, SlurmLauncher
from msdetr.errors import MsdetrError, UsageError
from msdetr.study.cell import Cell

# What a job is pickled from must not be imported where it runs.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SBATCH = """\
cp "$1" "$SLURM_FOLDER/script"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
export SLURM_FILE="$SLURM_FOLDER/script" SLURM_PROCID=0 SLURM_ARRAY_JOB_ID=70
[ -n "$last" ] || unset SLURM_ARRAY_JOB_ID
for task in $(seq 0 "${last:-0}"); do
  [ -z "$last" ] || export SLURM_ARRAY_TASK_ID="$task"
  SLURM_JOB_ID=70 bash "$SLURM_FILE" >/dev/null 2>&1 &
done
echo "Submitted batch job 70"
"""
STAND_INS = {
    "sbatch": SBATCH,
    "srun": 'while [ "${1#--}" != "$1" ]; do\n  case "$1" in --unbuffered) shift;; *) shift 2;; '
    'esac\ndone\nexec "$@"',
    "sacct": 'echo "JobID|State|NodeList"\n[ ! -e "$SLURM_FOLDER/cancelled" ] || '
    "printf '70_0|CANCELLED|n1\\n70_1|CANCELLED|n1\\n'",
    "scancel": 'touch "$SLURM_FOLDER/cancelled"',
    "scontrol": '[ "$1" = requeue ] && (sleep 1; bash "$SLURM_FILE" >/dev/null 2>&1) &',
}


@dataclass
class NotedJob(CellJob):
    """Notes when it runs and how, instead of training a cell."""

    def __call__(self) -> None:
        blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        attempts = self._attempts()
        self._note_attempt({"began": time.time(), "pid": os.getpid(), "blocked": blocked})
        # The first attempt at a cell of seed 9 waits to be preempted.
        time.sleep(60 if self.cell.seed == 9 and not attempts else 0.7)
        self._note_attempt({"ended": time.time(), **self.environment})

    def _attempts(self) -> list[str]:
        file = self.cell.output_file
        return file.read_text().splitlines() if file.exists() else []

    def _note_attempt(self, values: dict[str, object]) -> None:
        with self.cell.output_file.open("a") as file:
            file.write(json.dumps(values) + "\n")


MakeJobs = Callable[[Sequence[int]], list[CellJob]]


@pytest.fixture
def make_jobs(tmp_path: Path) -> MakeJobs:
    (tmp_path / "jobs").mkdir()
    run = StudyRun("this run", stop_file=tmp_path / "stop", lock_file=None)

    def make(seeds: Sequence[int]) -> list[CellJob]:
        cells = [
            Cell("mixed", seed, tmp_path / f"cells/mixed/seed_{seed}", tmp_path / "jobs")
            for seed in seeds
        ]
        return [NotedJob(cell, run, "cpu", {"THREADS": "1"}) for cell in cells]

    return make


def notes_of(job: CellJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in job.cell.output_file.read_text().splitlines()]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_to_end(launcher: Launcher) -> list[str]:
    ended: list[str] = []

    def is_over() -> bool:
        ended.extend(launcher.take_ended())
        return not launcher.is_busy

    wait_until(is_over)
    return ended


def test_no_more_jobs_than_slots_run_at_a_time(make_jobs: MakeJobs, tmp_path: Path) -> None:
    jobs = make_jobs([1, 2, 3])
    launcher = LocalLauncher(tmp_path / "files", [{"GPU": "a"}, {"GPU": "b"}])
    launcher.launch(jobs)
    assert sorted(run_to_end(launcher)) == ["mixed/seed_1", "mixed/seed_2", "mixed/seed_3"]
    notes = [notes_of(job) for job in jobs]
    assert notes[2][0]["began"] >= min(each[1]["ended"] for each in notes[:2])
    assert {each[1]["GPU"] for each in notes[:2]} == {"a", "b"}
    assert all(each[1]["THREADS"] == "1" for each in notes)


def test_interrupts_of_the_terminal_do_not_reach_jobs(make_jobs: MakeJobs, tmp_path: Path) -> None:
    jobs = make_jobs([1])
    launcher = LocalLauncher(tmp_path / "files", [{}])
    launcher.launch(jobs)
    run_to_end(launcher)
    assert notes_of(jobs[0])[0]["blocked"] is True
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_stopped_launcher_starts_no_further_jobs(make_jobs: MakeJobs, tmp_path: Path) -> None:
    launcher = LocalLauncher(tmp_path / "files", [{}])
    launcher.launch(make_jobs([1, 2]))
    launcher.stop()
    assert run_to_end(launcher) == ["mixed/seed_1"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins for SLURM's commands on the path; return the folder of what they leave."""
    commands, folder = tmp_path / "bin", tmp_path / "slurm"
    commands.mkdir()
    folder.mkdir()
    for name, text in STAND_INS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_FOLDER", str(folder))
    return folder


def test_an_array_with_the_settings_asked_for(
    slurm: Path, make_jobs: MakeJobs, tmp_path: Path
) -> None:
    jobs = make_jobs([1, 2])
    settings = {"time": 600, "partition": "gpu", "cpus_per_task": 3}
    launcher = SlurmLauncher(tmp_path / "files", settings, num_workers=1)
    launcher.launch(jobs)
    assert sorted(run_to_end(launcher)) == ["mixed/seed_1", "mixed/seed_2"]
    assert all(len(notes_of(job)) == 2 for job in jobs)
    script = (slurm / "script").read_text()
    for flag in ("array=0-1%1", "time=600", "partition=gpu", "cpus-per-task=3", "job-name=msdetr"):
        assert f"#SBATCH --{flag}\n" in script


def test_a_preempted_job_is_queued_again(slurm: Path, make_jobs: MakeJobs, tmp_path: Path) -> None:
    (job,) = make_jobs([9])
    launcher = SlurmLauncher(tmp_path / "files", {}, num_workers=None)
    launcher.launch([job])
    wait_until(lambda: job.cell.output_file.exists() and len(notes_of(job)) == 1)
    os.kill(notes_of(job)[0]["pid"], signal.SIGUSR2)
    assert run_to_end(launcher) == ["mixed/seed_9"]
    notes = notes_of(job)
    assert ["began" in note for note in notes] == [True, True, False]
    assert slurm.is_dir()


def test_stopping_cancels_what_waits_in_the_queue(
    slurm: Path, make_jobs: MakeJobs, tmp_path: Path
) -> None:
    (slurm.parent / "bin" / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 70\n")
    launcher = SlurmLauncher(tmp_path / "files", {}, num_workers=None)
    launcher.launch(make_jobs([1, 2]))
    assert launcher.take_ended() == []
    launcher.stop()
    assert sorted(run_to_end(launcher)) == ["mixed/seed_1", "mixed/seed_2"]


def test_what_slurm_refuses_is_said(slurm: Path, make_jobs: MakeJobs, tmp_path: Path) -> None:
    refusal = "sbatch: error: invalid partition specified: gpuu"
    script = f"#!/bin/sh\necho {refusal} >&2\nexit 1\n"
    (slurm.parent / "bin" / "sbatch").write_text(script)
    launcher = SlurmLauncher(tmp_path / "files", {}, num_workers=None)
    with pytest.raises(MsdetrError) as caught:
        launcher.launch(make_jobs([1, 2]))
    assert str(caught.value) == f"SLURM did not accept the jobs: {refusal}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partitoin": "gpu"}, "`slurm`: unknown setting 'partitoin'; did you mean 'partition'?"),
        ({"x": 1}, "`slurm`: unknown setting 'x'; expected account, additional_parameters,"),
        ({"time": "10:00"}, "`slurm`: time must be whole minutes, got '10:00'"),
    ],
)
def test_settings_that_slurm_does_not_have(
    slurm: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        SlurmLauncher(tmp_path / "files", settings, num_workers=None)
    assert str(caught.value).startswith(message)
    assert slurm.is_dir()


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch is not on the PATH of this machine"):
        SlurmLauncher(tmp_path / "files", {}, num_workers=None)
