"""Images that break in mid-training, data and recipes that change before a run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from msdetr.data.sampling import EpochPlan
from msdetr.engine.records import RunRecords
from msdetr.engine.run_state import RunState
from msdetr.engine.step_report import StepReport
from msdetr.recipe import load_recipe

Train = Callable[..., Any]
Damage = Callable[[Path], object]
NUM_TRAIN, BATCH_SIZE, SEED = 8, 4, 42


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (Path.unlink, "the image file does not exist"),
    "truncated": (truncate, "cannot be read as an image"),
}
ONE_EPOCH = ("--set", "train.epochs=1")


@pytest.fixture
def root(shapes_root: Path, tmp_path: Path) -> Path:
    """A copy of the data set that may be damaged."""
    return Path(shutil.copytree(shapes_root, tmp_path / "data"))


@pytest.fixture
def own_data(root: Path) -> tuple[str, ...]:
    return ("--set", "data.source=coco", "--set", f"data.root={root}")


def image_of_step(root: Path, step: int) -> Path:
    """File of an image that is read in a step, counted from 0, of the first epoch."""
    content = json.loads((root / "annotations/instances_train2017.json").read_text())
    images = sorted(content["images"], key=lambda image: int(image["id"]))
    plan = EpochPlan(NUM_TRAIN, BATCH_SIZE, 2, SEED)
    _, position = next(plan.batches(0, first_step=step))[1]
    return root / "train2017" / images[position]["file_name"]


@contextmanager
def after_step(number: int, act: Callable[[], object]) -> Iterator[None]:
    """Do something to a training once a step is finished and recorded."""
    record = RunRecords.step

    def record_and_act(self: RunRecords, state: RunState, report: StepReport) -> None:
        record(self, state, report)
        if state.step == number:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecords, "step", record_and_act)
        yield


def steps_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timing = {"images_per_second", "memory_mib", "cost"}
    return [{k: v for k, v in row.items() if k not in timing} for row in rows]


def assert_equal_runs(first: Path, second: Path) -> None:
    one, other = (load_file(run / "checkpoints/last/model.safetensors") for run in (first, second))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert steps_of(first) == steps_of(second)


@pytest.fixture(scope="module")
def finished_run(
    shapes_root: Path, train: Train, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...]]:
    """A run of one epoch with data of its own, and its options."""
    folder = tmp_path_factory.mktemp("changes")
    shutil.copytree(shapes_root, folder / "data")
    data = ("--set", "data.source=coco", "--set", f"data.root={folder / 'data'}")
    assert train(folder / "run", *data, *ONE_EPOCH).code == 0
    return folder, (*data, *ONE_EPOCH)


class TestUnreadableImage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_stops_the_training_with_its_name(
        self, damage: str, root: Path, own_data: tuple[str, ...], train: Train, tmp_path: Path
    ) -> None:
        image, output = image_of_step(root, 1), tmp_path / "run"
        act, reason = DAMAGES[damage]
        with after_step(1, lambda: act(image)):
            done = train(output, *own_data)
        assert (done.code, done.out) == (2, "")
        last = done.err.splitlines()[-1]
        assert last.startswith(f"error: {image}: ")
        assert reason in last
        assert "Traceback" not in done.err

    def test_what_was_reached_is_kept(
        self, root: Path, own_data: tuple[str, ...], train: Train, tmp_path: Path
    ) -> None:
        """With the image back in its place the run ends as if nothing had happened."""
        image, output = image_of_step(root, 1), tmp_path / "run"
        aside = image.with_suffix(".aside")
        with after_step(1, lambda: image.rename(aside)):
            done = train(output, *own_data, *ONE_EPOCH)
        assert done.code == 2
        aside.rename(image)
        info = json.loads((output / "checkpoints/last/checkpoint.json").read_text())
        assert info["run_state"]["step"] == 1
        assert train(output, *own_data, *ONE_EPOCH, "--resume").code == 0
        assert train(tmp_path / "undisturbed", *own_data, *ONE_EPOCH).code == 0
        assert_equal_runs(output, tmp_path / "undisturbed")

    def test_before_the_first_step_is_no_dead_end(
        self, root: Path, own_data: tuple[str, ...], train: Train, tmp_path: Path
    ) -> None:
        image, output = image_of_step(root, 0), tmp_path / "run"
        aside = image.with_suffix(".aside")
        image.rename(aside)
        assert train(output, *own_data, *ONE_EPOCH).code == 2
        changed = (*own_data, *ONE_EPOCH, "--set", "train.lr=0.001")
        refused = train(output, *changed, "--resume")
        assert refused.code == 2
        assert "train.lr   was 0.0005 in the run, is 0.001 now" in refused.err
        assert "no step was trained yet; start the run anew, without --resume" in refused.err
        aside.rename(image)
        assert train(output, *changed).code == 0
        assert load_recipe(output / "recipe.yaml").train.lr == 0.001
        again = train(output, *changed)
        assert again.code == 2
        assert "is not empty" in again.err

    def test_is_skipped_counted_and_logged_if_the_recipe_says_so(
        self, root: Path, own_data: tuple[str, ...], train: Train, tmp_path: Path
    ) -> None:
        gone, cut = image_of_step(root, 0), image_of_step(root, 1)
        gone.unlink()
        truncate(cut)
        skip = (*own_data, "--set", "data.unreadable_images=skip")
        output, resumed = tmp_path / "run", tmp_path / "resumed"
        done = train(output, *skip)
        assert done.code == 0, done.err
        for text in (done.err, (output / "train.log").read_text()):
            assert f"step 1: skipped {gone}: the image file does not exist" in text
            assert f"step 2: skipped {cut}: cannot be read as an image" in text
        counts = [row["skipped_images"] for row in steps_of(output) if row["kind"] == "epoch"]
        # Where one stood next to the other, both were skipped for the image after them.
        numbers = sorted(int(image.stem) for image in (gone, cut))
        per_epoch = 3 if numbers[1] - numbers[0] in {1, NUM_TRAIN - 1} else 2
        assert counts == [per_epoch, 2 * per_epoch]
        self.interrupt_and_resume(train, resumed, skip)
        assert_equal_runs(output, resumed)

    def interrupt_and_resume(self, train: Train, output: Path, options: tuple[str, ...]) -> None:
        def fail() -> None:
            raise KeyboardInterrupt

        workers = (*options, "--set", "data.num_workers=0")
        with after_step(3, fail):
            assert train(output, *workers).code == 130
        assert train(output, *workers, "--resume").code == 0

    def test_nothing_is_skipped_in_evaluation(
        self, root: Path, own_data: tuple[str, ...], train: Train, tmp_path: Path
    ) -> None:
        image = next((root / "val2017").iterdir())
        truncate(image)
        skip = ("--set", "data.unreadable_images=skip")
        done = train(tmp_path / "run", *own_data, *ONE_EPOCH, *skip)
        assert done.code == 2
        assert f"{image}: cannot be read as an image" in done.err

    def test_a_folder_that_is_gone_is_no_matter_of_single_images(
        self, root: Path, own_data: tuple[str, ...], train: Train, tmp_path: Path
    ) -> None:
        def empty() -> None:
            for image in (root / "train2017").iterdir():
                image.unlink()

        with after_step(1, empty):
            done = train(tmp_path / "run", *own_data, "--set", "data.unreadable_images=skip")
        assert done.code == 2
        assert f"{root / 'train2017'}: 8 images in a row cannot be read" in done.err


class TestChangesBeforeResuming:
    @pytest.fixture
    def begun(
        self, finished_run: tuple[Path, tuple[str, ...]], tmp_path: Path
    ) -> tuple[Path, tuple[str, ...]]:
        """A copy of the run, and the options to resume it."""
        folder, options = finished_run
        return Path(shutil.copytree(folder / "run", tmp_path / "run")), (*options, "--resume")

    @pytest.fixture
    def annotations(self, finished_run: tuple[Path, tuple[str, ...]]) -> Iterator[dict[str, Path]]:
        """The run's annotation files by split; they become what they were."""
        folder = finished_run[0] / "data/annotations"
        files = {split: folder / f"instances_{split}2017.json" for split in ("train", "val")}
        contents = {file: file.read_bytes() for file in files.values()}
        yield files
        for file, content in contents.items():
            file.write_bytes(content)

    @pytest.mark.parametrize("splits", [("train",), ("val",), ("train", "val")], ids="+".join)
    def test_changed_annotations_are_refused(
        self,
        splits: tuple[str, ...],
        begun: tuple[Path, tuple[str, ...]],
        annotations: dict[str, Path],
        train: Train,
    ) -> None:
        output, options = begun
        for split in splits:
            content = json.loads(annotations[split].read_text())
            content["annotations"][0]["bbox"][2] += 1
            annotations[split].write_text(json.dumps(content))
        before = sorted((path, path.stat().st_mtime_ns) for path in output.rglob("*"))
        done = train(output, *options)
        assert (done.code, done.out) == (2, "")
        assert sorted((path, path.stat().st_mtime_ns) for path in output.rglob("*")) == before
        for split in splits:
            (line,) = [line for line in done.err.splitlines() if str(annotations[split]) in line]
            assert "is not what the run began with: its SHA-256 was " in line
        assert "Traceback" not in done.err

    def test_a_file_written_again_is_the_same(
        self,
        begun: tuple[Path, tuple[str, ...]],
        annotations: dict[str, Path],
        train: Train,
    ) -> None:
        output, options = begun
        annotations["train"].write_bytes(annotations["train"].read_bytes())
        assert train(output, *options).code == 0

    def test_every_changed_field_has_its_line(
        self, begun: tuple[Path, tuple[str, ...]], train: Train
    ) -> None:
        output, options = begun
        changes = ("--set", "train.lr=0.5", "--set", "model.dropout=0.3")
        done = train(output, *options, *changes)
        first, *lines = done.err.splitlines()
        assert done.code == 2
        assert first == f"error: {output / 'checkpoints/last'}: 2 problems"
        assert [" ".join(line.split(";")[0].split()) for line in lines] == [
            "model.dropout was 0.1 in the run, is 0.3 now",
            "train.lr was 0.0005 in the run, is 0.5 now",
        ]

    def test_another_description_is_no_change(
        self, begun: tuple[Path, tuple[str, ...]], train: Train
    ) -> None:
        output, options = begun
        assert train(output, *options, "--set", "description=mine").code == 0

    def test_a_run_without_a_checkpoint_keeps_its_recipe_too(
        self, begun: tuple[Path, tuple[str, ...]], train: Train
    ) -> None:
        output, options = begun
        shutil.rmtree(output / "checkpoints")
        done = train(output, *options, "--set", "train.lr=0.5")
        assert done.code == 2
        assert f"{output / 'recipe.yaml'}: train.lr: was 0.0005 in the run, is 0.5 now" in done.err
        assert load_recipe(output / "recipe.yaml").train.lr == 0.0005
        assert train(output, *options).code == 0
