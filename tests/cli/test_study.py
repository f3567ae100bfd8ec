"""`msdetr study`: two arms with two seeds, run for real; what is refused; how far it is."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from msdetr.process_lock import hold
from msdetr.study.design import load_design, resolve_arms
from msdetr.study.folder import StudyFolder

ROOT = Path(__file__).resolve().parents[2]
Msdetr = Callable[..., Any]
RUN = ("--device", "cpu", "--workers", "2")


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "kill_study", ROOT / "benchmarks" / "kill_study.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


kill_study = load_benchmark()


@pytest.fixture(scope="session")
def fields(tiny: list[str]) -> dict[str, Any]:
    """Fields that make shapes_tiny a matter of seconds."""
    pairs = (text.partition("=") for text in tiny[1::2])
    return {key: yaml.safe_load(value) for key, _, value in pairs} | {"train.lr": 5e-4}


@pytest.fixture
def study_file(tmp_path: Path, fields: dict[str, Any]) -> Path:
    """Design of a study of one_to_one against mixed with the seeds 1 and 2."""
    file: Path = kill_study.write_study(tmp_path, fields)
    return file


def change(file: Path, **changes: object) -> None:
    """Change fields of a study."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, indent=2))


def begin(file: Path, output: Path) -> StudyFolder:
    """Begin a study without running any of its cells."""
    design, folder = load_design(file), StudyFolder(output)
    folder.begin(file, design, resolve_arms(design, file))
    return folder


# What is refused.


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metric": "mAP50"}, "metric: unknown metric 'mAP50'"),
        ({"baseline": "mixd"}, "must be one of the arms, got 'mixd'; did you mean 'mixed'?"),
        ({"seeds": [1, 1]}, "seeds.1: must be different seeds, got 1 twice"),
        (
            {"vary": ["model.placement", "supervision"]},
            "differs from one_to_one in model.extra",
        ),
        ({"sedes": [1]}, "sedes: unknown key; did you mean 'seeds'?"),
    ],
)
def test_a_design_that_is_not_valid(
    study_file: Path, refused_line: Callable[..., str], changes: dict[str, Any], problem: str
) -> None:
    change(study_file, **changes)
    line = refused_line("study", "run", study_file, "--output", study_file.parent / "out", *RUN)
    assert line.startswith(f"error: {study_file}: line ")
    assert problem in line


def test_a_recipe_that_is_not_valid_is_named_with_its_line(
    study_file: Path, refused_line: Callable[..., str]
) -> None:
    mine = study_file.parent / "mine.yaml"
    mine.write_text("extends: shapes_tiny\nmodel:\n  widht: 3\n")
    arms = {"one_to_one": {"recipe": "shapes_tiny_baseline"}, "mixed": {"recipe": "mine.yaml"}}
    change(study_file, arms=arms)
    line = refused_line("study", "run", study_file, "--output", study_file.parent / "out", *RUN)
    assert f"arms.mixed.recipe: {mine} line 3: model.widht: unknown key" in line


def test_a_study_changed_since_it_began(study_file: Path, refused_line: Callable[..., str]) -> None:
    output = study_file.parent / "out"
    begin(study_file, output)
    change(study_file, smallest_effect=0.02)
    for dry_run in ([], ["--dry-run"]):
        line = refused_line("study", "run", study_file, "--output", output, *RUN, *dry_run)
        assert line == (
            f"error: {study_file}: smallest_effect: was 0.005 when the study began, is 0.02"
        )


def test_cells_of_another_study(study_file: Path, refused_line: Callable[..., str]) -> None:
    output = study_file.parent / "out"
    begin(study_file, output)
    (output / "cells" / "hybrid" / "seed_1").mkdir(parents=True)
    for command in (("run", study_file, "--output", output, *RUN), ("status", output)):
        line = refused_line("study", *command)
        assert line.endswith("cells/hybrid/seed_1: is no cell of this study; move it away")


def test_slurm_where_it_is_missing(
    study_file: Path,
    refused_line: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ("study", "run", study_file, "--output", tmp_path / "out", "--executor", "slurm")
    line = refused_line(*command)
    assert line == "error: --executor slurm: sbatch is not on the PATH of this machine"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--slurm", "time=60"), "--slurm: needs --executor slurm"),
        (("--executor", "slurm", "--slurm", "time"), "--slurm: expected key=value, as in time=600"),
    ],
)
def test_settings_of_slurm(
    study_file: Path, refused_line: Callable[..., str], options: tuple[str, ...], problem: str
) -> None:
    output = study_file.parent / "out"
    assert problem in refused_line("study", "run", study_file, "--output", output, *options)


def test_a_missing_extra(
    study_file: Path, refused_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msdetr.api.study.run.find_spec", lambda _: None)
    line = refused_line("study", "run", study_file, "--output", study_file.parent / "out", *RUN)
    assert "needs submitit: pip install 'msdetr[study]'" in line


def test_a_study_that_is_being_run(study_file: Path, refused_line: Callable[..., str]) -> None:
    output = study_file.parent / "out"
    with hold(begin(study_file, output).jobs / "run.lock", run="other"):
        line = refused_line("study", "run", study_file, "--output", output, *RUN)
    assert f"error: {output}: this study is being run by process " in line


def test_a_cell_that_is_being_trained(
    study_file: Path, msdetr: Msdetr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msdetr.api.study.run._PATIENCE_SECONDS", 0.3)
    output = study_file.parent / "out"
    cell = begin(study_file, output).cells()[3]
    with hold(cell.lock_file):
        done = msdetr("study", "run", study_file, "--output", output, *RUN)
        state = json.loads(msdetr("study", "status", output, "--json").out)["cells"][3]["state"]
    assert done.code == 2
    assert "left by an earlier run; waiting for it to stop" in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith(f"error: {output}: mixed/seed_2: is being trained by process ")
    assert state == "running"


def test_status_of_no_study(tmp_path: Path, refused_line: Callable[..., str]) -> None:
    assert "holds no study" in refused_line("study", "status", tmp_path)


# What is run.


@pytest.fixture(scope="module")
def failed_once(
    tmp_path_factory: pytest.TempPathFactory,
    msdetr: Msdetr,
    fields: dict[str, Any],
    shapes_root: Path,
) -> Iterator[dict[str, Any]]:
    """A study of four cells, one of which failed at first; what was said and seen meanwhile."""
    assert shapes_root.is_dir()
    folder = tmp_path_factory.mktemp("study")
    file, output = kill_study.write_study(folder, fields), folder / "out"
    stray = output / "cells" / "mixed" / "seed_1" / "notes.txt"
    stray.parent.mkdir(parents=True)
    stray.write_text("")
    command = ("study", "run", file, "--output", output, *RUN)
    seen = {"file": file, "output": output, "first": msdetr(*command)}
    seen["status"] = json.loads(msdetr("study", "status", output, "--json").out)
    seen["cells"] = kill_study.digest_cells
    stray.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in output.glob("cells/*/*/metrics.jsonl")}
    seen["second"] = msdetr(*command, "--json")
    seen["untouched"] = all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    seen["trained first"] = len(stamps)
    yield seen
    shutil.rmtree(folder)


def test_a_failing_cell_is_named_and_leaves_three(failed_once: dict[str, Any]) -> None:
    done = failed_once["first"]
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("error: mixed/seed_1: ")
    assert "is not empty" in last
    assert failed_once["trained first"] == 3
    cells = failed_once["status"]["cells"]
    states = {(cell["arm"], cell["seed"]): cell["state"] for cell in cells}
    assert states == {
        ("one_to_one", 1): "finished",
        ("one_to_one", 2): "finished",
        ("mixed", 1): "failed",
        ("mixed", 2): "finished",
    }
    (failed,) = [cell for cell in cells if cell["state"] == "failed"]
    assert "is not empty" in failed["error"]


def test_the_same_command_trains_what_is_missing(failed_once: dict[str, Any]) -> None:
    done = failed_once["second"]
    assert done.code == 0, done.err
    assert sorted(json.loads(done.out)["finished"]) == [
        "mixed/seed_1",
        "mixed/seed_2",
        "one_to_one/seed_1",
        "one_to_one/seed_2",
    ]
    assert failed_once["untouched"]
    assert "mixed/seed_1: finished, ap 0." in done.err
    assert "one_to_one/seed_1" not in done.err


def test_a_cell_is_an_ordinary_run(failed_once: dict[str, Any], msdetr: Msdetr) -> None:
    cell = failed_once["output"] / "cells" / "mixed" / "seed_2"
    assert yaml.safe_load((cell / "recipe.yaml").read_text())["train"]["seed"] == 2
    assert (cell / "report.html").is_file()
    assert msdetr("eval", "--ckpt", cell, "--device", "cpu").code == 0


def test_a_finished_study_has_nothing_to_do(failed_once: dict[str, Any], msdetr: Msdetr) -> None:
    command = ("study", "run", failed_once["file"], "--output", failed_once["output"], *RUN)
    done = msdetr(*command)
    assert (done.code, done.err) == (0, "")
    estimate = json.loads(msdetr(*command, "--dry-run", "--json").out)
    assert (estimate["num_cells"], estimate["num_to_do"], estimate["seconds"]) == (4, 0, 0)


def test_status_shows_every_cell(failed_once: dict[str, Any], msdetr: Msdetr) -> None:
    done = msdetr("study", "status", failed_once["output"])
    assert done.code == 0
    assert done.out.splitlines()[-1] == "4 finished"
    assert done.out.count("2/2") == 4
    watched = msdetr("study", "status", failed_once["output"], "--watch")
    assert "4 finished" in watched.out


def test_added_seeds_are_run_and_told(
    failed_once: dict[str, Any], msdetr: Msdetr, tmp_path: Path
) -> None:
    file, output = tmp_path / "study.yaml", tmp_path / "out"
    shutil.copy(failed_once["file"], file)
    shutil.copytree(failed_once["output"], output)
    change(file, seeds=[1, 2, 3])
    done = msdetr("study", "run", file, "--output", output, *RUN)
    assert done.code == 0, done.err
    assert "note: seeds added after results had been seen: 3" in done.err
    lock = json.loads((output / "study.lock.json").read_text())
    assert lock["seeds"]["3"]["after_results"]
    assert len(list(output.glob("cells/*/*/analysis"))) == 6


def test_a_cell_trained_by_hand_counts(study_file: Path, msdetr: Msdetr, run_dir: Path) -> None:
    output = study_file.parent / "out"
    change(study_file, seeds=[42])
    shutil.copytree(run_dir, output / "cells" / "mixed" / "seed_42")
    rows = (run_dir / "metrics.jsonl").read_text()
    done = msdetr("study", "run", study_file, "--output", output, *RUN)
    assert done.code == 0, done.err
    assert "note: one seed shows two checkpoints" in done.err
    assert (output / "cells" / "mixed" / "seed_42" / "metrics.jsonl").read_text() == rows
    assert "2 finished" in msdetr("study", "status", output).out


def test_a_dry_run_estimates_and_writes_nothing(
    study_file: Path, msdetr: Msdetr, shapes_root: Path
) -> None:
    assert shapes_root.is_dir()
    output = study_file.parent / "out"
    command = ("study", "run", study_file, "--output", output, *RUN, "--dry-run")
    done = msdetr(*command, "--json")
    assert done.code == 0, done.err
    assert not output.exists()
    estimate = json.loads(done.out)
    assert (estimate["num_cells"], estimate["num_to_do"], estimate["num_workers"]) == (4, 4, 2)
    arms = estimate["arms"]
    assert [(arm["arm"], arm["num_cells"]) for arm in arms] == [("one_to_one", 2), ("mixed", 2)]
    assert estimate["seconds"] == pytest.approx(2 * sum(arm["seconds"] for arm in arms))
    assert estimate["seconds_with_workers"] == estimate["seconds"] / 2
    assert min(arm["memory_mib"] for arm in arms) > 0
    assert "4 of 4 cells to do" in " ".join(msdetr(*command).out.split())


def wait_for_epoch(output: Path) -> None:
    """Wait until a cell has logged an epoch."""
    deadline = time.monotonic() + 120
    while not any('"epoch", ' in f.read_text() for f in output.glob("cells/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_disturbed_study_ends_in_the_same_cells(
    failed_once: dict[str, Any], study_file: Path, msdetr: Msdetr
) -> None:
    output = study_file.parent / "out"
    log = study_file.parent / "log"
    process: subprocess.Popen[bytes] = kill_study.start(study_file, output, log)
    wait_for_epoch(output)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=180) == 143
    assert "the same command goes on with the study" in log.read_text()
    cells = json.loads(msdetr("study", "status", output, "--json").out)["cells"]
    assert [cell for cell in cells if cell["state"] in {"failed", "running"}] == []
    kills = kill_study.disturb(study_file, output, random.Random(0), 2, 15.0)
    assert kills
    assert kill_study.digest_cells(output) == kill_study.digest_cells(failed_once["output"])
