"""The command line inside this process, and one short training that many tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from msdetr.data import shapes
from msdetr.data.shapes.outlines import SHAPE_CLASSES
from msdetr.model.flops import FlopCounter
from msdetr.ops import default_backend, native
from msdetr.structures import ImageBatch, NoisedTargets

NUM_TRAIN, NUM_VAL = 8, 4
TINY = {
    # So that a resumed run has random numbers to repeat.
    "model.dropout": 0.1,
    "data.shapes": f"{{num_train: {NUM_TRAIN}, num_val: {NUM_VAL}}}",
    "train.schedule": "step",
    "train.lr": 5e-4,
    "train.epochs": 2,
}


Msdetr = Callable[..., Any]


def write_annotations(folder: Path, category_ids: dict[int, int], split: str = "train") -> Path:
    """Write the generated annotations of a split with other categories.

    Args:
        folder: Root of generated shapes; the file is written beside its annotations.
        category_ids: New id by old one; objects of other classes are left out.
        split: "train" or "val".
    """
    original = folder / "annotations" / f"instances_{split}2017.json"
    content = json.loads(original.read_text())
    content["annotations"] = [
        {**entry, "category_id": category_ids[entry["category_id"]]}
        for entry in content["annotations"]
        if entry["category_id"] in category_ids
    ]
    named = {c["id"]: c["name"] for c in content["categories"]}
    content["categories"] = [
        {"id": new, "name": named[old]} for old, new in sorted(category_ids.items())
    ]
    path = original.with_name(f"{split}_{'_'.join(map(str, category_ids.values()))}.json")
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this session's own, which shares nothing but the compiled kernels."""
    folder = tmp_path_factory.mktemp("cache")
    if default_backend("cpu") == "native":
        kernels = native.plan_build("cpu").library.parent
        (folder / kernels.name).symlink_to(kernels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSDETR_CACHE", str(folder))
        yield folder


def described(model: nn.Module) -> Iterator[tuple[object, ...]]:
    """Yield the shapes of a model's values, and all settings of its parts."""
    yield from ((name, value.shape) for name, value in model.state_dict().items())
    for name, part in model.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, bool | int | float | str):
                yield name, key, value


@pytest.fixture(scope="session", autouse=True)
def counted_once() -> Iterator[None]:
    """Count the operations of alike training batches once: that takes a third of a tiny run."""
    count, known = FlopCounter.count_training, dict[Any, int]()

    def count_once(
        self: FlopCounter, images: ImageBatch, noised: NoisedTargets | None = None
    ) -> int:
        if noised is not None:
            return count(self, images, noised)
        key = (images.pixels.shape, *described(self._model))
        if key not in known:
            known[key] = count(self, images)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlopCounter, "count_training", count_once)
        yield


@pytest.fixture(scope="session")
def tiny(tiny_fields: Callable[..., list[str]]) -> list[str]:
    """Options that make shapes_tiny a matter of seconds."""
    return [word for field in tiny_fields(TINY) for word in ("--set", field)]


@pytest.fixture(scope="session")
def shapes_root(cache: Path) -> Path:
    """The generated data set that the tiny trainings read; nobody writes to it."""
    folder = shapes.default_folder(NUM_TRAIN, NUM_VAL)
    assert folder.parent == cache
    return shapes.ensure(folder, NUM_TRAIN, NUM_VAL)


@pytest.fixture(scope="session")
def few_classes(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that make the data set one of three classes with other ids, in COCO's format."""
    ids = {1: 10, 3: 30, len(SHAPE_CLASSES): 70}
    options = {"data.source": "coco", "data.root": shapes_root}
    for split in ("train", "val"):
        file = write_annotations(shapes_root, ids, split)
        options[f"data.{split}.annotations"] = file.rename(
            tmp_path_factory.mktemp("annotations") / file.name
        )
    return [text for key, value in options.items() for text in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def train(msdetr: Msdetr, tiny: list[str], shapes_root: Path) -> Msdetr:
    """Train the tiny shapes_tiny on the CPU: output directory, further options."""
    assert shapes_root.is_dir()

    def run(output: Path, *options: str | Path) -> Any:
        command = ("train", "shapes_tiny", "--output", output, "--device", "cpu")
        return msdetr(*command, *tiny, *options)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, train: Msdetr) -> tuple[Path, Any]:
    """A finished training: its directory, which nobody writes to, and what was said."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    done = train(folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture(scope="session")
def run_dir(finished: tuple[Path, Any]) -> Path:
    """Directory of the finished training."""
    return finished[0]


@pytest.fixture(scope="session")
def content_of() -> Callable[[Path], dict[str, str]]:
    """Hash every file below a folder, by relative path."""

    def digests(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return digests


@pytest.fixture
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    """Read the metrics of a run."""

    def rows(run: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    return rows


@pytest.fixture
def refused(
    msdetr: Msdetr, tmp_path: Path, content_of: Callable[[Path], dict[str, str]]
) -> Callable[..., list[str]]:
    """Run a command that must be refused, and return the lines of its message."""

    def run(*arguments: str | Path) -> list[str]:
        before = content_of(tmp_path)
        done = msdetr(*arguments)
        assert (done.code, done.out) == (2, ""), done.err
        assert "Traceback" not in done.err
        assert content_of(tmp_path) == before
        lines: list[str] = done.err.splitlines()
        assert lines[0].startswith("error: ")
        return lines

    return run


@pytest.fixture
def refused_line(refused: Callable[..., list[str]]) -> Callable[..., str]:
    """Run a command that must be refused for one reason, and return the one line."""

    def run(*arguments: str | Path) -> str:
        lines = refused(*arguments)
        assert len(lines) == 1, lines
        return lines[0]

    return run


@pytest.fixture
def refused_training(
    refused_line: Callable[..., str], tmp_path: Path, tiny: list[str], shapes_root: Path
) -> Callable[..., str]:
    """Start a tiny training that must be refused for one reason; no output appears."""
    assert shapes_root.is_dir()

    def run(*options: str | Path) -> str:
        output = tmp_path / "run"
        line = refused_line("train", "shapes_tiny", "--output", output, *tiny, *options)
        assert not output.exists()
        return line

    return run
