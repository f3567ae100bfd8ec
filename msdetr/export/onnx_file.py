"""ONNX files: written, and compared with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto
from torch import Tensor
from torch.export import ExportedProgram

from msdetr.export.onnx_model import to_onnx
from msdetr.export.onnx_session import open_session, run_session
from msdetr.export.runners import ExportedOutput, feed
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
        names = self._settings.output_names
        return dict(zip(names, self._run(self._session, images, names), strict=True))

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        session, taps = self._tapped
        logits, boxes, *cells = self._run(session, images, taps)
        return ExportedOutput(logits, boxes, cells[0].long() if cells else None)

    @cached_property
    def _tapped(self) -> tuple[onnxruntime.InferenceSession, list[str]]:
        model = onnx.load(self._path)
        taps = _tap(model.graph, raw=self._settings.raw)
        return open_session(_with_outputs(model, taps)), taps

    def _run(
        self, session: onnxruntime.InferenceSession, images: ImageBatch, names: Sequence[str]
    ) -> list[Tensor]:
        return run_session(session, feed(images, self._settings.input_names), names)


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
