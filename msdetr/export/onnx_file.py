"""ONNX files: written, and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import onnx
import onnx_ir
import onnxruntime
import onnxscript.optimizer
import torch
from onnx import GraphProto, ModelProto, NodeProto
from onnx_ir.passes import common as passes
from torch import Tensor, fx
from torch.export import ExportedProgram

from msdetr.export.runners import ExportedOutput
from msdetr.export.settings import ExportSettings
from msdetr.export.tracing import quiet
from msdetr.structures import ImageBatch

OPSET = 18


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
    with torch.no_grad(), quiet():
        exported = torch.onnx.export(
            program,
            input_names=list(settings.input_names),
            output_names=list(settings.output_names),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert exported is not None
        _simplify(exported.model)
    exported.model.metadata_props.update(metadata)
    if settings.static_hw is None:
        _name_dimensions(exported.model.graph)
    _describe_outputs(exported.model.graph, program, settings)
    exported.save(path, include_initializers=True, external_data=False)


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
        self._session = open_session(path)
        model = onnx.load(path)
        self._taps = _tap(model.graph, raw=settings.raw)
        self._tapped = open_session(_with_outputs(model, self._taps))

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        return self._run(self._session, images, self._settings.output_names)

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        values = self._run(self._tapped, images, self._taps)
        logits, boxes, *cells = values.values()
        return ExportedOutput(logits, boxes, cells[0].long() if cells else None)

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


def _simplify(model: onnx_ir.Model) -> None:
    """Fold constants, and drop duplicate and unused nodes.

    The exporter's own optimisation also tries rewriting rules, some of them on every pair of
    nodes: this takes minutes for a large model, for fusions that runtimes do themselves.
    """
    for _ in range(2):
        onnxscript.optimizer.fold_constants(model)
        passes.RemoveUnusedNodesPass()(model)
    onnx_ir.passes.Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    )(model)


def _name_dimensions(graph: onnx_ir.Graph) -> None:
    batch, height, width = (onnx_ir.SymbolicDim(name) for name in ("batch", "height", "width"))
    pixels, padding_mask = graph.inputs
    pixels.shape = onnx_ir.Shape([batch, 3, height, width])
    padding_mask.shape = onnx_ir.Shape([batch, height, width])


def _describe_outputs(
    graph: onnx_ir.Graph, program: ExportedProgram, settings: ExportSettings
) -> None:
    """Declare type and shape of the outputs, which simplification may lose."""
    nodes = cast(Sequence[fx.Node], program.graph.output_node().args[0])
    for name, output, node in zip(settings.output_names, graph.outputs, nodes, strict=True):
        value: Tensor = node.meta["val"]
        batch = onnx_ir.SymbolicDim("batch") if settings.static_hw is None else settings.batch
        output.name = name
        output.dtype = onnx_ir.DataType.INT64 if name == "labels" else onnx_ir.DataType.FLOAT
        output.shape = onnx_ir.Shape([batch, *(int(side) for side in value.shape[1:])])


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
