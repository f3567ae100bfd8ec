"""OpenVINO files (``.xml`` with weights in ``.bin``): written, and compared with the model.

OpenVINO chooses its arithmetic by the processor: bfloat16 where there are instructions for it,
which moves boxes and turns detections into none. A file stores that it wants float32, but
OpenVINO does not read this by itself: whoever compiles the file must pass it on.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import onnx_ir
from torch import Tensor
from torch.export import ExportedProgram

from msdetr.export.onnx_model import to_onnx
from msdetr.export.openvino_process import OpenVinoProcess
from msdetr.export.openvino_program import OpenVinoProgram
from msdetr.export.runners import ExportedOutput, feed
from msdetr.export.settings import ExportSettings, weights_file
from msdetr.structures import ImageBatch


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
        # The process ends before its folder is removed, whatever happens.
        with closing(OpenVinoProcess(path.name)) as process:
            process.ask(
                "convert",
                source=str(converted.absolute()),
                target=str(written.absolute()),
                metadata=json.dumps(document),
            )
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
        self._program = OpenVinoProgram(path)

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        """Run the file as it is; outputs by name."""
        values = self._program.run(feed(images, self._settings.input_names))
        return dict(zip(self._settings.output_names, values, strict=True))

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        """Run it and return its intermediate values."""
        feeds = feed(images, self._settings.input_names)
        logits, boxes, *cells = self._program.inspect(feeds, raw=self._settings.raw)
        return ExportedOutput(logits, boxes, cells[0].long() if cells else None)
