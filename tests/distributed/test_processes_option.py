"""``--processes 2`` as a user types it: numbers, Ctrl-C, a process that is lost, bad data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from msdetr.api.study.cell_process import CellOrder
from msdetr.recipe import load_recipe, recipe_to_yaml

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
SECONDS_TO_STOP = 120.0
TWO = ("--processes", "2")
LONG = ("--set", "train.epochs=200")

Run = Callable[..., None]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start a command line by itself."""
    started: list[subprocess.Popen[str]] = []

    def run(words: Sequence[str | Path]) -> subprocess.Popen[str]:
        command = subprocess.Popen(
            [sys.executable, "-m", "msdetr.cli", *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(command)
        return command

    yield run
    for command in started:
        command.kill()


def children_of(pid: int) -> dict[str, int]:
    """Process ids of what a launcher has started, by rank."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        found[next(v for v in variables if v.startswith("RANK="))] = int(child)
    return found


def wait_for_steps(command: subprocess.Popen[str], output: Path, count: int = 2) -> None:
    """Return once a run has finished so many steps."""
    metrics = output / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < count:
        assert command.poll() is None, command.communicate()
        time.sleep(0.02)


def step_saved(run_dir: Path) -> int:
    """Steps of the last checkpoint."""
    info = json.loads((run_dir / "checkpoints" / "last" / "checkpoint.json").read_text())
    return int(info["run_state"]["step"])


def test_two_processes_give_the_numbers_that_one_gives(
    start: Start, run: Run, small: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run((1, [*small, "--output", one]))
    command = start([*small, "--output", two, *TWO])
    out, said = command.communicate(timeout=600)
    assert command.returncode == 0, said
    assert out == f"{two}\n"
    assert said.count("epoch 1/1  step 1/3 ") == 1
    assert said.count("epoch 1 done ") == 1
    assert not [word for word in ("torch.distributed", "WARNING", "Traceback") if word in said]
    assert json.loads((two / "environment.json").read_text())["processes"] == 2
    assert request.getfixturevalue("largest_difference")(one, two) < TOLERANCE
    checkpoint = one / "checkpoints" / "last"
    words = ("eval", "--ckpt", checkpoint, "--device", "cpu")
    run((1, [*words, "--output", tmp_path / "scores"]))
    evaluation = start([*words, *TWO, "--json"])
    out, said = evaluation.communicate(timeout=600)
    report, expected = json.loads(out), json.loads((tmp_path / "scores/metrics.json").read_text())
    for each, processes in ((report, 2), (expected, 1)):
        assert each["setting"].pop("environment")["processes"] == processes
        assert each.pop("cost")
    assert report == expected, said


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_signal_ends_all_with_a_saved_state(
    start: Start, small: list[str], tmp_path: Path, number: int, code: int
) -> None:
    output = tmp_path / "run"
    command = start([*small, *LONG, "--output", output, *TWO])
    wait_for_steps(command, output)
    children = children_of(command.pid)
    assert children.keys() == {"RANK=0", "RANK=1"}
    command.send_signal(number)
    out, said = command.communicate(timeout=SECONDS_TO_STOP)
    assert (command.returncode, out) == (code, ""), said
    name = signal.Signals(number).name
    assert said.count(f"stopped by {name} after step {step_saved(output)} ") == 1, said
    assert "Traceback" not in said
    assert not [pid for pid in children.values() if Path(f"/proc/{pid}").exists()]


def test_a_killed_process_is_named_and_the_state_is_saved(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = start([*small, *LONG, "--output", output, *TWO])
    wait_for_steps(command, output)
    os.kill(children_of(command.pid)["RANK=1"], signal.SIGKILL)
    _, said = command.communicate(timeout=SECONDS_TO_STOP)
    assert command.returncode == 1, said
    assert said.count("error: ") == 1
    assert "error: process 1 of 2 was killed by SIGKILL; out of memory?" in said
    assert f"the state after step {step_saved(output)} " in said
    assert "Traceback" not in said


def test_bad_data_is_said_once(
    start: Start, small: list[str], truncated_image: Path, tmp_path: Path
) -> None:
    """The image is the second process's, in the second step."""
    root = truncated_image.parents[1]
    output = tmp_path / "run"
    command = start([*small, "--set", f"data.root={root}", "--output", output, *TWO])
    _, said = command.communicate(timeout=600)
    assert command.returncode == 2, said
    assert said.count("error: ") == 1
    assert f"error: {truncated_image}: " in said
    assert step_saved(output) == 1


@pytest.fixture
def start_cell(small: list[str], tmp_path: Path, environment: dict[str, str]) -> Start:
    """Start a cell of a study that two processes train."""

    def run(*fields: str) -> subprocess.Popen[str]:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(recipe_to_yaml(load_recipe("shapes_tiny", [*small[5::2], *fields])))
        order = CellOrder(
            recipe=str(recipe),
            output=str(tmp_path / "run"),
            device="cpu",
            error_file=str(tmp_path / "error"),
            parent=os.getpid(),
            processes=2,
        )
        return subprocess.Popen(order.command(), env=environment, stderr=subprocess.PIPE, text=True)

    return run


def test_a_cell_is_trained_by_both_and_analysed_once(start_cell: Start, tmp_path: Path) -> None:
    cell = start_cell()
    _, said = cell.communicate(timeout=600)
    assert cell.returncode == 0, said
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert list((tmp_path / "run" / "analysis").iterdir())
    assert not (tmp_path / "error").exists()


def test_a_cell_that_is_stopped_saves_its_state(start_cell: Start, tmp_path: Path) -> None:
    cell = start_cell("train.epochs=200")
    wait_for_steps(cell, tmp_path / "run")
    cell.send_signal(signal.SIGTERM)
    _, said = cell.communicate(timeout=SECONDS_TO_STOP)
    assert cell.returncode == 143, said
    assert f"stopped by SIGTERM after step {step_saved(tmp_path / 'run')} " in said
    assert not (tmp_path / "error").exists()


def test_why_a_cell_failed_is_noted_in_one_line(start_cell: Start, tmp_path: Path) -> None:
    cell = start_cell("train.images_per_forward=16")
    _, said = cell.communicate(timeout=600)
    assert cell.returncode == 2, said
    error = (tmp_path / "error").read_text()
    assert error.startswith("processes: 1 micro-batches per optimizer step cannot be dealt evenly")
    assert said.count("error: ") == 1
