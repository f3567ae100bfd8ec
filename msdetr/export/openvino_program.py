"""OpenVINO files (``.xml`` with weights in ``.bin``), run by OpenVINO in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msdetr.errors import CheckpointError
from msdetr.export.openvino_process import OpenVinoError, OpenVinoProcess
from msdetr.export.runners import Feeds, parse_document
from msdetr.export.settings import weights_file


def open_file(path: Path) -> OpenVinoProgram:
    """Load a file, ours or not, on the CPU.

    Raises:
        CheckpointError: OpenVINO cannot load it.
    """
    weights = weights_file(path)
    if not weights.is_file():
        raise CheckpointError(str(path), f"its weights, {weights.name} beside it, are missing")
    try:
        return OpenVinoProgram(path)
    except OpenVinoError as error:
        raise CheckpointError(str(path), f"cannot be loaded by OpenVINO: {error.reason}") from error


class OpenVinoProgram:
    """An OpenVINO file loaded from disk; computes on the CPU in the arithmetic it asks for.

    Args:
        path: The ``.xml`` file; its weights stand beside it.
        threads: Threads of an operator; by default, as many as PyTorch uses.

    Raises:
        OpenVinoError: It cannot be loaded.
        MsdetrError: OpenVINO's process has ended.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._process = OpenVinoProcess(path.name)
        told, _ = self._process.ask(
            "open",
            model=str(path.absolute()),
            weights=str(weights_file(path).absolute()),
            threads=threads or torch.get_num_threads(),
        )
        self._metadata = parse_document(told["metadata"] or "")
        self._input_shapes = {name: tuple(shape) for name, shape in told["inputs"].items()}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself."""
        return self._metadata

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes of the inputs by name; None for a side of any length."""
        return self._input_shapes

    @property
    def process(self) -> OpenVinoProcess:
        """What computes."""
        return self._process

    @property
    def precision(self) -> str:
        """Arithmetic of the layers."""
        told, _ = self._process.ask("precision")
        return str(told["precision"])

    def run(self, feeds: Feeds) -> list[Tensor]:
        """Run the file; all outputs in its order."""
        return self._ask("run", feeds)

    def inspect(self, feeds: Feeds, *, raw: bool) -> list[Tensor]:
        """Return logits, boxes and, of a two-stage model, chosen cells.

        Args:
            feeds: Inputs by name.
            raw: Whether the outputs of the file are raw.
        """
        return self._ask("inspect", feeds, raw=raw)

    def _ask(self, do: str, feeds: Feeds, **request: object) -> list[Tensor]:
        arrays = [value.numpy() for value in feeds.values()]
        _, found = self._process.ask(do, arrays, names=list(feeds), **request)
        return [torch.from_numpy(value) for value in found]
