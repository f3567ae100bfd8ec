"""Checkpoints: what is written is read, and damage, crashes and hostile files are survived."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from msdetr.engine.checkpoint import (
    find_checkpoint,
    read_info,
    read_training_state,
    read_weights,
    resolve_checkpoint,
    save_checkpoint,
)
from msdetr.engine.weights import load_weights, unique_state
from msdetr.errors import CheckpointError, MsdetrError
from msdetr.files import list_sums


def save(directory: Path, value: float = 1.0, **more: Any) -> None:
    save_checkpoint(
        directory,
        info={"recipe": "x: 1\n", "classes": ["disc"]},
        model={"weight": torch.full((3, 2), value), "count": torch.tensor(4)},
        ema={"weight": torch.full((3, 2), 10 * value), "count": torch.tensor(4)},
        training_state={"optimizer": {"state": {0: {"step": torch.tensor(2.0)}}}, "seed": 3},
        **more,
    )


def rewrite(checkpoint: Path, name: str, content: bytes) -> None:
    """Replace a file and its check sum, as an attacker or another program would."""
    (checkpoint / name).write_bytes(content)
    sums = checkpoint / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(f"  {name}")]
    sums.write_text("\n".join([*lines, f"{sha256(content).hexdigest()}  {name}"]) + "\n")


def read_all(checkpoint: Path) -> None:
    read_info(checkpoint)
    read_weights(checkpoint)
    read_weights(checkpoint, averaged=False)
    read_training_state(checkpoint)


def test_everything_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "last")
    assert read_info(tmp_path / "last") == {
        "format_version": 1,
        "recipe": "x: 1\n",
        "classes": ["disc"],
    }
    assert read_weights(tmp_path / "last", averaged=False)["weight"].tolist() == [[1.0, 1.0]] * 3
    assert read_weights(tmp_path / "last")["weight"].tolist() == [[10.0, 10.0]] * 3
    state = read_training_state(tmp_path / "last")
    assert state["optimizer"]["state"][0]["step"].item() == 2.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_a_newer_save_replaces_the_older(tmp_path: Path) -> None:
    save(tmp_path / "last", 1.0)
    save_checkpoint(tmp_path / "last", info={}, model={"weight": torch.full((1,), 2.0)})
    assert read_weights(tmp_path / "last")["weight"].tolist() == [2.0]
    assert {entry.name for entry in (tmp_path / "last").iterdir()} == {
        "SHA256SUMS",
        "checkpoint.json",
        "model.safetensors",
    }


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    def make() -> nn.ModuleDict:
        model = nn.ModuleDict({"a": nn.Linear(2, 2)})
        model["b"] = model["a"]
        return model

    saved, loaded = make(), make()
    save_checkpoint(tmp_path / "last", info={}, model=unique_state(saved))
    weights = read_weights(tmp_path / "last")
    assert set(weights) == {"a.weight", "a.bias"}
    load_weights(loaded, weights, "last")
    weight = loaded.get_parameter("b.weight")
    assert torch.equal(weight, saved.get_parameter("a.weight"))
    assert weight is loaded.get_parameter("a.weight")


def test_half_precision_and_transposed_tensors_come_back(tmp_path: Path) -> None:
    weights = {"half": torch.randn(3).bfloat16(), "turned": torch.arange(6.0).reshape(2, 3).t()}
    save_checkpoint(tmp_path / "last", info={}, model=weights)
    for name, value in read_weights(tmp_path / "last").items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        (lambda w: w.pop("0.bias"), "1 weights missing: 0.bias"),
        (lambda w: w.update(head=torch.ones(1)), "1 weights unexpected: head"),
        (lambda w: w.update({"1.bias": torch.ones(5)}), r"1.bias \(expected \[1\], got \[5\]\)"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    change: Callable[[dict[str, torch.Tensor]], object], telling: str
) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {name: torch.zeros_like(value) for name, value in before.items()}
    change(weights)
    with pytest.raises(CheckpointError, match=telling) as caught:
        load_weights(model, weights, "some/checkpoint")
    assert str(caught.value).startswith("some/checkpoint: ")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_many_names_are_counted_not_listed() -> None:
    weights = {f"layer{index}": torch.ones(1) for index in range(300)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(nn.Linear(1, 1), weights, "x")
    assert "300 weights unexpected: layer0, layer1, layer2, layer3, layer4, ..." in str(
        caught.value
    )
    assert "2 weights missing: weight, bias" in str(caught.value)


def test_damage_anywhere_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "good")
    generator = random.Random(0)
    files = [path.name for path in (tmp_path / "good").iterdir()]
    for trial in range(100):
        bad = tmp_path / f"bad{trial}"
        shutil.copytree(tmp_path / "good", bad)
        victim = bad / generator.choice(files)
        content = bytearray(victim.read_bytes())
        place = generator.randrange(len(content))
        if trial % 3 == 0:
            content = content[:place]
        else:
            content[place] ^= 1 << generator.randrange(8)
        victim.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read_info(bad)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["checkpoint.json", "model.safetensors", "training_state.pt", "SHA256SUMS"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save(tmp_path / "last")
    (tmp_path / "last" / name).unlink()
    for read in (read_info, read_all):
        with pytest.raises(CheckpointError, match=f"incomplete: {name} is missing"):
            read(tmp_path / "last")


def test_what_does_not_belong_there_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "last")
    (tmp_path / "last" / ".nfs0001").touch()  # left by a network file system
    read_all(tmp_path / "last")
    (tmp_path / "last" / "optimizer.pkl").touch()
    with pytest.raises(CheckpointError, match=r"optimizer\.pkl: is no part of a checkpoint"):
        read_info(tmp_path / "last")


def test_reading_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    save(tmp_path / "last")
    (tmp_path / "last" / "training_state.pt").unlink()
    os.mkfifo(tmp_path / "last" / "training_state.pt")
    with pytest.raises(CheckpointError, match=r"training_state\.pt: is not a file"):
        read_info(tmp_path / "last")


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "last")
    sums = tmp_path / "last" / "SHA256SUMS"
    sums.write_text(sums.read_text() * 2)
    with pytest.raises(CheckpointError, match="SHA256SUMS: is damaged: lists"):
        read_info(tmp_path / "last")


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("name", ["training_state.pt", "model.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("legacy", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, name: str, legacy: bool) -> None:
    save(tmp_path / "last")
    bomb = Bomb(tmp_path / "exploded")
    buffer = io.BytesIO()
    torch.save({"optimizer": bomb}, buffer)
    content = pickle.dumps({"optimizer": bomb}, 2) if legacy else buffer.getvalue()
    rewrite(tmp_path / "last", name, content)
    with pytest.raises(CheckpointError, match=name):
        read_all(tmp_path / "last")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("document", "telling"),
    [
        (b'{"format_version": 2}', "format version 2, but this release reads up to 1"),
        (b'{"format_version": "1"}', "no valid format_version"),
        (b"[1]", "no valid format_version"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, document: bytes, telling: str) -> None:
    save(tmp_path / "last")
    rewrite(tmp_path / "last", "checkpoint.json", document)
    with pytest.raises(CheckpointError, match=telling):
        read_info(tmp_path / "last")


def test_a_run_means_its_best_checkpoint_else_its_last(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    save(checkpoints / "last")
    assert resolve_checkpoint(tmp_path) == checkpoints / "last"
    save(checkpoints / "best")
    assert resolve_checkpoint(tmp_path) == checkpoints / "best"
    assert resolve_checkpoint(checkpoints / "last") == checkpoints / "last"


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such"):
        resolve_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        resolve_checkpoint(tmp_path)
    (tmp_path / "model.pth").write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_checkpoint(tmp_path / "model.pth")


class Crash(BaseException):
    """Stands for SIGKILL: nothing that would clean up afterwards gets to do anything."""


def test_a_crash_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Crash before each file-system call of a replacement, in turn, then save again."""
    for moment in range(1, 40):
        run = tmp_path / str(moment)
        save(run / "last", 1.0)
        with pytest.MonkeyPatch.context() as patch:
            calls = count_calls(patch, crash_at=moment)
            try:
                save(run / "last", 2.0)
                finished = True
            except Crash:
                finished = False
        found = find_checkpoint(run / "last")
        assert found is not None
        read_all(found)
        assert read_weights(found, averaged=False)["weight"][0, 0].item() in (1.0, 2.0)
        save(run / "last", 3.0)
        assert read_weights(run / "last", averaged=False)["weight"][0, 0].item() == 3.0
        assert [entry.name for entry in run.iterdir()] == ["last"]
        if finished:
            assert calls[0] < moment
            assert moment > 10
            return
    pytest.fail("the replacement never finished")


def count_calls(patch: pytest.MonkeyPatch, *, crash_at: int) -> list[int]:
    calls = [0]

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] >= crash_at:
                raise Crash
            return original(*args, **kwargs)

        patch.setattr(owner, name, counted)

    for owner, names in {
        Path: ("mkdir", "open", "rename"),
        os: ("fsync",),
        shutil: ("rmtree",),
    }.items():
        for name in names:
            wrap(owner, name)
    return calls


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "last", 1.0)
    with files_limited_to(1024), pytest.raises(MsdetrError) as caught:
        save_checkpoint(tmp_path / "last", info={}, model={"weight": torch.ones(4096)})
    assert "cannot save the checkpoint: File too large" in str(caught.value)
    assert "unchanged" in str(caught.value)
    assert caught.value.exit_code == 1
    read_all(tmp_path / "last")
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_check_sums_are_those_of_the_usual_tool(tmp_path: Path) -> None:
    save(tmp_path / "last")
    for line in (tmp_path / "last" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256((tmp_path / "last" / name).read_bytes()).hexdigest() == digest
    json.loads((tmp_path / "last" / "checkpoint.json").read_text())


def test_a_refused_pickle_is_refused_in_our_own_words(tmp_path: Path) -> None:
    """Those of torch advise to load it unsafely."""
    state = tmp_path / "training_state.pt"
    state.write_bytes(pickle.dumps({"a": Path}))
    (tmp_path / "SHA256SUMS").write_bytes(list_sums({state.name: state.read_bytes()}))
    with pytest.raises(CheckpointError, match="nothing in it was run") as caught:
        read_training_state(tmp_path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("nesting", ["[", '{"a":'])
def test_a_document_nested_too_deeply_is_refused(tmp_path: Path, nesting: str) -> None:
    files = {"checkpoint.json": nesting.encode() * 100_000, "model.safetensors": b""}
    for name, content in {**files, "SHA256SUMS": list_sums(files)}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: is not JSON"):
        read_info(tmp_path)
