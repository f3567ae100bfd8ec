"""`msdetr train`: the run's directory, resuming, starting weights, rehearsals."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.engine.records import RunRecords
from msdetr.engine.run_state import RunState
from msdetr.engine.step_report import StepReport
from msdetr.engine.weights import unique_state
from msdetr.evaluation.metrics import SUMMARY_KEYS
from msdetr.interop.official import to_published
from msdetr.recipe import load_recipe

Train = Callable[..., Any]
Rows = Callable[[Path], list[dict[str, Any]]]
COMMAND = str(Path(sys.executable).with_name("msdetr"))
# Weights that a step with this learning rate leaves as they are.
STANDSTILL = ("--set", "train.lr=1e-15", "--set", "train.backbone_lr=0")


def last_weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


def assert_equal_weights(first: Path, second: Path) -> None:
    torch.testing.assert_close(last_weights(first), last_weights(second), rtol=0, atol=0)


@contextmanager
def interrupted_after(num_steps: int) -> Iterator[None]:
    """Let this process send itself SIGTERM after a number of steps."""
    record = RunRecords.step

    def record_and_signal(self: RunRecords, state: RunState, report: StepReport) -> None:
        record(self, state, report)
        if state.step == num_steps:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecords, "step", record_and_signal)
        yield


class TestRunDirectory:
    def test_holds_what_the_contract_names(self, run_dir: Path) -> None:
        present = {str(p.relative_to(run_dir)) for p in run_dir.rglob("*") if p.is_file()}
        checkpoint = ("model.safetensors", "checkpoint.json", "training_state.pt", "SHA256SUMS")
        assert present >= {
            *("recipe.yaml", "environment.json", "metrics.jsonl", "train.log"),
            *(f"checkpoints/{name}/{file}" for name in ("last", "best") for file in checkpoint),
            *("evaluation/metrics.json", "evaluation/predictions.json"),
        }
        assert not [name for name in present if name.endswith((".new", ".old"))]

    def test_recipe_is_the_resolved_one(self, run_dir: Path, tiny: list[str]) -> None:
        assert load_recipe(run_dir / "recipe.yaml") == load_recipe("shapes_tiny", tiny[1::2])

    def test_metrics_have_a_row_per_step_and_epoch(self, run_dir: Path, rows_of: Rows) -> None:
        rows = rows_of(run_dir)
        assert [(row["kind"], row["epoch"], row["step"]) for row in rows] == [
            *(("step", 0, 1), ("step", 0, 2), ("epoch", 0, 2)),
            *(("step", 1, 3), ("step", 1, 4), ("epoch", 1, 4)),
        ]
        supervised = [(branch, layer) for branch in ("one_to_one", "one_to_many") for layer in "01"]
        terms = {
            f"{branch}/{name}/{layer}"
            for branch, layer in [*supervised, ("proposals", "0")]
            for name in ("class", "box", "giou")
        }
        for row in rows:
            assert set(row["terms"]) == terms
            assert row["lr"] == 5e-4
            assert row["loss"] > 0
        for row in (rows[2], rows[5]):
            assert set(SUMMARY_KEYS) <= set(row)

    def test_terms_are_unweighted(self, run_dir: Path, rows_of: Rows) -> None:
        supervision = load_recipe(run_dir / "recipe.yaml").supervision
        for row in rows_of(run_dir):
            total = 0.0
            for key, value in row["terms"].items():
                branch, name, _ = key.split("/")
                total += value * getattr(getattr(supervision, branch).loss, f"{name}_weight")
            assert total == pytest.approx(row["loss"], rel=1e-5)

    def test_checkpoint_says_what_it_is(self, run_dir: Path) -> None:
        info = json.loads((run_dir / "checkpoints/last/checkpoint.json").read_text())
        metrics = json.loads((run_dir / "evaluation/metrics.json").read_text())
        assert info["format_version"] == 1
        assert info["scores"] == {key: metrics[key] for key in SUMMARY_KEYS}
        assert info["classes"]["category_ids"] == list(range(1, 8))
        assert len(set(info["classes"]["names"])) == info["classes"]["num_classes"] == 7
        assert info["recipe"]["model"]["width"] == 32

    def test_environment_names_versions(self, run_dir: Path) -> None:
        environment = json.loads((run_dir / "environment.json").read_text())
        assert environment["packages"]["torch"] == version("torch")

    def test_talk_goes_to_stderr_and_the_log(self, finished: tuple[Path, Any]) -> None:
        folder, done = finished
        assert done.out == f"{folder}\n"
        assert "epoch 2 done" in done.err
        assert "epoch 2 done" in (folder / "train.log").read_text()
        assert "\x1b" not in done.err


class TestResume:
    def test_continued_run_ends_like_the_undisturbed_one(
        self,
        run_dir: Path,
        tmp_path: Path,
        train: Train,
        msdetr: Train,
        rows_of: Rows,
    ) -> None:
        output = tmp_path / "run"
        with interrupted_after(3):
            stopped = train(output)
        assert stopped.code == 143
        assert "after step 3" in stopped.err
        assert "continue with --resume" in stopped.err
        assert "Traceback" not in stopped.err
        elsewhere = tmp_path / "elsewhere"
        options = ("--resume-from", output, "--output", elsewhere, "--device", "cpu")
        assert msdetr("train", output / "recipe.yaml", *options).code == 0
        assert train(output, "--resume").code == 0
        assert_equal_weights(output, run_dir)
        assert_equal_weights(elsewhere, run_dir)
        losses = [[row["loss"] for row in rows_of(run)] for run in (output, run_dir)]
        assert losses[0] == losses[1]

    def test_more_epochs_and_moved_data_end_in_the_same_bits(
        self, shapes_root: Path, tmp_path: Path, train: Train, rows_of: Rows
    ) -> None:
        shutil.copytree(shapes_root, tmp_path / "data")
        fields = ("data.source=coco", "train.schedule=step", "train.lr_drop_epochs=[5]")
        words = [word for field in fields for word in ("--set", field)]

        def go(name: str, data: Path, epochs: int, *more: str) -> Path:
            place = ("--set", f"data.root={data}", "--set", f"train.epochs={epochs}")
            done = train(tmp_path / name, *words, *place, *more)
            assert done.code == 0, done.err
            return tmp_path / name

        whole = go("whole", shapes_root, 2)
        output = go("run", shapes_root, 1)
        go("run", tmp_path / "data", 2, "--resume", "--set", "data.num_workers=1")
        assert_equal_weights(output, whole)
        assert [row["loss"] for row in rows_of(output)] == [row["loss"] for row in rows_of(whole)]
        recipe = load_recipe(output / "recipe.yaml")
        assert (recipe.train.epochs, recipe.data.num_workers) == (2, 1)
        assert recipe.data.root == tmp_path / "data"

    def test_without_a_run_it_starts_one(self, run_dir: Path, tmp_path: Path, train: Train) -> None:
        assert train(tmp_path / "new", "--resume").code == 0
        assert_equal_weights(tmp_path / "new", run_dir)

    def test_finished_run_stays_as_it_is(
        self, run_dir: Path, tmp_path: Path, train: Train, rows_of: Rows
    ) -> None:
        output = tmp_path / "run"
        shutil.copytree(run_dir, output)
        done = train(output, "--resume")
        assert (done.code, done.out) == (0, f"{output}\n")
        assert rows_of(output) == rows_of(run_dir)
        assert_equal_weights(output, run_dir)


class TestInitFrom:
    def listed(self, err: str, kind: str) -> set[str]:
        return {line.split()[1] for line in err.splitlines() if line.startswith(f"{kind} ")}

    @pytest.fixture
    def published(self, run_dir: Path, tmp_path: Path) -> Path:
        state = to_published(load_checkpoint(run_dir).model.state_dict())
        path = tmp_path / "published.pth"
        torch.save({"model": state, "args": argparse.Namespace(lr=1e-4), "epoch": 11}, path)
        return path

    def test_ours_with_other_classes(
        self, run_dir: Path, tmp_path: Path, few_classes: list[str], train: Train
    ) -> None:
        output = tmp_path / "run"
        options = ("--init-from", run_dir, "--limit-train", "4", *STANDSTILL)
        done = train(output, *options, *few_classes)
        assert done.code == 0, done.err
        loaded, fresh = (self.listed(done.err, kind) for kind in ("loaded", "reinitialised"))
        own = last_weights(output)
        given = load_file(run_dir / "checkpoints/best/model.safetensors")
        assert loaded | fresh == set(own)
        assert fresh == {name for name in own if own[name].shape != given[name].shape}
        assert all("class_head" in name for name in fresh)
        assert "shape [3, 32] here, [7, 32] in the file" in done.err
        assert f"{len(loaded)} weights loaded, {len(fresh)} reinitialised, 0 of" in done.err
        for name in loaded:
            torch.testing.assert_close(own[name], given[name])
        classes = json.loads((output / "checkpoints/last/checkpoint.json").read_text())["classes"]
        assert classes["category_ids"] == [10, 30, 70]

    def test_published_file_is_taken_whole(
        self, run_dir: Path, published: Path, tmp_path: Path, train: Train
    ) -> None:
        output = tmp_path / "run"
        done = train(output, "--init-from", published, "--limit-train", "4", *STANDSTILL)
        assert done.code == 0, done.err
        given = unique_state(load_checkpoint(run_dir).model)
        assert self.listed(done.err, "loaded") == set(given)
        assert "0 reinitialised, 0 of the file skipped" in done.err
        torch.testing.assert_close(last_weights(output), given)

    def test_published_file_with_other_classes_and_fewer_layers(
        self, published: Path, tmp_path: Path, few_classes: list[str], train: Train
    ) -> None:
        smaller = ("--set", "model.decoder_layers=1", "--set", "train.epochs=1")
        done = train(tmp_path / "run", "--init-from", published, *few_classes, *smaller)
        assert done.code == 0, done.err
        assert "transformer.decoder.layers.1.linear1.weight" in self.listed(done.err, "skipped")
        assert self.listed(done.err, "reinitialised")
        assert self.listed(done.err, "loaded") >= {"encoder.level_embed"}


class TestOptions:
    def test_seed_and_limits_are_recipe_fields(
        self, run_dir: Path, tmp_path: Path, train: Train, rows_of: Rows
    ) -> None:
        output = tmp_path / "run"
        done = train(output, "--seed", "7", "--limit-train", "4", "--limit-val", "2")
        assert done.code == 0, done.err
        recipe = load_recipe(output / "recipe.yaml")
        assert (recipe.train.seed, recipe.data.train.limit, recipe.data.val.limit) == (7, 4, 2)
        assert [row["step"] for row in rows_of(output) if row["kind"] == "step"] == [1, 2]
        metrics = json.loads((output / "evaluation/metrics.json").read_text())
        assert metrics["num_images"] == 2
        ours, other = last_weights(output), last_weights(run_dir)
        name = "encoder.level_embed"
        assert not torch.allclose(ours[name], other[name], atol=0.05)

    def test_dry_run_writes_nothing(
        self, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = train(tmp_path / "run", "--dry-run")
        assert (done.code, list(tmp_path.iterdir())) == (0, [])
        largest, memory, duration = done.out.splitlines()
        assert largest.startswith("largest padded batch: 2 x ")
        assert "MiB free" in memory
        assert "2 steps per epoch, 2 epochs" in duration

    def test_dry_run_says_the_same_every_time(
        self, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Apart from what the process holds before."""
        monkeypatch.setattr("msdetr.api.dry_run.resident_memory_mib", lambda: 100.0)
        said = [train(tmp_path / "run", "--dry-run").out for _ in range(2)]
        (first, second) = [next(s for s in out.splitlines() if "memory" in s) for out in said]
        assert first.split(" of ")[0] == second.split(" of ")[0]
        assert int(first.split()[2]) > 100

    def test_dry_run_warns_before_memory_runs_out(
        self, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("msdetr.api.dry_run.available_memory_mib", lambda _: 10.0)
        done = train(tmp_path / "run", "--dry-run")
        assert done.code == 0
        assert "warning: this is likely to run out of memory" in done.out

    @pytest.mark.parametrize(("needed", "code"), [(-1.0, 0), (0.9, 1)])
    def test_overfit_reports_success_or_the_failing_stage(
        self,
        needed: float,
        code: int,
        tmp_path: Path,
        train: Train,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("msdetr.api.overfit.OVERFIT_STEPS", 4)
        monkeypatch.setattr("msdetr.api.overfit.OVERFIT_AP", needed)
        done = train(tmp_path / "run", "--overfit", "8")
        assert done.code == code, done.err
        if code == 0:
            assert done.out.startswith("AP 0.")
            assert done.out.endswith(" on 8 training images\n")
            return
        assert done.out == ""
        assert "expected more than 0.9; what fails first is the " in done.err
        assert "of the targets are right" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.slow
    def test_embedded_default_learns_eight_images_by_heart(
        self, tmp_path: Path, msdetr: Train, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Half of the steps are enough, and what the continuous integration has time for.
        monkeypatch.setattr("msdetr.api.overfit.OVERFIT_STEPS", 250)
        data = "data.shapes={num_train: 8, num_val: 4}"
        output = tmp_path / "run"
        done = msdetr(
            "train", "shapes_tiny", "--overfit", "8", "--set", data, "--output", str(output)
        )
        assert done.code == 0, done.err
        metrics = json.loads((output / "evaluation/metrics.json").read_text())
        assert (metrics["num_images"], metrics["ap"] > 0.9) == (8, True)

    def test_stopped_overfit_does_not_offer_to_resume(self, tmp_path: Path, train: Train) -> None:
        with interrupted_after(1):
            done = train(tmp_path / "run", "--overfit", "8")
        assert (done.code, done.out) == (143, "")
        assert done.err.endswith(
            "error: stopped; what --overfit began is not resumed, give another --output\n"
        )

    @pytest.mark.parametrize(
        "options",
        [
            ("--resume", "--init-from", "x"),
            ("--resume", "--resume-from", "x"),
            ("--dry-run", "--overfit", "8"),
            ("--overfit", "8", "--init-from", "x"),
        ],
        ids=" ".join,
    )
    def test_options_that_contradict_each_other(
        self, options: tuple[str, ...], tmp_path: Path, train: Train
    ) -> None:
        done = train(tmp_path / "run", *options)
        assert (done.code, done.out) == (2, "")
        first, *_, other = [option for option in options if option.startswith("--")]
        assert done.err == f"error: {first}: cannot be combined with {other}\n"
        assert not (tmp_path / "run").exists()

    def test_diverged_training_stops_and_says_where(self, tmp_path: Path, train: Train) -> None:
        extreme = ("--set", "train.lr=1e30", "--set", "train.clip_norm=null")
        done = train(tmp_path / "run", *extreme)
        assert (done.code, done.out) == (3, "")
        assert "step 2" in done.err
        assert "images" in done.err
        assert "Traceback" not in done.err


class TestProcess:
    # Ctrl-C and time limits reach every process of the group, the workers as well.
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
    )
    def test_interrupted_group_saves_and_says_how_to_go_on(
        self, number: int, code: int, tmp_path: Path, tiny: list[str], shapes_root: Path
    ) -> None:
        assert shapes_root.is_dir()
        output = tmp_path / "run"
        command = [COMMAND, "train", "shapes_tiny", "--output", str(output), *tiny]
        lasting = ("--set", "train.epochs=1000", "--set", "data.num_workers=1")
        process = subprocess.Popen(
            [*command, "--device", "cpu", *lasting],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            limit = time.monotonic() + 120
            metrics = output / "metrics.jsonl"
            while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < limit:
                time.sleep(0.05)
            os.killpg(process.pid, number)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        assert (process.returncode, out) == (code, ""), err
        assert "continue with --resume" in err
        assert "Traceback" not in err
        assert load_checkpoint(output).recipe.train.epochs == 1000
