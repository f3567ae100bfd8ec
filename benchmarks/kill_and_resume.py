"""Kill training runs with SIGKILL at random moments, resume them, and compare every bit.

Run: ``python benchmarks/kill_and_resume.py --trials 20``

Each trial trains a small MS-DETR on generated shapes (augmentation, dropout, an average of the
weights, two data workers, three epochs with an evaluation after each), kills it, resumes it with
``--resume`` and compares all checkpoints, the metrics and the detections with those of an
undisturbed run. Every second kill waits for a checkpoint to be under way. The runs are
``msdetr train`` in processes of their own, forked from this one to save their start.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from unittest import mock

import torch
import yaml
from accelerate import Accelerator  # noqa: F401 - imported once, before the runs are forked

import msdetr.api.train  # noqa: F401

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
FIELDS = {
    **yaml.safe_load(TINY.read_text()),
    "model.dropout": 0.1,
    "data.num_workers": 2,
    "data.shapes": "{num_train: 16, num_val: 4}",
    "data.augmentation.crop_probability": 0.5,
    "data.augmentation.crop_pre_sizes": "[72, 96]",
    "data.augmentation.crop_min": 48,
    "data.augmentation.crop_max": 72,
    "train.lr": 5e-4,
    "train.epochs": 3,
    "train.keep_every_epochs": 1,
    "train.ema": "{decay: 0.9}",
}
# Rows differ in these: they tell how fast the machine was.
TIMING = ("images_per_second", "memory_mib", "cost")
POLL_SECONDS = 0.001


@dataclass(frozen=True)
class Undisturbed:
    """The undisturbed run.

    Attributes:
        content: Digest of everything that it left, by name.
        seconds: How long it took.
        writes: When each checkpoint was begun and how long its writing took, in seconds.
    """

    content: dict[str, str]
    seconds: float
    writes: list[tuple[float, float]]


@dataclass(frozen=True)
class Trial:
    """One killed and resumed run.

    Attributes:
        moment: Seconds from the start to the kill.
        found: What lay in the directory after it.
        is_torn: Whether a checkpoint was being written or replaced.
        differences: What the resumed run left that is not as in the undisturbed one.
    """

    moment: float
    found: str
    is_torn: bool
    differences: list[str]


def start_training(output: Path) -> int:
    """Fork a training run that continues what is in ``output``; return its process id."""
    log = output.with_suffix(".log").open("a")
    pid = os.fork()
    if pid:
        log.close()
        return pid
    code = 1
    try:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        words = [word for key, value in FIELDS.items() for word in ("--set", f"{key}={value}")]
        command = ["train", "shapes_tiny", "--device", "cpu", "--output", str(output), "--resume"]
        # What follows the last checkpoint is left out: it draws a report of the finished run.
        with mock.patch("msdetr.api.train.report_run"):
            code = importlib.import_module("msdetr.cli.main").main([*command, *words])
    finally:
        os._exit(code)


def wait_for(pid: int) -> int:
    """Return the exit code of a process; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def has_ended(pid: int) -> bool:
    """Return whether a child has ended; leaves it to ``wait_for``."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def digest_run(output: Path) -> dict[str, str]:
    """Digest every checkpoint file, the metrics and the detections, all without timing."""
    files = [*output.glob("checkpoints/*/*"), *output.glob("evaluation/*")]
    content = {str(path.relative_to(output)): _untimed(path) for path in files}
    rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    kept = [{k: v for k, v in row.items() if k not in TIMING} for row in rows]
    content["metrics.jsonl"] = json.dumps(kept).encode()
    return {name: sha256(value).hexdigest() for name, value in content.items()}


def _untimed(path: Path) -> bytes:
    """Read a file without what depends on the time that a run took."""
    if path.name == "SHA256SUMS":
        lines = path.read_text().splitlines()
        return "\n".join(line for line in lines if "checkpoint.json" not in line).encode()
    if path.name not in {"checkpoint.json", "metrics.json"}:
        return path.read_bytes()
    document = json.loads(path.read_text())
    return json.dumps({k: v for k, v in document.items() if k not in {"cost", "costs"}}).encode()


def is_writing(output: Path) -> bool:
    """Return whether a checkpoint is being written or replaced."""
    try:
        return any(p.suffix in (".new", ".old") for p in (output / "checkpoints").iterdir())
    except FileNotFoundError:
        return False


def run_undisturbed(output: Path) -> Undisturbed:
    """Train to the end, noting when checkpoints are written."""
    pid, began = start_training(output), time.perf_counter()
    writes: list[tuple[float, float]] = []
    since: float | None = None
    while not has_ended(pid):
        now, writing = time.perf_counter() - began, is_writing(output)
        if writing and since is None:
            since = now
        elif not writing and since is not None:
            writes.append((since, now - since))
            since = None
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - began
    if wait_for(pid) != 0:
        raise SystemExit(output.with_suffix(".log").read_text())
    return Undisturbed(digest_run(output), seconds, writes)


def kill_in_write(pid: int, output: Path, turn: int, delay: float) -> None:
    """Kill a training run ``delay`` seconds after its checkpoint number ``turn`` was begun."""
    writing = False
    while not has_ended(pid):
        before, writing = writing, is_writing(output)
        turn -= writing and not before
        if turn < 0:
            time.sleep(delay)
            break
        time.sleep(POLL_SECONDS)
    os.kill(pid, signal.SIGKILL)


def describe(output: Path) -> str:
    """Describe what a kill left: the last checkpoint's step, and names of incomplete files."""
    checkpoints = sorted(path.name for path in output.glob("checkpoints/*"))
    return " ".join(checkpoints) or "no checkpoint"


def kill_and_resume(
    output: Path, expected: Undisturbed, chance: random.Random, *, in_write: bool
) -> Trial:
    """Train, kill, resume to the end, compare."""
    moment, code = 0.0, 0
    while code != -signal.SIGKILL:  # a run that ended before the kill does not count
        shutil.rmtree(output, ignore_errors=True)
        pid, began = start_training(output), time.perf_counter()
        if in_write:
            turn = chance.randrange(len(expected.writes))
            kill_in_write(pid, output, turn, chance.uniform(0.0, expected.writes[turn][1]))
        else:
            time.sleep(chance.uniform(0.0, expected.seconds))
            os.kill(pid, signal.SIGKILL)
        moment, code = time.perf_counter() - began, wait_for(pid)
    found, is_torn = describe(output), is_writing(output)
    code = wait_for(start_training(output))
    content = digest_run(output) if code == 0 else {}
    differences = sorted(
        name
        for name in content.keys() | expected.content.keys()
        if content.get(name) != expected.content.get(name)
    )
    return Trial(moment, found, is_torn, differences)


def say(line: str) -> None:
    """Print a line at once: the next trial may take minutes."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials and print a line for each; 1 if any run ended differently."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=20, help="number of training runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="keep the runs here (default: nowhere)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.output or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        expected = run_undisturbed(root / "undisturbed")
        say(f"undisturbed: {expected.seconds:.1f} s, {len(expected.writes)} checkpoints")
        trials = []
        for number in range(chosen.trials):
            trial = kill_and_resume(
                root / f"trial{number:02d}", expected, chance, in_write=number % 2 == 1
            )
            trials.append(trial)
            verdict = "the same" if not trial.differences else f"DIFFERS: {trial.differences}"
            say(f"{number + 1:3d}  killed at {trial.moment:5.1f} s  {verdict:10s} {trial.found}")
    same = sum(not trial.differences for trial in trials)
    torn = sum(trial.is_torn for trial in trials)
    say(f"{same} of {len(trials)} ended in the same bits; {torn} were killed in a checkpoint")
    return int(same < len(trials))


if __name__ == "__main__":
    sys.exit(main())
