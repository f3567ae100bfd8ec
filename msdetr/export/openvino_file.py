"""OpenVINO files (``.xml`` with weights in ``.bin``): written, and run by OpenVINO.

OpenVINO chooses its arithmetic by the processor: bfloat16 where there are instructions for it,
which moves boxes and turns detections into none. A file stores that it wants float32, but
OpenVINO does not read this by itself: whoever compiles the file must pass it on.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import onnx_ir
import openvino
import torch
from torch import Tensor
from torch.export import ExportedProgram

from msdetr.export.onnx_model import to_onnx
from msdetr.export.runners import ExportedOutput
from msdetr.export.settings import ExportSettings, weights_file
from msdetr.structures import ImageBatch

PRECISION_HINT = "INFERENCE_PRECISION_HINT"
PRECISION_PATH = ["runtime_options", PRECISION_HINT]
METADATA_PATH = ["msdetr", "metadata"]


def write(
    program: ExportedProgram, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a traced program as an OpenVINO model: ``path``, and its weights beside it.

    Args:
        program: What to write.
        path: The ``.xml`` file; it and the file of weights are replaced if they exist.
        settings: Form of the file.
        metadata: JSON texts by name; they become one object in the model's runtime information.
    """
    document = {name: json.loads(text) for name, text in metadata.items()}
    # OpenVINO insists on the suffixes, so that files with other names are renamed afterwards.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        converted, written = Path(folder, "model.onnx"), Path(folder, "model.xml")
        onnx_ir.save(to_onnx(program, settings), converted)
        model = openvino.Core().read_model(converted)
        model.set_rt_info("f32", PRECISION_PATH)
        model.set_rt_info(json.dumps(document), METADATA_PATH)
        openvino.save_model(model, written, compress_to_fp16=False)
        weights_file(written).replace(weights_file(path))
        written.replace(path)


def load(path: Path, settings: ExportSettings) -> OpenVinoRunner:
    """Load a file into OpenVINO, on the CPU."""
    return OpenVinoRunner(path, settings)


class OpenVinoRunner:
    """An OpenVINO file loaded from disk, run on the CPU in the arithmetic that it asks for.

    Args:
        path: The ``.xml`` file; its weights stand beside it.
        settings: Its form.
    """

    def __init__(self, path: Path, settings: ExportSettings) -> None:
        self._settings = settings
        self._model = openvino.Core().read_model(path, weights_file(path))
        self._compiled = compile_model(self._model)

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        values = self._run(self._compiled, images)
        return dict(zip(self._settings.output_names, values, strict=False))

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        # Raw outputs are logits and boxes already.
        first = 0 if self._settings.raw else len(self._settings.output_names)
        logits, boxes, *cells = self._run(self._tapped, images)[first:]
        return ExportedOutput(logits, boxes, cells[0].long() if cells else None)

    @cached_property
    def _tapped(self) -> openvino.CompiledModel:
        model = self._model.clone()
        for value in _tap(model, raw=self._settings.raw):
            model.add_outputs(value)
        return compile_model(model)

    def _run(self, compiled: openvino.CompiledModel, images: ImageBatch) -> list[Tensor]:
        feeds = {"pixels": images.pixels.numpy(), "padding_mask": images.padding_mask.numpy()}
        found = compiled({name: feeds[name] for name in self._settings.input_names})
        # Copied: the next run writes to the same memory.
        return [torch.from_numpy(value.copy()) for value in found.to_tuple()]


def compile_model(model: openvino.Model, threads: int | None = None) -> openvino.CompiledModel:
    """Compile a model for the CPU, in the arithmetic that its file asks for.

    Args:
        model: As read from a file.
        threads: Threads of an operator; by default, as many as PyTorch uses.
    """
    options = {
        PRECISION_HINT: model.get_rt_info(PRECISION_PATH).astype(str),
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
    }
    return openvino.Core().compile_model(model, "CPU", options)


def _tap(model: openvino.Model, *, raw: bool) -> Sequence[openvino.Output]:
    """Find the values, beside outputs, that are logits, boxes and, if two-stage, chosen cells."""
    choices = [node for node in model.get_ordered_ops() if node.get_type_name() == "TopK"]
    if raw:
        return [node.output(1) for node in choices]
    results = [result.input_value(0) for result in model.get_results()]
    logits, boxes = _sigmoid_above(results[0]).input_value(0), _sigmoid_above(results[-1]).output(0)
    # Detections are chosen last.
    return [logits, boxes, *(node.output(1) for node in choices[:-1])]


def _sigmoid_above(value: openvino.Output) -> openvino.Node:
    node = value.get_node()
    while node.get_type_name() != "Sigmoid":
        node = node.input_value(0).get_node()
    return node
