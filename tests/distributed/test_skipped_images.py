"""Unreadable images that are skipped, with one process and with two."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5


def skipped_lines(run_dir: Path) -> list[str]:
    lines = (run_dir / "train.log").read_text().splitlines()
    return [line.split("WARNING ", 1)[1] for line in lines if ": skipped " in line]


@pytest.fixture
def damaged_root(data_root: Path, tmp_path: Path) -> Path:
    """Data of which four images cannot be read."""
    root = Path(shutil.copytree(data_root, tmp_path / "data"))
    images = sorted((root / "train2017").iterdir())
    # Two neighbours: the image that would step in for the first cannot be read either.
    for image in (images[3], images[4], images[20]):
        image.unlink()
    images[33].write_bytes(images[33].read_bytes()[:1000])
    return root


def test_the_number_of_processes_does_not_matter(
    damaged_root: Path,
    small: list[str],
    run: Callable[..., None],
    largest_difference: Callable[[Path, Path], float],
    rows_of: Callable[[Path], list[dict[str, Any]]],
) -> None:
    options = ("--set", f"data.root={damaged_root}", "--set", "data.unreadable_images=skip")
    outputs = {count: damaged_root.parent / str(count) for count in (1, 2)}
    run(*((count, [*small, *options, "--output", path]) for count, path in outputs.items()))
    assert largest_difference(outputs[1], outputs[2]) < TOLERANCE
    ours, other = (skipped_lines(path) for path in outputs.values())
    # Each epoch asks for every image once, and once more for one in the place of another.
    assert len(ours) == 5
    assert ours == other
    counts = [row["skipped_images"] for row in rows_of(outputs[2]) if row["kind"] == "epoch"]
    assert counts == [5]
