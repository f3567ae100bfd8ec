"""A machine without a C++ compiler: slower, one line that says so, the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from msdetr.ops import dispatch, native


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forget() -> None:
        dispatch.default_backend.cache_clear()
        native.load.cache_clear()

    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    yield
    forget()


@pytest.mark.usefixtures("_no_compiler")
def test_training_goes_on_with_one_line(
    train: Callable[..., Any],
    rows_of: Callable[[Path], list[dict[str, Any]]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = train(tmp_path / "run", "--set", "train.epochs=1")
    assert done.code == 0, done.err
    assert rows_of(tmp_path / "run")[-1]["kind"] == "epoch"
    said = [record.getMessage() for record in caplog.records if "slow" in record.getMessage()]
    assert said == [
        "deformable attention on cpu is slow: no C++ compiler (no-such-compiler) on PATH; "
        "install g++ or set CXX"
    ]
