"""A run as its directory tells it, whole, young and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.recipe import load_recipe, recipe_to_dict, recipe_to_yaml
from msdetr.stored_runs.stored_run import StoredRun, read_run

EPOCHS = ["train.epochs=2"]


def row(epoch: int, **values: Any) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": epoch, "step": 10 * (epoch + 1), "terms": {}, **values}


def write_rows(run: Path, *rows: dict[str, Any]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two epochs."""
    path = tmp_path / "run"
    checkpoint = path / "checkpoints" / "last"
    checkpoint.mkdir(parents=True)
    recipe = load_recipe("shapes_tiny", EPOCHS)
    (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    info = {"run_state": {"epoch": 2, "step_in_epoch": 0}, "recipe": recipe_to_dict(recipe)}
    (checkpoint / "checkpoint.json").write_text(json.dumps(info))
    cost = {"train_seconds": 61.5, "images_seen": 40, "step_flops": None}
    step = {"kind": "step", "epoch": 0, "step": 1, "terms": {}}
    write_rows(path, step, row(0, ap=0.5, cost={"train_seconds": 30.0}), row(1, ap=0.4, cost=cost))
    return path


def test_a_finished_run(run: Path) -> None:
    found = read_run(run)
    assert (found.state, found.num_epochs, found.problems) == ("finished", 2, ())
    assert (found.best_ap, found.last_ap) == (0.5, 0.4)
    assert found.scores() == [(1, 0.5), (2, 0.4)]
    assert found.costs == {"train_seconds": 61.5, "images_seen": 40.0}
    assert found.recipe == load_recipe("shapes_tiny", EPOCHS)


def test_a_run_that_has_just_begun(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints/last/checkpoint.json").unlink()
    (run / "checkpoints/last").rmdir()
    found = read_run(run)
    assert (found.state, found.num_epochs, found.best_ap, found.costs) == (
        "unfinished",
        0,
        None,
        {},
    )
    (run / "diverged").mkdir()
    assert read_run(run).state == "diverged"


def test_scores_may_be_undefined_or_in_the_final_file_alone(run: Path) -> None:
    write_rows(run, row(0, ap=None))
    assert (read_run(run).best_ap, read_run(run).last_ap) == (None, None)
    write_rows(run, row(0))
    (run / "evaluation").mkdir()
    (run / "evaluation/metrics.json").write_text('{"ap": 0.25}')
    assert (read_run(run).best_ap, read_run(run).last_ap) == (0.25, 0.25)


def test_costs_of_the_checkpoint_count_where_none_are_logged(run: Path) -> None:
    write_rows(run, row(0))
    file = run / "checkpoints/last/checkpoint.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "costs": {"train_seconds": 7, "image_flops": True}}))
    assert read_run(run).costs == {"train_seconds": 7.0}


def test_a_last_line_cut_short_is_no_damage(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epo')
    assert read_run(run).state == "finished"


def _cut_metrics(run: Path) -> None:
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"epoch": 0, "step": 1,', "###"))


def _unknown_key(run: Path) -> None:
    with (run / "recipe.yaml").open("a") as file:
        file.write("odd: 1\n")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut_metrics, "metrics.jsonl: line 1: expected a JSON object"),
        (lambda run: write_rows(run, {"kind": "epoch"}), "metrics.jsonl: line 1: has no epoch"),
        (_unknown_key, "recipe.yaml: line "),
        (lambda run: (run / "recipe.yaml").unlink(), "recipe.yaml: is missing"),
        (
            lambda run: (run / "checkpoints/last/checkpoint.json").write_text("{"),
            "checkpoints/last/checkpoint.json: is missing or damaged",
        ),
    ],
    ids=["metrics", "row", "recipe", "no recipe", "checkpoint"],
)
def test_damage_is_named_and_the_rest_is_read(
    damage: Callable[[Path], object], problem: str, run: Path
) -> None:
    damage(run)
    found: StoredRun = read_run(run)
    assert found.state == "damaged"
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)
    assert "\n" not in found.problems[0]
    assert (found.recipe is None) == problem.startswith("recipe")
    assert found.num_epochs == 2
