"""What is printed is what the files hold."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from msdetr.terminal import LiteralConsole, printable

ROOT = Path(__file__).resolve().parents[2]
ODD = (
    "bolt [m6]",
    "[unknown]",
    "on [/off]",
    "[bold]x[/bold]",
    ":smile:",
    "[link=http://x]y[/]",
    "\\[a]",
)


def render(value: object) -> str:
    console = LiteralConsole(file=io.StringIO(), width=80)
    console.print(value)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("text", ODD)
def test_brackets_and_colons_mean_nothing(text: str) -> None:
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    assert render(table).count(text) == 3
    assert render(text) == f"{text}\n"


def test_rich_would_take_them_for_markup() -> None:
    """What the console is for."""
    console = Console(file=io.StringIO(), width=80)
    console.print("bolt [bold]")
    file = console.file
    assert isinstance(file, io.StringIO)
    assert file.getvalue() == "bolt \n"


def test_control_characters_are_shown() -> None:
    assert printable("a\x1b[31mb\x07\x9bc") == r"a\x1b[31mb\x07\x9bc"
    assert printable("tab\tline\n") == "tab\tline\n"
    assert printable("half \udcff") == r"half \udcff"
    assert printable("größe 猫") == "größe 猫"
    table = Table("name")
    table.add_row("evil\x1b]0;title\x07")
    shown = render(table)
    assert "\x1b" not in shown
    assert r"evil\x1b]0;title\x07" in shown


def calls_of(tree: ast.AST) -> list[str]:
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


SOURCES = sorted(
    path
    for part in ("msdetr", "cli")
    for path in (ROOT / part).rglob("*.py")
    if path.name not in {"terminal.py", "say.py"}
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_prints_in_another_way(path: Path) -> None:
    """So that nobody can forget that names come from strangers."""
    calls = calls_of(ast.parse(path.read_text()))
    forbidden = {"Console", "print", "rich.print", "typer.echo", "typer.secho", "click.echo"}
    forbidden |= {"rprint", "Text.from_markup", "sys.stdout.write"}
    assert not forbidden & set(calls)


@pytest.mark.parametrize("columns", ["1", "20", "40"])
def test_numbers_of_tables_are_whole_on_narrow_terminals(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = Table()
    for title in ("file", "class", "score", "x0", "y0", "x1", "y1"):
        table.add_column(title)
    table.add_row("photos/of/cats.jpg", "cat", "0.85", *["1234"] * 4)
    LiteralConsole().print(table)
    shown = capsys.readouterr().out
    assert "0.85" in shown
    assert shown.count("1234") == 4
    assert "…" not in shown
