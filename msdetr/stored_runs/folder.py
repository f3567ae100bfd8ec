"""Which training runs there are below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from msdetr.errors import RunDirectoryError
from msdetr.stored_runs.stored_run import METRICS_FILE, RECIPE_FILE

_OF_RUNS = {METRICS_FILE, "checkpoints", "environment.json"}


def is_run(path: Path) -> bool:
    """Whether a directory holds a training run, begun or over, whole or damaged."""
    return path.is_dir() and _looks_like_run({entry.name for entry in path.iterdir()})


def find_runs(folder: Path) -> list[Path]:
    """Find the run directories below a folder, or the folder itself; sorted by name.

    Args:
        folder: Where to look; hidden folders are left out, and nothing is looked for in a run.

    Raises:
        RunDirectoryError: It is no folder.
    """
    if not folder.is_dir():
        what = "is a file; expected a folder of runs" if folder.exists() else "does not exist"
        raise RunDirectoryError(str(folder), what)
    found = []
    for place, folders, files in os.walk(folder):
        if _looks_like_run({*folders, *files}):
            found.append(Path(place))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found)


def _looks_like_run(names: set[str]) -> bool:
    # A damaged run may lack any one of its files.
    return (
        METRICS_FILE in names
        or (RECIPE_FILE in names and bool(names & _OF_RUNS))
        or ({"checkpoints", "environment.json"} <= names)
    )
