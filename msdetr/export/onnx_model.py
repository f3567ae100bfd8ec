"""Traced programs as ONNX models in memory: of standard operators, simplified, described."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, fx
from torch.export import ExportedProgram

from msdetr.export.settings import ExportSettings
from msdetr.export.tracing import quiet

OPSET = 18


def to_onnx(program: ExportedProgram, settings: ExportSettings) -> onnx_ir.Model:
    """Turn a traced program into an ONNX model of standard operators.

    Args:
        program: What to convert.
        settings: Form of the file that the model is for.
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
    if settings.static_hw is None:
        _name_dimensions(exported.model.graph)
    _describe_outputs(exported.model.graph, program, settings)
    return exported.model


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
