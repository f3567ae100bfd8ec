"""The file formats, each loaded only when needed: their packages are optional."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from torch.export import ExportedProgram

from msdetr.export.runners import Runner, StoredProgram
from msdetr.export.settings import ExportFormat, ExportSettings, weights_file

SUFFIXES: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "openvino": ".xml",
}
_MODULES: dict[ExportFormat, str] = {
    "onnx": "msdetr.export.onnx_file",
    "torch-export": "msdetr.export.torch_export_file",
    "openvino": "msdetr.export.openvino_file",
}
_READERS: dict[ExportFormat, str] = {
    "onnx": "msdetr.export.onnx_session",
    "torch-export": "msdetr.export.torch_export_file",
    "openvino": "msdetr.export.openvino_program",
}
_PACKAGES: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch-export": (),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
_RUNTIMES: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "torch-export": (),
    "openvino": ("openvino",),
}
# Extra of this package that brings them.
_EXTRAS: dict[ExportFormat, str] = {"openvino": "openvino"}


class FileFormat(Protocol):
    """A way to write files and to compare them with the model."""

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


class FileReader(Protocol):
    """A way to run files that somebody has written."""

    def open_file(self, path: Path) -> StoredProgram:
        """Load a file from disk; a CheckpointError says why that cannot be."""
        ...


def file_format(name: ExportFormat) -> FileFormat:
    """Load the code for a format; its packages must be installed."""
    return cast(FileFormat, import_module(_MODULES[name]))


def file_reader(name: ExportFormat) -> FileReader:
    """Load the code that runs files of a format; its runtime must be installed."""
    return cast(FileReader, import_module(_READERS[name]))


def format_of(path: Path) -> ExportFormat | None:
    """Return the format that a file's name stands for; None for other names."""
    return {suffix: name for name, suffix in SUFFIXES.items()}.get(path.suffix)


def missing_packages(name: ExportFormat) -> list[str]:
    """List the packages that a format needs and that are not installed."""
    return _missing(_PACKAGES[name])


def missing_runtimes(name: ExportFormat) -> list[str]:
    """List the packages that running a file needs and that are not installed."""
    return _missing(_RUNTIMES[name])


def extra_of(name: ExportFormat) -> str:
    """Name the extra of this package that brings a format's packages."""
    return _EXTRAS.get(name, "export")


def files_of(name: ExportFormat, path: Path) -> tuple[Path, ...]:
    """List the files that a format writes for a path: what stands beside it first, then itself."""
    return (weights_file(path), path) if name == "openvino" else (path,)


def _missing(packages: Sequence[str]) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]
