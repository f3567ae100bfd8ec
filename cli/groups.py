"""Commands in groups: how ``--help`` lists them, and what is said of one that does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

from msdetr.errors import UsageError

TRAIN, LOOK = "Train", "Look at runs and models"
SHARE, DATA = "Share", "Data and machine"
"""Titles under which the commands stand in ``msdetr --help``."""

_WITHOUT_TITLE = "Commands"


class CommandGroup(TyperGroup):
    """A group whose help lists commands under titles, each with its first sentence, uncut."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's own
        super().__init__(**attributes)
        for command in self.commands.values():
            command.short_help = command.short_help or summary_of(command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's own
        """Write one section per title; the order is that of registration."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            if command.hidden:
                continue
            title = getattr(command, "rich_help_panel", None)
            rows = sections.setdefault(title if isinstance(title, str) else _WITHOUT_TITLE, [])
            rows.append((name, command.get_short_help_str()))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer's own
        """Find the command that the first argument names.

        Raises:
            UsageError: There is none; the message names the nearest.
        """
        name = args[0]
        if ctx.resilient_parsing or name.startswith("-") or name in self.commands:
            return super().resolve_command(ctx, args)
        path = ctx.command_path
        raise UsageError(f"{path} {name}", f"unknown command; {self._advise(name, path)}")

    def _advise(self, name: str, path: str) -> str:
        deeper = [words for words in _paths_of(self) if words.rpartition(" ")[2] == name]
        found = deeper or get_close_matches(name, self.commands, n=1)
        if not found:
            return f"{path} --help lists all"
        return f"did you mean {' or '.join(map(repr, found))}?"


def summary_of(command: Any) -> str:  # noqa: ANN401 - typer's own
    """Return the first sentence of a command's help, on one line."""
    paragraph = (command.help or "").strip().partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".") + "."


def _paths_of(group: TyperGroup, prefix: str = "") -> Iterator[str]:
    """List the commands below a group, as words of the command line."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _paths_of(command, f"{prefix}{name} ")
        else:
            yield prefix + name
