"""`msdetr runs` on folders of runs, and `msdetr recipes diff`, which reads runs as well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.recipe import load_recipe, recipe_to_dict, recipe_to_yaml

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs, one of them damaged, and something else."""
    write_run(tmp_path / "runs/slow", [0.2, 0.6], 100.0, "train.lr=1e-4")
    write_run(tmp_path / "runs/fast", [0.5, 0.4], 40.0)
    damaged = write_run(tmp_path / "runs/broken", [0.1, 0.1], 70.0)
    (damaged / "recipe.yaml").write_text("train: [")
    (tmp_path / "runs/notes").mkdir()
    return tmp_path / "runs"


def write_run(path: Path, scores: list[float], seconds: float, *overrides: str) -> Path:
    """Write what a run of ``shapes_tiny`` leaves, one epoch per score."""
    recipe = load_recipe("shapes_tiny", [f"train.epochs={len(scores)}", *overrides])
    checkpoint = path / "checkpoints/last"
    checkpoint.mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    info = {"run_state": {"epoch": len(scores)}, "recipe": recipe_to_dict(recipe)}
    (checkpoint / "checkpoint.json").write_text(json.dumps(info))
    cost = {"train_seconds": seconds, "peak_memory_mib": 900.0}
    rows = [
        {"kind": "epoch", "epoch": epoch, "terms": {}, "ap": ap, "ap50": ap, "cost": cost}
        for epoch, ap in enumerate(scores)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class TestList:
    def test_best_first_with_the_damaged_one_named(
        self, folder: Path, msdetr: Callable[..., Any]
    ) -> None:
        done = msdetr("runs", "list", folder, "--json")
        assert done.code == 0
        assert done.err.startswith(f"damaged: {folder / 'broken'}: recipe.yaml: line 1: ")
        assert len(done.err.splitlines()) == 1
        found = json.loads(done.out)
        assert found["reference"] == "fast"
        runs = {run["name"]: run for run in found["runs"]}
        assert list(runs) == ["slow", "fast", "broken"]
        assert runs["slow"]["best_ap"] == runs["slow"]["last_ap"] == 0.6
        assert runs["fast"]["best_ap"], runs["fast"]["last_ap"] == (0.5, 0.4)
        assert runs["slow"]["differences"] == {"train.lr": {"reference": 1e-3, "run": 1e-4}}
        assert runs["broken"]["differences"] is None
        assert [run["state"] for run in runs.values()] == ["finished", "finished", "damaged"]
        assert runs["slow"]["cost"]["train_seconds"] == 100.0

    @pytest.mark.parametrize(
        ("order", "names"),
        [
            ("ap", ["slow", "fast", "broken"]),
            ("time", ["slow", "broken", "fast"]),
            ("name", ["broken", "fast", "slow"]),
            ("epochs", ["broken", "fast", "slow"]),
        ],
    )
    def test_order(
        self, order: str, names: list[str], folder: Path, msdetr: Callable[..., Any]
    ) -> None:
        found = json.loads(msdetr("runs", "list", folder, "--sort", order, "--json").out)
        assert [run["name"] for run in found["runs"]] == names

    def test_table(self, folder: Path, msdetr: Callable[..., Any]) -> None:
        words = msdetr("runs", "list", folder).out.split()
        assert {"slow", "60.0", "0:01:40", "2/2", "train.lr=0.0001", "2/?", "damaged"} <= set(words)

    def test_reference(self, folder: Path, msdetr: Callable[..., Any]) -> None:
        done = msdetr("runs", "list", folder, "--reference", "shapes_tiny", "--json")
        fast = next(run for run in json.loads(done.out)["runs"] if run["name"] == "fast")
        assert fast["differences"] == {"train.epochs": {"reference": 4, "run": 2}}

    def test_refuses_a_folder_without_runs(
        self, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        assert "holds no training run" in refused_line("runs", "list", tmp_path)
        assert "does not exist" in refused_line("runs", "list", tmp_path / "nothing")

    def test_loads_no_torch(self, folder: Path) -> None:
        code = (
            "import sys, msdetr.cli.main as m; code = m.main(sys.argv[1:]);"
            "sys.exit(code or 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "runs", "list", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "slow" in done.stdout


class TestShow:
    def test_facts_and_evaluations(self, folder: Path, msdetr: Callable[..., Any]) -> None:
        done = msdetr("runs", "show", folder / "slow", "--reference", folder / "fast", "--json")
        found = json.loads(done.out)
        assert [(each["epoch"], each["ap"]) for each in found["evaluations"]] == [
            (1, 0.2),
            (2, 0.6),
        ]
        assert found["recipe"]["train"]["lr"] == 1e-4
        assert list(found["differences"]) == ["train.lr"]
        shown = msdetr("runs", "show", folder / "slow", "--reference", folder / "fast").out
        for part in ("finished", "900 MiB", "0:01:40", "20.0", "train.lr", "0.0001"):
            assert part in shown

    def test_damaged_and_missing(
        self, folder: Path, msdetr: Callable[..., Any], refused_line: Callable[..., str]
    ) -> None:
        done = msdetr("runs", "show", folder / "broken")
        assert done.code == 0
        assert done.err.startswith(f"damaged: {folder / 'broken'}: recipe.yaml")
        assert "holds no training run" in refused_line("runs", "show", folder / "notes")


class TestDiff:
    def test_fields_that_differ_with_the_runs_of_each_value(
        self, folder: Path, msdetr: Callable[..., Any]
    ) -> None:
        write_run(
            folder / "third",
            [0.3],
            10.0,
            "model.query_groups.hybrid={queries: 90}",
            "supervision.hybrid={}",
        )
        found = json.loads(msdetr("runs", "diff", folder, "--json").out)
        fields = found["fields"]
        assert list(fields) == [
            "model.query_groups.hybrid",
            "supervision.hybrid",
            "train.epochs",
            "train.lr",
        ]
        assert fields["train.lr"] == {"fast": 1e-3, "slow": 1e-4, "third": 1e-3}
        assert fields["model.query_groups.hybrid"]["fast"] is None
        assert found["best_ap"] == {"broken": 0.1, "fast": 0.5, "slow": 0.6, "third": 0.3}
        shown = " ".join(msdetr("runs", "diff", folder).out.split())
        assert "train.lr 0.001 fast (50.0), third (30.0) 0.0001 slow (60.0)" in shown


class TestRecipesDiff:
    def test_changed_fields_alone(self, msdetr: Callable[..., Any]) -> None:
        done = msdetr("recipes", "diff", "ddetr_pp_300q", "ddetr_pp_900q", "--json")
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out) == {
            "model.num_queries": {"first": 300, "second": 900},
            "evaluation.detections_per_image": {"first": 100, "second": 300},
        }
        shown = msdetr("recipes", "diff", "shapes_tiny", "shapes_tiny_baseline").out
        assert "supervision.one_to_many" in shown
        assert "train.lr" not in shown

    def test_files_and_runs(self, folder: Path, msdetr: Callable[..., Any]) -> None:
        file = folder / "mine.yaml"
        file.write_text("extends: shapes_tiny\ntrain: {epochs: 2, seed: 7}\n")
        done = msdetr("recipes", "diff", folder / "slow", file, "--json")
        assert json.loads(done.out) == {
            "train.lr": {"first": 1e-4, "second": 1e-3},
            "train.seed": {"first": 42, "second": 7},
        }

    def test_equal_recipes(self, msdetr: Callable[..., Any]) -> None:
        done = msdetr("recipes", "diff", "shapes_tiny", "shapes_tiny")
        assert (done.code, done.out, done.err) == (0, "", "the recipes do not differ\n")
        assert msdetr("recipes", "diff", "shapes_tiny", "shapes_tiny", "--json").out == "{}\n"

    def test_what_is_no_recipe(self, folder: Path, refused_line: Callable[..., str]) -> None:
        assert "no packaged recipe" in refused_line("recipes", "diff", "shapes_tiny", "nothing")
        assert "broken YAML" in refused_line("recipes", "diff", "shapes_tiny", folder / "broken")
