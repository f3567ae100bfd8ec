"""200 mutated checkpoints: every one is refused with one line, and no code in it runs."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.engine.checkpoint import read_info, read_training_state, read_weights
from msdetr.errors import CheckpointError
from msdetr.files import SUMS_FILE, list_sums

NUM_MUTATIONS = int(os.environ.get("MSDETR_FUZZ_COUNT", "200"))
NUM_SIGNED = int(os.environ.get("MSDETR_FUZZ_COUNT", "40"))
SEED = int(os.environ.get("MSDETR_FUZZ_SEED", "0"))
FILES = (
    *("checkpoint.json", "model.safetensors", "ema.safetensors", "training_state.pt"),
    SUMS_FILE,
)


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def bombs(marker: Path) -> list[Calls]:
    """Objects that create the marker when something unpickles them."""
    code = f"open({str(marker)!r}, 'w')"
    return [
        Calls(Path.touch, marker),
        Calls(os.system, f"touch '{marker}'"),
        Calls(os.mkdir, str(marker)),
        Calls(builtins.eval, code),
        Calls(builtins.exec, code),
        Calls(builtins.open, str(marker), "w"),
    ]


def as_pickle(value: object, form: str) -> bytes:
    """Pickle in the form of `torch.save`, of its older releases, or plainly."""
    buffer = io.BytesIO()
    if form == "plain":
        pickle.dump(value, buffer, protocol=2)
    else:
        torch.save(value, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


def sign(checkpoint: Path) -> None:
    """Make SHA256SUMS agree with the files as they are."""
    files = {name: (checkpoint / name).read_bytes() for name in FILES if name != SUMS_FILE}
    (checkpoint / SUMS_FILE).write_bytes(list_sums(files))


class Mutator:
    """Damages a copy of a checkpoint in one of many ways."""

    def __init__(self, seed: int, marker: Path) -> None:
        self.random = random.Random(seed)
        self.marker = marker
        self.kinds = [
            *(self.flip_bit, self.change_byte, self.truncate, self.append, self.zero, self.insert),
            *(self.delete, self.rename, self.swap, self.copy_over, self.add_file, self.to_folder),
            *(self.to_pickle, self.to_link, self.edit_sums),
        ]

    def mutate(self, checkpoint: Path, number: int) -> str:
        """Damage the checkpoint in the way that the number means, and say how."""
        # Every way meets every file in turn.
        kind = self.kinds[number % len(self.kinds)]
        file = checkpoint / FILES[number // len(self.kinds) % len(FILES)]
        kind(file)
        return f"{kind.__name__} {file.name}"

    def flip_bit(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        file.write_bytes(content)

    def change_byte(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        at = self.random.randrange(len(content))
        content[at] = (content[at] + self.random.randrange(1, 256)) % 256
        file.write_bytes(content)

    def truncate(self, file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: self.random.choice([0, 1, self.random.randrange(len(content))])])

    def append(self, file: Path) -> None:
        more = self.random.choice([b"\n", b" ", b"\0", b"{}", b"0" * 1000])
        file.write_bytes(file.read_bytes() + more)

    def zero(self, file: Path) -> None:
        content = file.read_bytes()
        start = self.random.randrange(len(content) // 2)
        file.write_bytes(content[:start] + bytes(40) + content[start + 40 :])

    def insert(self, file: Path) -> None:
        content = file.read_bytes()
        at = self.random.randrange(len(content))
        file.write_bytes(content[:at] + self.random.choice([b" ", b"\n", b"a"]) + content[at:])

    def delete(self, file: Path) -> None:
        file.unlink()

    def rename(self, file: Path) -> None:
        other = self.random.choice([f"{file.name}.bak", file.name.upper() + "_", "weights.bin"])
        file.rename(file.with_name(other))

    def swap(self, file: Path) -> None:
        other = self.other_than(file)
        mine, theirs = file.read_bytes(), other.read_bytes()
        file.write_bytes(theirs)
        other.write_bytes(mine)

    def copy_over(self, file: Path) -> None:
        shutil.copy(file, self.other_than(file))

    def add_file(self, file: Path) -> None:
        names = ("model.pkl", "pytorch_model.bin", "optimizer.pt", "code.py", "adapter.safetensors")
        stranger = file.with_name(self.random.choice(names))
        stranger.write_bytes(as_pickle(self.random.choice(bombs(self.marker)), "plain"))

    def to_folder(self, file: Path) -> None:
        file.unlink()
        file.mkdir()

    def to_pickle(self, file: Path) -> None:
        form = self.random.choice(["plain", "zip", "legacy"])
        file.write_bytes(as_pickle({"optimizer": self.random.choice(bombs(self.marker))}, form))

    def to_link(self, file: Path) -> None:
        file.unlink()
        file.symlink_to(self.random.choice(["nowhere", self.other_than(file).name, "/dev/null"]))

    def edit_sums(self, file: Path) -> None:
        sums = file.with_name(SUMS_FILE)
        lines = sums.read_text().splitlines()
        at = self.random.randrange(len(lines))
        digest, name = lines[at].split("  ")
        lines[at] = self.random.choice(
            [f"{digest[::-1]}  {name}", f"{digest} *{name}", f"{digest}  ../last/{name}", "", name]
        )
        sums.write_text("\n".join(lines) + "\n")

    def other_than(self, file: Path) -> Path:
        return file.with_name(self.random.choice([name for name in FILES if name != file.name]))


@pytest.fixture
def copies(checkpoint: Path, tmp_path: Path) -> Iterator[Path]:
    def make() -> Iterator[Path]:
        while True:
            copy = tmp_path / "copy"
            yield Path(shutil.copytree(checkpoint, copy))
            shutil.rmtree(copy)

    return make()


def test_mutated_checkpoints_are_refused(
    copies: Iterator[Path], tmp_path: Path, images: Path, ask: Callable[..., Any]
) -> None:
    marker = tmp_path / "code-ran"
    mutator = Mutator(SEED, marker)
    refused = 0
    for number in range(NUM_MUTATIONS):
        copy = next(copies)
        how = mutator.mutate(copy, number)
        answer = ask("eval", "--ckpt", copy, "--data", f"{images},{images / 'none.json'}")
        assert (answer.code, answer.out, answer.check()) == (2, "", False), how
        assert str(copy) in answer.err, how
        assert len(answer.err.splitlines()) == 1, how
        assert not marker.exists(), how
        refused += 1
    assert refused == NUM_MUTATIONS


def test_the_original_is_not_refused(
    checkpoint: Path, images: Path, ask: Callable[..., Any]
) -> None:
    missing = images / "none.json"
    answer = ask("eval", "--ckpt", checkpoint, "--data", f"{images},{missing}")
    assert answer.err == f"error: {missing}: the annotation file does not exist\n"


@pytest.mark.parametrize("file", FILES[:4])
@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
def test_signed_code_is_refused(
    file: str, form: str, copies: Iterator[Path], tmp_path: Path
) -> None:
    """Check sums tell damage, not malice: whoever writes code writes its check sum too."""
    marker = tmp_path / "code-ran"
    for bomb in bombs(marker):
        copy = next(copies)
        (copy / file).write_bytes(as_pickle({"optimizer": bomb, "seed": 1}, form))
        sign(copy)
        with pytest.raises(CheckpointError, match=file) as caught:
            read_everything(copy)
        assert len(str(caught.value).splitlines()) == 1
        assert not marker.exists()


@pytest.mark.parametrize("file", FILES[:4])
def test_signed_damage_raises_nothing_else(file: str, copies: Iterator[Path]) -> None:
    generator = random.Random(1 + SEED)
    messages = []
    for _ in range(NUM_SIGNED):
        copy = next(copies)
        content = bytearray((copy / file).read_bytes())
        # Headers come first; behind them one number is as good as another.
        content[generator.randrange(min(len(content), 1000))] ^= 1 << generator.randrange(8)
        (copy / file).write_bytes(content)
        sign(copy)
        try:
            read_everything(copy)
        except CheckpointError as error:
            messages.append(str(error))
    assert messages
    assert all(len(message.splitlines()) == 1 for message in messages)


def test_the_code_would_run(tmp_path: Path) -> None:
    for number in range(len(bombs(tmp_path))):
        marker = tmp_path / str(number)
        content = as_pickle(bombs(marker)[number], "plain")
        pickle.loads(content)  # noqa: S301
        assert marker.exists()


def read_everything(checkpoint: Path) -> None:
    read_info(checkpoint)
    read_weights(checkpoint)
    read_weights(checkpoint, averaged=False)
    read_training_state(checkpoint)
