"""The page on what has been verified: files and commands that it names exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
COUNT = re.compile(r"(\d+) \(`([\w/]+\.(?:json|safetensors))`\)")


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/verification.md").read_text(encoding="utf-8")


def num_cases(file: Path) -> int:
    """Count the cases of a file of golden numbers."""
    if file.suffix == ".json":
        return len(json.loads(file.read_text()))
    with safe_open(file, "pt") as tensors:
        return len({key.split("/")[0] for key in tensors.keys()})  # noqa: SIM118 (not a mapping)


@pytest.mark.golden
def test_golden_files_are_there_and_hold_cases(page: str, golden_dir: Path) -> None:
    named = {file for _, file in COUNT.findall(page)}
    assert len(named) > 10
    # Not how many: another folder of the same kind has other cases.
    assert [file for file in sorted(named) if num_cases(golden_dir / file) == 0] == []


def test_commands_name_what_exists(page: str) -> None:
    named = re.findall(r"\b((?:tests|benchmarks)/[\w/]+(?:\.py)?)", page)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


def test_killed_runs_are_as_many_as_were_recorded(page: str) -> None:
    found = re.search(r"^(\d+) of (\d+) ended in the same bits", cluster(), re.MULTILINE)
    assert found is not None
    assert f"| {found[2]} | [{found[1]} ended in the same bits]" in page
    assert f"--trials {found[2]}" in page


def cluster() -> str:
    return (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
