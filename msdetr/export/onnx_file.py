"""ONNX files: written, and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
import torch
from onnx import GraphProto, ModelProto, NodeProto
from torch import Tensor
from torch.export import ExportedProgram

from msdetr.export.onnx_model import to_onnx
from msdetr.export.runners import ExportedOutput
from msdetr.export.settings import ExportSettings
from msdetr.structures import ImageBatch


def write(
    program: ExportedProgram, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a traced program as one ONNX file of standard operators.

    Args:
        program: What to write.
        path: The file; replaced if it exists.
        settings: Form of the file.
        metadata: Texts to put into the file by name.
    """
    model = to_onnx(program, settings)
    model.metadata_props.update(metadata)
    onnx_ir.save(model, path)


def load(path: Path, settings: ExportSettings) -> OnnxRunner:
    """Load a file into ONNX Runtime, on the CPU."""
    return OnnxRunner(path, settings)


class OnnxRunner:
    """An ONNX file loaded from disk, run by ONNX Runtime on the CPU.

    Args:
        path: The file.
        settings: Its form.
    """

    def __init__(self, path: Path, settings: ExportSettings) -> None:
        self._settings = settings
        self._path = path
        self._session = open_session(path)

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        return self._run(self._session, images, self._settings.output_names)

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        session, taps = self._tapped
        values = self._run(session, images, taps)
        logits, boxes, *cells = values.values()
        return ExportedOutput(logits, boxes, cells[0].long() if cells else None)

    @cached_property
    def _tapped(self) -> tuple[onnxruntime.InferenceSession, list[str]]:
        model = onnx.load(self._path)
        taps = _tap(model.graph, raw=self._settings.raw)
        return open_session(_with_outputs(model, taps)), taps

    def _run(
        self, session: onnxruntime.InferenceSession, images: ImageBatch, names: Sequence[str]
    ) -> dict[str, Tensor]:
        feeds = {"pixels": images.pixels.numpy(), "padding_mask": images.padding_mask.numpy()}
        inputs = {name: feeds[name] for name in self._settings.input_names}
        values = session.run(list(names), inputs)
        return {n: torch.from_numpy(v) for n, v in zip(names, values, strict=True)}


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


def _tap(graph: GraphProto, *, raw: bool) -> list[str]:
    """Name the values that are logits, boxes and, of a two-stage model, chosen cells."""
    producers = {output: node for node in graph.node for output in node.output}
    outputs = {value.name: value.name for value in graph.output}
    if not raw:
        outputs["logits"] = _sigmoid_above("scores", producers).input[0]
        outputs["boxes"] = _sigmoid_above("boxes", producers).output[0]
    choices = [node for node in graph.node if node.op_type == "TopK"]
    # Detections are chosen last.
    proposals = choices if raw else choices[:-1]
    return [outputs["logits"], outputs["boxes"], *(node.output[1] for node in proposals)]


def _sigmoid_above(name: str, producers: Mapping[str, NodeProto]) -> NodeProto:
    while producers[name].op_type != "Sigmoid":
        name = producers[name].input[0]
    return producers[name]


def _with_outputs(model: ModelProto, names: Sequence[str]) -> bytes:
    present = {value.name for value in model.graph.output}
    for name in names:
        if name not in present:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    content: bytes = model.SerializeToString()
    return content
