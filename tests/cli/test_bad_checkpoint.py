"""Unusable, damaged or dangerous checkpoints: refused in one line, without running their code."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from msdetr.files import SUMS_FILE, list_sums

Refuse = Callable[..., list[str]]


class RunsCode:
    """An object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.marker,)


class TestCheckpoint:
    @pytest.fixture
    def copied(self, run_dir: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(run_dir / "checkpoints/last", tmp_path / "checkpoint"))

    def sign(self, checkpoint: Path) -> None:
        """Make SHA256SUMS agree with the files as they are."""
        files = {p.name: p.read_bytes() for p in checkpoint.iterdir() if p.name != SUMS_FILE}
        (checkpoint / SUMS_FILE).write_bytes(list_sums(files))

    def test_none_there(self, tmp_path: Path, refused_line: Callable[..., str]) -> None:
        nothing, empty = tmp_path / "nothing", tmp_path / "empty"
        empty.mkdir()
        assert f"{nothing}: no such checkpoint" in refused_line("eval", "--ckpt", nothing)
        assert f"{empty}: holds no checkpoint" in refused_line("eval", "--ckpt", empty)

    def test_of_another_architecture(
        self, copied: Path, refused: Refuse, refused_training: Callable[..., str]
    ) -> None:
        lines = refused("eval", "--ckpt", copied, "--set", "model.decoder_layers=1")
        assert "is it another architecture?" in "\n".join(lines)
        line = refused_training("--resume-from", copied, "--set", "model.decoder_layers=1")
        assert "model.decoder_layers: was 2 in the run, is 1 now" in line

    def test_with_weights_of_another_architecture(
        self, copied: Path, refused: Refuse, tiny: list[str], tmp_path: Path
    ) -> None:
        info = json.loads((copied / "checkpoint.json").read_text())
        info["recipe"]["model"]["decoder_layers"] = 1
        (copied / "checkpoint.json").write_text(json.dumps(info))
        self.sign(copied)
        output = tmp_path / "run"
        options = ("--resume-from", copied, "--set", "model.decoder_layers=1")
        lines = refused("train", "shapes_tiny", "--output", output, *tiny, *options)
        assert "is it another architecture?" in "\n".join(lines)
        assert not output.exists()

    @pytest.mark.parametrize("file", ["model.safetensors", "checkpoint.json", "training_state.pt"])
    def test_truncated(
        self,
        file: str,
        copied: Path,
        refused_line: Callable[..., str],
        refused_training: Callable[..., str],
    ) -> None:
        content = (copied / file).read_bytes()
        (copied / file).write_bytes(content[: len(content) // 2])
        assert f"{file}: is damaged" in refused_line("eval", "--ckpt", copied)
        assert f"{file}: is damaged" in refused_training("--resume-from", copied)
        assert f"{file}: is damaged" in refused_training("--init-from", copied)
        self.sign(copied)
        if file == "model.safetensors":
            assert f"{file}: is damaged" in refused_line("eval", "--ckpt", copied)

    def test_training_state_with_code_in_it(
        self, copied: Path, tmp_path: Path, refused_training: Callable[..., str]
    ) -> None:
        marker = tmp_path / "code-ran"
        state = torch.load(copied / "training_state.pt", weights_only=True)
        torch.save({**state, "scaler": RunsCode(marker)}, copied / "training_state.pt")
        self.sign(copied)
        line = refused_training("--resume-from", copied)
        assert "training_state.pt: refused: damaged, or a pickle" in line
        assert not marker.exists()

    @pytest.mark.parametrize("form", ["zip", "pickle"])
    def test_published_file_with_code_in_it(
        self, form: str, tmp_path: Path, refused_training: Callable[..., str]
    ) -> None:
        marker, file = tmp_path / "code-ran", tmp_path / "published.pth"
        content = {"model": {}, "args": RunsCode(marker)}
        if form == "zip":
            torch.save(content, file)
        else:
            file.write_bytes(pickle.dumps(content, protocol=2))
        line = refused_training("--init-from", file)
        assert f"{file}: refused" in line
        assert not marker.exists()
        # The trap works: it is the loading that is safe.
        torch.load(file, weights_only=False) if form == "zip" else pickle.loads(file.read_bytes())  # noqa: S301
        assert marker.exists()

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (None, "no such"),
            ({"model": 3}, "expected a state dict"),
            ({"model": {"strange.weight": torch.zeros(2)}}, "no weight that fits the model"),
        ],
    )
    def test_published_file_that_does_not_fit(
        self,
        content: object,
        part: str,
        tmp_path: Path,
        refused_training: Callable[..., str],
    ) -> None:
        file = tmp_path / "published.pth"
        if content is not None:
            torch.save(content, file)
        assert part in refused_training("--init-from", file)

    def test_truncated_published_file(
        self, tmp_path: Path, refused_training: Callable[..., str]
    ) -> None:
        file = tmp_path / "published.pth"
        torch.save({"model": {"a": torch.zeros(1000)}}, file)
        file.write_bytes(file.read_bytes()[:1000])
        assert f"{file}: refused: damaged" in refused_training("--init-from", file)
