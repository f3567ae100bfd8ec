"""Programs of torch.export (``.pt2``): written, and run after loading."""

from __future__ import annotations

import json
import logging
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from msdetr.errors import CheckpointError, first_line
from msdetr.export.archive_check import check_archive
from msdetr.export.runners import ExportedOutput, Feeds, parse_document
from msdetr.export.settings import ExportSettings
from msdetr.export.tracing import quiet
from msdetr.structures import ImageBatch

METADATA_FILE = "metadata.json"


def write(
    program: ExportedProgram,
    path: Path,
    settings: ExportSettings,  # noqa: ARG001 - the traced program has its form already
    metadata: Mapping[str, str],
) -> None:
    """Write a traced program.

    Args:
        program: What to write.
        path: The file; replaced if it exists.
        settings: Form of the file.
        metadata: JSON texts by name; they become one object in an extra file.
    """
    document = {name: json.loads(text) for name, text in metadata.items()}
    # Example inputs would only make the file larger.
    program.example_inputs = None
    with quiet(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(document)})


def open_file(path: Path) -> StoredPt2:
    """Load a file, ours or not, on the CPU; one that could run code is not loaded.

    Raises:
        CheckpointError: It is unsafe, or PyTorch cannot load it.
    """
    check_archive(path)
    try:
        return StoredPt2(path)
    except Exception as error:  # whatever damage makes PyTorch stumble over
        reason = first_line(error)
        raise CheckpointError(str(path), f"cannot be loaded by PyTorch: {reason}") from error


class StoredPt2:
    """A ``.pt2`` file loaded from disk, as whoever detects with it needs it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        extra = {METADATA_FILE: ""}
        with quiet(), _without_log(), path.open("rb") as file:
            self._module = torch.export.load(file, extra_files=extra).module()
        self._metadata = extra[METADATA_FILE]

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself."""
        return parse_document(self._metadata)

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes of the inputs by name; None for a side of any length."""
        inputs = self._module.graph.find_nodes(op="placeholder")
        return {
            str(node.target): tuple(
                side if isinstance(side, int) else None for side in node.meta["val"].shape
            )
            for node in inputs
        }

    def run(self, feeds: Feeds) -> list[Tensor]:
        """Run the file; all outputs in its order."""
        with torch.inference_mode():
            return list(self._module(*(feeds[name] for name in self.input_shapes)))


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep PyTorch from logging the traceback of what it raises anyway."""
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def load(path: Path, settings: ExportSettings) -> ProgramRunner:
    """Load a file into PyTorch, on the CPU."""
    return ProgramRunner(path, settings)


class ProgramRunner:
    """A ``.pt2`` file loaded from disk, run by PyTorch on the CPU.

    Args:
        path: The file.
        settings: Its form.
    """

    def __init__(self, path: Path, settings: ExportSettings) -> None:
        self._settings = settings
        with quiet(), path.open("rb") as file:
            self._module = torch.export.load(file).module()
        self._taps = _tap(self._module.graph, raw=settings.raw)

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        with torch.inference_mode():
            values = self._module(*self._inputs(images))
        return dict(zip(self._settings.output_names, values, strict=True))

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        with torch.inference_mode():
            recorder = _Recorder(self._module, self._taps)
            recorder.run(*self._inputs(images))
        logits, boxes, *cells = (recorder.recorded[node.name] for node in self._taps)
        return ExportedOutput(logits, boxes, cells[0] if cells else None)

    def _inputs(self, images: ImageBatch) -> tuple[Tensor, ...]:
        return (images.pixels, images.padding_mask)[: len(self._settings.input_names)]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
        super().__init__(module)
        self.recorded: dict[str, Tensor] = {}
        self._wanted = {node.name for node in nodes}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as the base class has it
        value = super().run_node(n)
        if n.name in self._wanted:
            self.recorded[n.name] = value
        return value


def _tap(graph: fx.Graph, *, raw: bool) -> list[fx.Node]:
    """Find the nodes whose values are logits, boxes and, of a two-stage model, chosen cells."""
    outputs = cast(Sequence[fx.Node], graph.output_node().args[0])
    logits, boxes = outputs[0], outputs[-1]
    if not raw:
        logits = _sigmoid_above(logits).all_input_nodes[0]
        boxes = _sigmoid_above(boxes)
    choices = [node for node in graph.nodes if node.target is torch.ops.aten.topk.default]
    # Detections are chosen last.
    proposals = choices if raw else choices[:-1]
    return [logits, boxes, *(_second_result(node) for node in proposals)]


def _sigmoid_above(node: fx.Node) -> fx.Node:
    while node.target is not torch.ops.aten.sigmoid.default:
        node = node.all_input_nodes[0]
    return node


def _second_result(node: fx.Node) -> fx.Node:
    return next(
        user for user in node.users if user.target is operator.getitem and user.args[1] == 1
    )
