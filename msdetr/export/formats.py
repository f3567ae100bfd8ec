"""The file formats, each loaded only when needed: ONNX is an optional dependency."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from torch.export import ExportedProgram

from msdetr.export.runners import Runner
from msdetr.export.settings import ExportFormat, ExportSettings

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
_MODULES: dict[ExportFormat, str] = {
    "onnx": "msdetr.export.onnx_file",
    "torch-export": "msdetr.export.torch_export_file",
}
_PACKAGES: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch-export": (),
}


class FileFormat(Protocol):
    """A way to write files and to run them."""

    def write(
        self,
        program: ExportedProgram,
        path: Path,
        settings: ExportSettings,
        metadata: Mapping[str, str],
    ) -> None:
        """Write a traced program and JSON texts by name; replaces the file."""
        ...

    def load(self, path: Path, settings: ExportSettings) -> Runner:
        """Load a file from disk."""
        ...


def file_format(name: ExportFormat) -> FileFormat:
    """Load the code for a format; its packages must be installed."""
    return cast(FileFormat, import_module(_MODULES[name]))


def missing_packages(name: ExportFormat) -> list[str]:
    """List the packages that a format needs and that are not installed."""
    return [package for package in _PACKAGES[name] if importlib.util.find_spec(package) is None]
