"""A real detector, small enough to be trained by several processes in seconds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from msdetr.data import shapes
from msdetr.data.sampling import EpochPlan

SCRIPT = Path(__file__).with_name("run_ranks.py")
NUM_TRAIN, NUM_VAL, BATCH_SIZE, IMAGES_PER_FORWARD, SEED = 48, 6, 16, 2, 42
SMALL = {
    "model.dropout": 0.1,
    "data.source": "coco",
    "data.num_workers": 1,
    # Images of a batch differ in size, and so do batches.
    "data.pad_multiple": 1,
    "data.augmentation.train_sizes": "[64, 80, 96]",
    "data.augmentation.crop_probability": 0.5,
    "data.augmentation.crop_pre_sizes": "[72, 96]",
    "data.augmentation.crop_min": 48,
    "data.augmentation.crop_max": 72,
    # Five positives are allowed for an image, but most queries score more than this.
    "supervision.one_to_many.threshold": 0.05,
    "train.schedule": "step",
    "train.lr": 2e-4,
    "train.backbone_lr": 2e-5,
    "train.batch_size": BATCH_SIZE,
    "train.images_per_forward": IMAGES_PER_FORWARD,
    "train.epochs": 1,
    "train.ema": "{decay: 0.9}",
    "train.seed": SEED,
    "evaluation.batch_size": 1,
}


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of every process: one thread, loopback."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes; the second of two or four processes meets no target in the first step."""
    root = shapes.ensure(tmp_path_factory.mktemp("shapes") / "root", NUM_TRAIN, NUM_VAL)
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    ids = sorted(image["id"] for image in content["images"])
    plan = EpochPlan(NUM_TRAIN, BATCH_SIZE, IMAGES_PER_FORWARD, SEED)
    turns = BATCH_SIZE // IMAGES_PER_FORWARD // 2
    dealt = list(plan.batches(0, rank=1, num_processes=2))[:turns]
    emptied = {ids[position] for batch in dealt for _, position in batch}
    assert len(emptied) == BATCH_SIZE // 2
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in emptied]
    path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def image_of_rank_1(data_root: Path) -> str:
    """File name of an image that the second of two processes reads in the second step."""
    content = json.loads((data_root / "annotations" / "instances_train2017.json").read_text())
    images = sorted(content["images"], key=lambda image: int(image["id"]))
    plan = EpochPlan(NUM_TRAIN, BATCH_SIZE, IMAGES_PER_FORWARD, SEED)
    _, position = next(plan.batches(0, rank=1, num_processes=2, first_step=1))[0]
    return str(images[position]["file_name"])


@pytest.fixture
def truncated_image(tmp_path: Path, data_root: Path, image_of_rank_1: str) -> Path:
    """An image, in a copy of the data, of which only half is there."""
    shutil.copytree(data_root, tmp_path / "data")
    image = tmp_path / "data" / "train2017" / image_of_rank_1
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return image


@pytest.fixture(scope="session")
def small(data_root: Path, tiny_fields: Callable[..., list[str]]) -> list[str]:
    """The words of a training, but for its output."""
    fields = tiny_fields({**SMALL, "data.root": data_root})
    words = [word for field in fields for word in ("--set", field)]
    return ["train", "shapes_tiny", "--device", "cpu", *words]


@pytest.fixture(scope="session")
def run_ranks(environment: dict[str, str]) -> Callable[..., tuple[list[list[int]], str]]:
    """Run (number of processes, words) one after the other.

    Returns the exit codes of every job's processes, and what they said on stderr.
    """

    def run_jobs(*jobs: tuple[int, Sequence[str | Path]]) -> tuple[list[list[int]], str]:
        listed = [{"processes": n, "arguments": [str(w) for w in words]} for n, words in jobs]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), json.dumps(listed)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run_jobs


@pytest.fixture(scope="session")
def run(run_ranks: Callable[..., tuple[list[list[int]], str]]) -> Callable[..., None]:
    """Run (number of processes, words) one after the other; all must succeed."""

    def run_well(*jobs: tuple[int, Sequence[str | Path]]) -> None:
        codes, said = run_ranks(*jobs)
        assert codes == [[0] * count for count, _ in jobs], said

    return run_well


def weights_of(run_dir: Path) -> dict[str, Tensor]:
    """Parameters and buffers, and their averages."""
    last = run_dir / "checkpoints" / "last"
    return {
        f"{file}/{name}": value
        for file in ("model", "ema")
        for name, value in load_file(last / f"{file}.safetensors").items()
    }


@pytest.fixture(scope="session")
def largest_difference() -> Callable[[Path, Path], float]:
    """Over all parameters, buffers and averages of two runs."""

    def compare(first: Path, second: Path) -> float:
        one, other = weights_of(first), weights_of(second)
        assert one.keys() == other.keys()
        return max((one[k].double() - other[k].double()).abs().max().item() for k in one)

    return compare


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The metrics of a run, without what depends on the machine."""

    def rows(run_dir: Path) -> list[dict[str, Any]]:
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        timing = ("images_per_second", "memory_mib", "cost")
        return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]

    return rows
