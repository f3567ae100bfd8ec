"""How the help lists commands, and what is said of commands and options that do not exist."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import typer

main = importlib.import_module("msdetr.cli.main")  # mypy does not see the mapped package
groups = importlib.import_module("msdetr.cli.groups")


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """The help of the whole command line."""
    assert main.main(["--help"]) == 0
    return capsys.readouterr().out


def rows_of(text: str) -> dict[str, list[str]]:
    """Lines of the help below each title."""
    sections: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        title, *rows = block.splitlines()
        sections[title.removesuffix(":")] = rows
    return sections


def test_commands_stand_in_groups(shown: str) -> None:
    rows = rows_of(shown)
    titles = [groups.TRAIN, groups.LOOK, groups.SHARE, groups.DATA]
    assert [title for title in rows if title in titles] == titles
    assert "Commands" not in rows
    names = {title: [row.split()[0] for row in rows[title]] for title in titles}
    assert {"train", "recipes", "study"} <= set(names[groups.TRAIN])
    assert {"eval", "runs", "inspect-matching"} <= set(names[groups.LOOK])
    assert names[groups.SHARE] == ["export", "import-official"]
    assert {"data", "doctor"} == set(names[groups.DATA])


@pytest.mark.parametrize("words", [[], ["recipes"], ["runs"], ["data"], ["study"]], ids=str)
def test_summaries_are_whole_sentences_on_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*words, "--help"]) == 0
    rows = rows_of(capsys.readouterr().out)
    listed = [row for title, rows in rows.items() if title not in {"Options"} for row in rows]
    commands = [row for row in listed if row.startswith("  ") and "msdetr" not in row]
    commands = [row for row in commands if not row.startswith("   ")]
    assert commands
    assert [row for row in commands if not row.endswith(".") or row.endswith("...")] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evall"], "msdetr evall: unknown command; did you mean 'eval'?"),
        (["recipes", "sho"], "msdetr recipes sho: unknown command; did you mean 'show'?"),
        (["validate"], "msdetr validate: unknown command; did you mean 'recipes validate'?"),
        (
            ["list"],
            "msdetr list: unknown command; did you mean 'recipes list' or 'runs list'?",
        ),
        (["xyzzy"], "msdetr xyzzy: unknown command; msdetr --help lists all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_command_names_the_nearest(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["train", "shapes_tiny", "--outptu", "x"], "--output"),
        (["eval", "--checkpoint", "x"], "--ckpt"),
        (["runs", "list", "runs", "--refrence", "x"], "--reference"),
        (["--verson"], "--version"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_unknown_option_names_the_nearest(
    words: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    assert option in capsys.readouterr().err.partition("No such option")[2]


def test_summary_is_the_first_sentence() -> None:
    app = typer.Typer(cls=groups.CommandGroup)

    @app.command()
    def first() -> None:
        """Read a
        file. Then more.

        And more.
        """

    @app.command()
    def second() -> None:
        """Write e.g.a file"""

    commands = typer.main.get_command(app).commands
    assert groups.summary_of(commands["first"]) == "Read a file."
    assert groups.summary_of(commands["second"]) == "Write e.g.a file."
