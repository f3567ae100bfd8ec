from __future__ import annotations

import argparse
import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.errors import CheckpointError, MsdetrError, VerificationError
from msdetr.interop.published_file import read_published_file, write_published_file

STATE = {"class_embed.0.bias": torch.arange(3.0), "input_proj.0.0.bias": torch.ones(2)}


def test_file_with_its_command_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    arguments = argparse.Namespace(lr=2e-4, two_stage=True, names=("a", "b"), odd=float("nan"))
    optimizer = {"state": {}, "param_groups": [{"lr": 2e-4}]}
    torch.save({"model": STATE, "args": arguments, "optimizer": optimizer, "epoch": 11}, path)
    read = read_published_file(path)
    assert read.state.keys() == STATE.keys()
    assert all(torch.equal(read.state[name], STATE[name]) for name in STATE)
    assert read.arguments == {"lr": 2e-4, "two_stage": True, "names": ["a", "b"], "odd": "nan"}
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bare_state_dict(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "bare.pth")
    read = read_published_file(tmp_path / "bare.pth")
    assert (read.state.keys(), read.arguments) == (STATE.keys(), {})


@pytest.mark.parametrize("nested", [True, False])
def test_names_of_a_wrapped_model_lose_the_wrapper(tmp_path: Path, nested: bool) -> None:
    wrapped = {f"module.{name}": value for name, value in STATE.items()}
    torch.save({"model": wrapped} if nested else wrapped, tmp_path / "wrapped.pth")
    read = read_published_file(tmp_path / "wrapped.pth")
    assert read.state.keys() == STATE.keys()
    assert "'module.'" in read.notice
    some = {**wrapped, "other": torch.zeros(1)}
    torch.save(some, tmp_path / "some.pth")
    read = read_published_file(tmp_path / "some.pth")
    assert (read.state.keys(), read.notice) == (some.keys(), "")


def test_written_file_is_read_and_aliases_share_storage(tmp_path: Path) -> None:
    big = torch.randn(1000, 100)
    path = tmp_path / "folder" / "out.pth"
    write_published_file(path, {"a": big, "b": big})
    assert path.stat().st_size < 1.5 * big.nbytes
    read = read_published_file(path).state
    assert torch.equal(read["a"], big)
    assert torch.equal(read["b"], big)
    assert [entry.name for entry in path.parent.iterdir()] == ["out.pth"]


def test_failed_writing_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(MsdetrError, match="cannot be written"):
        write_published_file(tmp_path / "file" / "out.pth", STATE)
    assert (tmp_path / "file").read_text() == "here"


def test_numbers_that_do_not_come_back_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda _, path: save({"model": STATE}, path))
    with pytest.raises(VerificationError, match="differs from what was written"):
        write_published_file(tmp_path / "out.pth", {name: v + 1 for name, v in STATE.items()})
    assert not (tmp_path / "out.pth").exists()


class _Calls:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _hostile(marker: Path) -> list[object]:
    touch = _Calls(Path.touch, marker)
    run = _Calls(eval, f"open({str(marker)!r}, 'w').close()")
    return [
        {"model": STATE, "args": touch},
        {"model": {"weight": run}},
        {**STATE, "extra": _Calls(exec, f"open({str(marker)!r}, 'w').close()")},
        {"model": STATE, "args": argparse.Namespace(lr=touch)},
        {"model": STATE, "optimizer": [run]},
    ]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", range(5))
def test_code_is_refused_and_not_run(case: int, legacy: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = _hostile(marker)[case]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="refused") as caught:
        read_published_file(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    # The files are not harmless: an unrestricted reader does run them.
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"model": _Calls(Path.touch, marker)}))
    with pytest.raises(CheckpointError, match="refused"):
        read_published_file(path)
    assert not marker.exists()


def test_other_classes_stay_forbidden_afterwards(tmp_path: Path) -> None:
    torch.save({"model": STATE, "args": argparse.Namespace()}, tmp_path / "file.pth")
    read_published_file(tmp_path / "file.pth")
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(tmp_path / "file.pth", weights_only=True)


@pytest.mark.parametrize("keep", [0, 10, 500, -2000])
def test_truncated_file(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"model": {"weight": torch.randn(5000)}}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        read_published_file(path)


def test_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match="refused"):
        read_published_file(tmp_path / "photos.pth")


def _sparse() -> Tensor:
    return torch.eye(3).to_sparse()


@pytest.mark.parametrize(
    "content",
    [{"model": 3}, [1, 2], {"epoch": 4}, {}, {"model": {}}, {3: torch.ones(1)}, {"a": _sparse()}],
)
def test_files_of_something_else(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"expected a state dict|refused"):
        read_published_file(tmp_path / "other.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_published_file(tmp_path / "gone.pth")
