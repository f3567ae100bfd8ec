"""The toy training as a module and as a script."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("toy_training.py")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the script: torch's sums depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy() -> Any:
    """The module ``toy_training``."""
    spec = importlib.util.spec_from_file_location("toy_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_training"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def undisturbed(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """All that a toy training of four epochs is which nobody stops."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    toy.make_trainer(directory, epochs=4).fit()
    outcome: list[Any] = toy.everything(directory)
    return outcome


@pytest.fixture
def start_toy() -> Callable[..., subprocess.Popen[str]]:
    """Starts the toy training as a process; ``launcher`` goes before the script."""

    def start(*arguments: object, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
