"""A cell whose process is whatever a test wants it to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from msdetr.api.study.cell_job import CellJob, StudyRun
from msdetr.api.study.cell_process import CellOrder
from msdetr.study.cell import Cell

MakeJob = Callable[..., CellJob]


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    (tmp_path / "jobs").mkdir()
    return Cell("mixed", 7, tmp_path / "cells" / "mixed" / "seed_7", tmp_path / "jobs")


@pytest.fixture
def make_job(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    """Make a job whose cell's process runs a command, beside further options."""

    def make(
        command: Sequence[str], *, lock_file: Path | None = None, **environment: str
    ) -> CellJob:
        monkeypatch.setattr(CellOrder, "command", lambda _: list(command))
        run = StudyRun("this run", stop_file=tmp_path / "stop", lock_file=lock_file)
        return CellJob(cell, run, "cpu", environment)

    return make
