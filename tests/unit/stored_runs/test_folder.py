"""Which directories are runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdetr.errors import RunDirectoryError
from msdetr.stored_runs.folder import find_runs, is_run


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        path = folder / name
        path.mkdir() if name == "checkpoints" else path.touch()
    return folder


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    make(tmp_path / "b", "recipe.yaml", "environment.json")
    make(tmp_path / "study/cells/mixed/seed_1", "recipe.yaml", "metrics.jsonl")
    make(tmp_path / "a", "recipe.yaml", "checkpoints")
    make(tmp_path / "a/inside", "metrics.jsonl")
    make(tmp_path / ".hidden", "metrics.jsonl")
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["a", "b", "study/cells/mixed/seed_1"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("metrics.jsonl",), True),  # the recipe was lost
        (("checkpoints", "environment.json"), True),
        (("recipe.yaml",), False),  # somebody's recipes
        (("checkpoints",), False),
        ((), False),
    ],
    ids=["metrics", "no recipe", "recipe alone", "checkpoints alone", "empty"],
)
def test_a_run_may_lack_any_one_of_its_files(
    names: tuple[str, ...], expected: bool, tmp_path: Path
) -> None:
    assert is_run(make(tmp_path / "run", *names)) is expected
    assert not is_run(tmp_path / "nothing")


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is a file; expected a folder of runs"):
        find_runs(tmp_path / "file")
    with pytest.raises(RunDirectoryError, match="does not exist"):
        find_runs(tmp_path / "nothing")
