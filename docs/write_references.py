"""Write ``docs/recipes.md`` from the schema of recipes and ``docs/commands.md`` from the commands.

python docs/write_references.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from msdetr.recipe.dump import value_to_yaml
from msdetr.recipe.fields import RecipeField, list_fields, list_settings

FOLDER = Path(__file__).parent
PROGRAM = "msdetr"

RECIPES_HEAD = """# Recipe reference

Every field of a recipe. `python docs/write_references.py` writes this page from the schema, and a
test says when it is no longer up to date.

- A field is set in a file, nested under its sections, or with `--set` and its dotted key:
  `--set train.lr=1e-4`.
- *Default* is what holds where neither a recipe nor what it extends says otherwise. The defaults
  together are the published main model, `ddetr_300q`.
- *Set by* lists the packaged files that write the field, by value: recipes, and the fragments in
  `recipes/_base/` that they extend. `msdetr recipes show NAME` shows a recipe with every field.
- The shell completes names of recipes and keys of `--set` after `msdetr --install-completion`.

Words such as *placement* and *cap* stand in the [glossary](glossary.md).
"""

COMMANDS_HEAD = """# Command reference

Every command with its arguments and options, as `--help` shows them. `python
docs/write_references.py` writes this page, and a test says when it is no longer up to date.

Data go to stdout, talk goes to stderr; with `--json` stdout is one JSON document. Exit codes:
0 done, 1 failed, 2 invalid usage, recipe or data, 3 diverged, 4 verification failed, 130
interrupted, 143 terminated. `--debug`, anywhere in a command, shows tracebacks.
"""


def recipe_page() -> str:
    """Return the reference of recipes."""
    fields = list_fields()
    setters = settings_by_field()
    sections = [field for field in fields if field.is_section]
    blocks = [
        RECIPES_HEAD,
        _table(
            [field for field in fields if "." not in field.key and not field.is_section], setters
        ),
    ]
    for section in sections:
        depth = "##" if "." not in section.key else "###"
        blocks.append(f"{depth} `{section.key}`\n\n{_about(section, setters)}")
        held = [f for f in fields if f.key.rpartition(".")[0] == section.key and not f.is_section]
        if held:
            blocks.append(_table(held, setters))
    return "\n".join(f"{block.rstrip()}\n" for block in blocks)


def settings_by_field() -> dict[str, dict[str, list[str]]]:
    """Return the packaged files that set a field, by key and by value as YAML."""
    found: dict[str, dict[str, list[str]]] = {}
    for key, file, value in list_settings():
        plain = json.loads(json.dumps(value))
        found.setdefault(key, {}).setdefault(value_to_yaml(plain), []).append(file)
    return found


def _about(section: RecipeField, setters: dict[str, dict[str, list[str]]]) -> str:
    left_out = " Left out by default." if section.default is None else ""
    by_null = setters.get(section.key, {}).get("null")
    null = f" Set to null by {_files(by_null)}." if by_null else ""
    return f"{section.description}{left_out}{null}"


def _table(fields: Sequence[RecipeField], setters: dict[str, dict[str, list[str]]]) -> str:
    rows = [
        "| field | type and range | unit | default | what it is | set by |",
        "|---|---|---|---|---|---|",
    ]
    for field in fields:
        values = setters.get(field.key, {})
        if field.key == "description":
            values = {}
        cells = (
            f"`{field.key.rpartition('.')[2]}`",
            field.expected,
            field.unit,
            "(required)" if field.is_required else f"`{_default(field)}`",
            f"With type {field.of_type}: {field.description}"
            if field.of_type
            else field.description,
            "; ".join(f"`{value}`: {_files(files)}" for value, files in values.items()),
        )
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(rows)


def _default(field: RecipeField) -> str:
    return '""' if field.default == "" else value_to_yaml(field.default)


def _files(names: Iterable[str]) -> str:
    return ", ".join(names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_page() -> str:
    """Return the reference of commands."""
    root: Any = typer.main.get_command(import_module("msdetr.cli.main").app)
    context = typer.Context(root, info_name=PROGRAM)
    blocks = [COMMANDS_HEAD, _described(root, context, "")]
    panels = dict.fromkeys(command.rich_help_panel for command in root.commands.values())
    for panel in panels:
        blocks.append(f"## {panel}\n")
        for name, command in root.commands.items():
            if command.rich_help_panel == panel:
                blocks += _sections(name, command, context)
    return "\n".join(f"{block.rstrip()}\n" for block in blocks)


def _sections(name: str, command: Any, parent: Any) -> Iterator[str]:  # noqa: ANN401 - typer's own
    context = typer.Context(command, info_name=name, parent=parent)
    members = getattr(command, "commands", None)
    if members is None:
        yield _described(command, context, f"### {context.command_path}\n\n")
        return
    for member_name, member in members.items():
        yield from _sections(member_name, member, context)


def _described(command: Any, context: Any, heading: str) -> str:  # noqa: ANN401 - typer's own
    text = " ".join((command.help or "").split())
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = [_row(parameter, context) for parameter in command.params]
    table = ["| argument or option | what it is |", "|---|---|", *rows] if rows else []
    examples = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
    parts = [f"```text\n{usage}\n```", "\n".join(table), "\n".join(["```bash", *examples, "```"])]
    return f"{heading}{text}\n\n" + "\n\n".join(part for part in parts if part)


def _row(parameter: Any, context: Any) -> str:  # noqa: ANN401 - typer's own
    names, text = parameter.get_help_record(context)
    shown = names.partition(" <")[0] if parameter.param_type_name == "argument" else names
    return f"| `{_cell(shown)}` | {_cell(' '.join(text.split()))} |"


PAGES = {"recipes.md": recipe_page, "commands.md": command_page}

if __name__ == "__main__":
    for file, write in PAGES.items():
        (FOLDER / file).write_text(write(), encoding="utf-8")
