"""What is computed of a cell once it is trained, for the report of its study."""

from __future__ import annotations

import shutil
from pathlib import Path

from msdetr.engine.run_directory import RunDirectory
from msdetr.files import replacing_directory


def analyse_cell(directory: Path) -> None:
    """Fill the ``analysis`` of a finished run.

    Args:
        directory: The run.
    """
    run = RunDirectory(directory)
    with replacing_directory(directory / "analysis") as folder:
        shutil.copyfile(run.evaluation / "metrics.json", folder / "metrics.json")
