"""Who may import whom, checked over the syntax trees of the sources."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_TENSORS = {"structures", "boxes", "errors"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "process_lock": set(),
    "launched": set(),
    "seeding": {"errors"},
    "image_files": {"errors"},
    "csv_files": set(),
    "terminal": set(),
    "version": set(),
    "pretraining": {"errors"},
    "structures": {"errors"},
    "boxes": {"errors"},
    "recipe": {"errors", "pretraining", "recipes"},
    "ops": {"errors", "extensions", "files"},
    "data": _TENSORS | {"files", "seeding", "image_files"},
    "model": _TENSORS | {"ops", "pretraining"},
    "assignment": _TENSORS,
    "losses": _TENSORS,
    "engine": {"errors", "files", "launched", "process_lock", "seeding", "terminal"},
    "evaluation": _TENSORS | {"files"},
    "drawing": _TENSORS | {"files"},
    "inspection": _TENSORS
    | {"csv_files", "files", "image_files", "assignment", "losses", "drawing"},
    "run_report": {"errors", "files", "drawing"},
    "stored_runs": {"errors", "files", "recipe"},
    "study": {
        *("csv_files", "errors", "files", "process_lock", "stored_runs"),
        *("recipe", "evaluation", "inspection", "drawing"),
    },
    "export": _TENSORS | {"model", "ops", "files"},
    "interop": {"errors", "files"},
    "build": {
        *_TENSORS,
        *("recipe", "ops", "data", "model", "assignment", "losses", "engine", "evaluation"),
        "interop",
        "files",
        "pretraining",
        "seeding",
    },
    "api": {
        *_TENSORS,
        *("recipe", "ops", "data", "model", "assignment", "losses", "engine", "evaluation"),
        *(
            "interop",
            "build",
            "version",
            "csv_files",
            "files",
            "image_files",
            "launched",
            "pretraining",
            "process_lock",
            "seeding",
            "drawing",
            "inspection",
            "run_report",
            "stored_runs",
            "study",
            "export",
            "terminal",
        ),
    },
    "cli": {"recipe", "api", "errors", "files", "launched", "terminal", "version"},
    "recipes": set(),
    "extensions": set(),
}
# Parts that must start without loading torch.
TORCH_FREE = {
    *("errors", "files", "version", "terminal", "pretraining", "process_lock"),
    *("launched", "recipe", "recipes", "extensions", "stored_runs"),
}


def part_of(path: Path) -> str:
    """Name of the part a source file belongs to; the package's own __init__ is 'msdetr'."""
    relative = path.relative_to(ROOT)
    if relative.parts[0] != "msdetr":
        return relative.parts[0]
    return (
        "msdetr"
        if relative.name == "__init__.py" and len(relative.parts) == 2
        else (relative.parts[1].removesuffix(".py"))
    )


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute names of everything that ``source``, a module of ``package``, imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], base]).rstrip(".")
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def violations(part: str, source: str) -> list[str]:
    """Imports in ``source`` that ``part`` is not allowed to make."""
    is_module = (ROOT / "msdetr" / f"{part}.py").is_file()
    package = "msdetr" if is_module else f"msdetr.{part}"
    found = []
    for name in sorted(imported_modules(source, package)):
        pieces = name.split(".")
        if pieces[0] == "torch" and part in TORCH_FREE:
            found.append(f"{part} imports {name}")
        if pieces[0] == "msdetr" and len(pieces) > 1:
            target = pieces[1]
            if target != part and target not in ALLOWED[part]:
                found.append(f"{part} imports msdetr.{target}")
    return found


def sources() -> list[Path]:
    """Every Python source of the project but tests and benchmarks."""
    folders = ("msdetr", "cli", "recipes", "extensions")
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_file_keeps_the_import_contract(path: Path) -> None:
    part = part_of(path)
    if part == "msdetr":
        assert "torch" not in {n.split(".")[0] for n in imported_modules(path.read_text(), part)}
        return
    assert part in ALLOWED, f"{path.relative_to(ROOT)} belongs to no known part"
    assert violations(part, path.read_text()) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("engine", "from msdetr.structures import Targets"),
        ("model", "import msdetr.recipe.schema"),
        ("cli", "from msdetr import model"),
        ("recipe", "import torch"),
        ("losses", "def f():\n    from msdetr.engine.loop import Trainer"),
        ("cli", "from ..engine import loop"),
    ],
)
def test_planted_violation_is_found(part: str, source: str) -> None:
    assert len(violations(part, source)) == 1


def test_every_package_on_disk_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = set()
    for init in [p for p in sources() if p.name == "__init__.py"]:
        relative = init.parent.relative_to(ROOT).parts
        on_disk.add(".".join(relative if relative[0] == "msdetr" else ("msdetr", *relative)))
    assert set(listed) == on_disk


def test_the_documented_table_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    documented = {
        part.strip(" `"): set(re.findall(r"`(\w+)`", imports))
        for part, _, imports in (row for row in rows if len(row) == 3)
    }
    assert documented == ALLOWED
