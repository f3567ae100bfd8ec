"""Help and lists come at once, and every command's help shows how to use it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

main = importlib.import_module("msdetr.cli.main")  # mypy does not see the mapped package
HEAVY = ("torch", "torchvision", "accelerate", "pycocotools", "scipy")


def commands_of(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group below an application, as words of the command line."""
    yield path
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        yield (*path, str(name))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands_of(group.typer_instance, (*path, str(group.name)))


COMMANDS = list(commands_of(main.app))
GROUPS = {(str(group.name),) for group in main.app.registered_groups}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["eval", "--help"],
        ["recipes", "list"],
        ["runs", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys, msdetr.cli.main as m; code = m.main(sys.argv[1:]);"
        f"sys.exit(code or ' '.join(n for n in {HEAVY} if n in sys.modules) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_detector_needs_no_scipy() -> None:
    code = "import sys, msdetr; msdetr.Detector; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_commands_are_looked_at() -> None:
    assert {("train",), ("eval",), ("recipes", "list"), ("recipes", "copy")} <= set(COMMANDS)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c not in GROUPS], ids=lambda c: " ".join(c) or "msdetr"
)
def test_help_has_a_sentence_and_three_examples(
    command: tuple[str, ...], msdetr: Callable[..., Any]
) -> None:
    done = msdetr(*command, "--help")
    assert (done.code, done.err) == (0, "")
    _, _, examples = done.out.partition("Examples:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    words = " ".join(command)
    assert len(lines) == 3
    for line in lines:
        assert "msdetr" in line
        assert words in line
    sentences = done.out.split("\n\n")[1].strip().splitlines()
    assert sentences[0].strip()[0].isupper()


@pytest.mark.parametrize("command", ["train", "eval"])
def test_examples_use_options_that_exist(command: str, msdetr: Callable[..., Any]) -> None:
    shown = msdetr(command, "--help").out.partition("Examples:\n")[2]
    options = {word for line in shown.splitlines() for word in line.split() if word[:2] == "--"}
    known = msdetr(command, "--help").out.partition("Examples:\n")[0]
    foreign = {"--nproc-per-node"}  # of the launcher
    assert not [option for option in options - foreign if option not in known]


# They print no table: files that were written, YAML, or a line for each thing that is wrong.
WITHOUT_JSON = {
    ("train",),
    ("plot",),
    ("import-official",),
    ("data", "convert"),
    ("recipes", "show"),
    ("recipes", "copy"),
    ("recipes", "validate"),
}


def test_every_command_with_a_table_has_json(msdetr: Callable[..., Any]) -> None:
    commands = {command for command in COMMANDS if command and command not in GROUPS}
    without = {words for words in commands if "--json" not in msdetr(*words, "--help").out}
    assert without == WITHOUT_JSON
