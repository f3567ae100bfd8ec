"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _shared(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    folder = Path(named) if named else ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"no {name} folder: set {variable} or provide ../shared/{name}")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the golden numbers; skips where there is none."""
    return _shared("MSDETR_GOLDEN", "golden")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets; skips where there is none."""
    return _shared("MSDETR_DATA", "data")
