"""What the library says of its parameters, as the command line says it of its options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from msdetr.errors import MsdetrError, Problem, UsageError

flags: Any = import_module("msdetr.cli.flags")
ROOT = Path(__file__).resolve().parents[3]
FLAG = re.compile(r"(?:^|[\s(`'\"])--[a-z]")
# A value may be filled in, and so be no part of the literal.
PARAMETER = re.compile(r"`([a-z_]+)[=`]")
# Options of other programs: compilers, Docker.
FOREIGN = {
    *("--threads=0", "--version"),
    "); give /dev/shm more room (containers: --shm-size=8g), or set data.num_workers: 0",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`output`", "--output"),
        ("give another `output`, or `force=True`", "give another --output, or --force"),
        ("use `recipe='ddetr_300q'`", "use --recipe ddetr_300q"),
        ("with `overrides=['train.lr=1e-4']`", "with --set train.lr=1e-4"),
        ("`static_hw=(8, 16)`", "--static 8x16"),
        ("`checkpoints`: give `checkpoints` or `traces`", "--ckpt: give --ckpt or --trace"),
        ("`msdetr recipes list` shows all", "`msdetr recipes list` shows all"),
        ("output: no option", "output: no option"),
    ],
)
def test_parameters_are_shown_as_options(text: str, shown: str) -> None:
    assert flags.in_flags(text) == shown


def test_columns_are_laid_out_for_the_options() -> None:
    problems = [Problem("`overrides`", "first"), Problem("a", "use `image_ids`")]
    error = UsageError("`data`", problems)
    assert str(error).splitlines()[2] == "  a             use `image_ids`"
    assert error.text(flags.in_flags).splitlines() == [
        "--data: 2 problems",
        "  --set   first",
        "  a       use --image-ids",
    ]


def test_errors_without_a_source_are_shown_so_too() -> None:
    assert MsdetrError("go on with `resume=True`").text(flags.in_flags) == "go on with --resume"


def literals(source: str) -> Iterator[str]:
    """Text of every string in a source; docstrings are left out."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def library() -> list[Path]:
    return sorted((ROOT / "msdetr").rglob("*.py"))


def mentions_a_flag(source: str) -> list[str]:
    return [text for text in literals(source) if FLAG.search(text) and text not in FOREIGN]


@pytest.mark.parametrize("path", library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_names_no_option(path: Path) -> None:
    found = mentions_a_flag(path.read_text())
    assert [text for text in found if "msdetr doctor --build" not in text] == []


@pytest.mark.parametrize("text", ["--output", "give another --output", "in X; (--resume)"])
def test_planted_option_is_found(text: str) -> None:
    assert mentions_a_flag(f'def f(x):\n    """Use --set."""\n    raise X("{text}")') == [text]


def options() -> set[str]:
    """Every option of every command."""
    texts = [path.read_text() for path in (ROOT / "cli").glob("*.py")]
    declared = {option for text in texts for option in re.findall(r'"(--[a-z-]+)"', text)}
    # Options without a name of their own take their parameter's.
    declared |= {
        "--" + argument.arg.replace("_", "-")
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.kwonlyargs
    }
    return declared


def test_every_parameter_that_an_error_names_is_an_option() -> None:
    named = {
        match[1]
        for path in library()
        for text in literals(path.read_text())
        for match in PARAMETER.finditer(text)
    }
    assert {"checkpoint", "output", "overrides"} <= named
    assert {name for name in named if flags.flag_of(name) not in options()} == set()
