"""ONNX files in ONNX Runtime, which is all that running them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from msdetr.errors import CheckpointError, first_line
from msdetr.export.runners import Feeds, parse_metadata


def open_session(
    model: Path | bytes, threads: int | None = None, provider: str = "CPUExecutionProvider"
) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime.

    Args:
        model: A file or its content.
        threads: Threads of an operator; by default, as many as PyTorch uses.
        provider: What runs the operators.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    # Idle threads would take time from whatever runs between two calls.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=[provider])


def run_session(
    session: onnxruntime.InferenceSession, feeds: Feeds, names: Sequence[str] | None = None
) -> list[Tensor]:
    """Run a session.

    Args:
        session: Of any model.
        feeds: Inputs by name.
        names: The values wanted; all outputs by default.
    """
    arrays = {name: value.numpy() for name, value in feeds.items()}
    return [torch.from_numpy(value) for value in session.run(names, arrays)]


def open_file(path: Path) -> OnnxProgram:
    """Load a file, ours or not, on the CPU.

    Raises:
        CheckpointError: ONNX Runtime cannot load it.
    """
    try:
        return OnnxProgram(path)
    except Exception as error:  # its own have no other class in common
        reason = first_line(error)
        raise CheckpointError(str(path), f"cannot be loaded by ONNX Runtime: {reason}") from error


class OnnxProgram:
    """An ONNX file loaded from disk, as whoever detects with it needs it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself."""
        return parse_metadata(self._session.get_modelmeta().custom_metadata_map)

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes of the inputs by name; None for a side of any length."""
        return {
            entry.name: tuple(side if isinstance(side, int) else None for side in entry.shape)
            for entry in self._session.get_inputs()
        }

    def run(self, feeds: Feeds) -> list[Tensor]:
        """Run the file; all outputs in its order."""
        return run_session(self._session, feeds)
