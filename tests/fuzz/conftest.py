"""What the answers of the command line must look like, and a small checkpoint."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.api.checkpoints.loaded import checkpoint_info
from msdetr.build import build_model
from msdetr.data.labels import Category, LabelSpace
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.weights import unique_state
from msdetr.recipe import load_recipe

SMALLER = {"model.decoder_layers": 1, "model.num_queries": 8, "data.source": "coco"}
CLASSES = (Category(3, "cat"), Category(7, "dog"))

_COUNT = re.compile(r"^.*: (\d+) problems$")


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    def check(self) -> bool:
        """Demand acceptance, or a refusal of one line per problem; tell which it was."""
        assert self.code in {0, 2}, (self.code, self.err)
        assert "Traceback" not in self.err
        if self.code == 0:
            return True
        first, *others = self.err.removesuffix("\n").split("\n")
        counted = _COUNT.match(first)
        assert len(others) == (int(counted[1]) if counted else 0), self.err
        assert all(line.startswith("  ") for line in others), self.err
        assert self.err.replace("\n", "").isprintable(), ascii(self.err)
        return False


@pytest.fixture(scope="session")
def ask(msdetr: Callable[..., Any]) -> Callable[..., Answer]:
    """Run a command line in this process; an exception that is no answer fails the test."""
    return lambda *arguments: Answer(**vars(msdetr(*arguments)))


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_fields: Callable[..., list[str]]
) -> Path:
    """A checkpoint with every file that there can be; nobody writes to it."""
    recipe = load_recipe("shapes_tiny", tiny_fields(SMALLER))
    label_space = LabelSpace.contiguous(CLASSES)
    torch.manual_seed(0)
    model = build_model(recipe.model, label_space.num_classes)
    folder = tmp_path_factory.mktemp("checkpoints") / "last"
    save_checkpoint(
        folder,
        info=checkpoint_info(recipe, label_space),
        model=unique_state(model),
        ema={name: value + 1 for name, value in unique_state(model).items()},
        training_state={"optimizer": {"state": {0: torch.ones(3)}}, "scaler": None, "seed": 1},
    )
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three images, a.png of 20 x 10 px, b.png and sub/c.png of 8 x 8 px."""
    image = importlib.import_module("PIL.Image")
    folder: Path = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    for name, size in {"a.png": (20, 10), "b.png": (8, 8), "sub/c.png": (8, 8)}.items():
        image.new("RGB", size).save(folder / name)
    return folder
