"""Every command line in the README and the pages is one that the real command line would take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import typer
from msdetr.cli.main import app

from msdetr.errors import RecipeError
from msdetr.recipe import load_recipe
from msdetr.recipe.packaged import packaged_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Words that stand for something else in running text.
PLACEHOLDERS = {"...", "RECIPE", "NAME", "RUN", "FOLDER"}
# Without them a backbone of timm would be asked, and timm imported.
NORMALIZATION = ("data.mean=[0.5, 0.5, 0.5]", "data.std=[0.5, 0.5, 0.5]")
COMMAND: Any = typer.main.get_command(app)


def shell_lines(page: str) -> Iterator[str]:
    """Lines of shell blocks, of indented blocks and after prompts, with continuations joined."""
    blocks = [text for kind, text in FENCED.findall(page) if kind in {"bash", "text"}]
    prompts = "\n".join(
        line[2:] for text in blocks for line in text.splitlines() if line[:2] == "$ "
    )
    shell = "\n".join(text for kind, text in FENCED.findall(page) if kind == "bash")
    indented = "\n".join(re.findall(r"^ {4,}(msdetr .*)$", FENCED.sub("", page), re.MULTILINE))
    for text in (shell, prompts, indented):
        yield from text.replace("\\\n", " ").replace("&&\n", "&& ").splitlines()


def invocations(line: str) -> Iterator[list[str]]:
    """What follows ``msdetr`` in each command of a line of shell."""
    words = shlex.split(line, comments=True)
    for joins, group in groupby(words, key={"&&", ">", "|"}.__contains__):
        part = list(group)
        if part[0] == "msdetr":
            yield part[1:]
        elif not joins and "msdetr.cli" in part:
            yield part[part.index("msdetr.cli") + 1 :]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and its arguments."""
    command, rest = COMMAND, list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def complaints(words: list[str]) -> list[str]:
    """What is wrong with a command line, parsed as when it is typed but not carried out."""
    command, arguments = find_command(words)
    if getattr(command, "commands", {}) and arguments[:1] != ["--version"]:
        return [f"no command {arguments[:1]}"]
    try:
        context = command.make_context("msdetr", list(arguments))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return unknown_recipes(context.params)


def unknown_recipes(parameters: dict[str, Any]) -> list[str]:
    """Packaged recipes that do not exist, and fields that a packaged recipe does not have."""
    name = parameters.get("recipe") or parameters.get("name")
    if not isinstance(name, str) or Path(name).suffix or name in PLACEHOLDERS:
        return []
    try:
        load_recipe(name, [*NORMALIZATION, *(parameters.get("overrides") or ())])
    except RecipeError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_of_blocks_are_accepted(page: Path) -> None:
    found = [words for line in shell_lines(page.read_text()) for words in invocations(line)]
    wrong = {" ".join(words): complaints(words) for words in found}
    assert {line: why for line, why in wrong.items() if why} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_running_text_exist(page: Path) -> None:
    text = FENCED.sub("", page.read_text())
    for quoted in re.findall(r"`msdetr ([a-z][^`]*)`", text):
        words = quoted.replace("\n", " ").split()
        command, rest = find_command(words)
        assert command is not COMMAND, quoted
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known, quoted


def test_there_are_many_and_wrong_ones_are_found() -> None:
    lines = [line for page in PAGES for line in shell_lines(page.read_text())]
    assert sum(len(list(invocations(line))) for line in lines) > 60
    for wrong in (
        "msdetr tarin shapes_tiny",
        "msdetr train shapes_tiny --epochs 3",
        "msdetr train shapes_tinny",
        "msdetr train shapes_tiny --set train.epoch=3",
        "msdetr predict --ckpt runs/a",
        "cd a && torchrun -m msdetr.cli train ddetr_300q --bogus",
    ):
        assert [words for words in invocations(wrong) if complaints(words)], wrong


@pytest.mark.parametrize("name", packaged_names())
def test_readme_lists_every_recipe(name: str) -> None:
    table = (ROOT / "README.md").read_text()
    short = re.sub(r"^(shapes_tiny|ddetr_300q)(_.+)$", r"\2", name)
    rows = ("_hybrid`, `_group`, `_dn`, `_cdn`, `_ms_hybrid`, ...", "_arch_a` ... `_arch_d`")
    covered = short.startswith(("_ms_", "_arch_")) and all(row in table for row in rows)
    assert f"`{name}`" in table or f"`{short}`" in table or covered
