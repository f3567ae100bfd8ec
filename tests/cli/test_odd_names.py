"""Class and file names as real exports have them go through every command as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Msdetr = Callable[..., Any]

NAMES = (
    "bolt [m6]",
    "[unknown]",
    "on [/off]",
    "evil\x1b[2J",
    "two\nlines",
    "half \ud800",
    ":smile:",
)
SHOWN = ("bolt [m6]", "[unknown]", "on [/off]", r"evil\x1b[2J", r"two\nlines", r"half \ud800")


@pytest.fixture(scope="module")
def root(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes whose classes have odd names, the last two the same one."""
    folder = tmp_path_factory.mktemp("odd") / "data [1]"
    shutil.copytree(shapes_root, folder)
    for split in ("train", "val"):
        file = folder / f"annotations/instances_{split}2017.json"
        content = json.loads(file.read_text())
        for number, category in enumerate(content["categories"]):
            category["name"] = NAMES[min(number, len(NAMES) - 1)]
        content["categories"][-1]["name"] = NAMES[0]
        file.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory, train: Callable[..., Any]) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run [a]"
    fields = ("data.source=coco", f"data.root={root}", "train.epochs=1")
    words = [word for field in fields for word in ("--set", field)]
    done = train(output, *words)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert (output / "report.html").is_file()
    return output


def assert_literal(text: str) -> None:
    assert "\x1b" not in text
    assert "Traceback" not in text
    for name in SHOWN[1:]:
        assert name in text, name


def test_data_check_shows_every_class(root: Path, msdetr: Msdetr) -> None:
    fields = ("data.source=coco", f"data.root={root}")
    words = [word for field in fields for word in ("--set", field)]
    done = msdetr("data", "check", "shapes_tiny", *words)
    text = "".join((done.out, done.err))
    assert_literal(text)
    assert "bolt [m6] (id 1)" in text
    assert "names belong to several classes" in text


def test_eval_and_predict_name_them(run: Path, root: Path, tmp_path: Path, msdetr: Msdetr) -> None:
    done = msdetr("eval", "--ckpt", run, "--device", "cpu")
    assert done.code == 0, done.err
    assert_literal(done.out)
    images = root / "val2017"
    options = ("--output", tmp_path / "found", "--threshold", "0")
    done = msdetr("predict", images, "--ckpt", run, "--device", "cpu", *options)
    assert done.code == 0, done.err
    assert list((tmp_path / "found").rglob("*.png")) or list((tmp_path / "found").rglob("*.jpg"))


def test_inspection_names_them(run: Path, tmp_path: Path, msdetr: Msdetr) -> None:
    output = tmp_path / "matching"
    done = msdetr("inspect-matching", "--ckpt", run, "--device", "cpu", "--output", output)
    assert done.code == 0, done.err
    assert "[unknown]" in next(output.glob("*.html")).read_text()
