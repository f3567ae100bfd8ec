"""``--processes`` on the command line: what is started, and what is refused before."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pytest

import msdetr.api.launch
import msdetr.api.study.run
from msdetr.errors import UsageError

main: Any = importlib.import_module("msdetr.cli.main")

TRAIN = ("train", "shapes_tiny", "--device", "cpu")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """What would have been started; it ends with 7."""
    calls: list[tuple[list[str], int]] = []

    def launch(words: Sequence[str], num_processes: int) -> int:
        calls.append((list(words), num_processes))
        return 7

    monkeypatch.setattr(msdetr.api.launch, "launch", launch)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        (*TRAIN, "--processes", "2", "--output", "a b"),
        ("--debug", *TRAIN, "--processes=2"),
        ("eval", "--ckpt", "runs/a", "--device", "cpu", "--processes", "2", "--json"),
    ],
)
def test_the_same_command_is_started(
    words: tuple[str, ...], launched: list[tuple[list[str], int]]
) -> None:
    assert main.main(words) == 7
    assert launched == [(["-m", "msdetr.cli", *words], 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TRAIN, "--processes", "0"), "--processes: expected a whole number of at least 1"),
        ((*TRAIN, "--processes", "2", "--dry-run"), "--processes: cannot be combined"),
        ((*TRAIN, "--processes", "2", "--set", "train.lr=x"), "--set: train.lr: "),
        (
            ("eval", "--from-predictions", "a.json", "--data", "b.json", "--processes", "2"),
            "--processes: cannot be combined with --from-predictions",
        ),
    ],
)
def test_bad_input_is_said_before_anything_starts(
    words: tuple[str, ...],
    message: str,
    launched: list[object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert message in said
    assert launched == []


@pytest.mark.parametrize(
    ("words", "number"), [((), 1), (("--processes", "auto"), 1), (("--processes", "2"), 2)]
)
def test_cells_of_a_study_get_as_many(
    words: tuple[str, ...], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def run_study(*_: object, workers: Any, **__: object) -> Any:
        found.append(workers.processes)
        raise UsageError("study", "is none")

    monkeypatch.setattr(msdetr.api.study.run, "run_study", run_study)
    assert main.main(("study", "run", "a.yaml", "--output", "b", *words)) == 2
    assert found == [number]
