"""Settings of an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ExportFormat = Literal["onnx", "torch-export", "openvino"]
AttentionOp = Literal["gather", "grid_sample"]
ExportPrecision = Literal["fp32", "fp16"]

# The backend of deformable attention that traces to each operator.
BACKEND_OF_OP = {"gather": "gather", "grid_sample": "reference"}


# torch.export sets aside sizes of 1, and the coarsest level of a smaller image is one cell.
_LEAST_SIDE_OF_PROGRAMS_PX = 65


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Form of an exported file.

    Attributes:
        format: "onnx", "torch-export" for a ``.pt2`` program, or "openvino" for an ``.xml`` with
            weights in a ``.bin`` beside it.
        static_hw: Height and width in pixels that every input has; None for inputs of any size
            with a padding mask.
        batch: Images per call of a file with a static size, at least 1.
        raw: Yield logits and boxes of all queries instead of the best detections.
        op: What deformable attention becomes: "gather" (rows gathered by index) or
            "grid_sample".
        precision: "fp32", or "fp16" for half-precision weights and layers; coordinates,
            sigmoid and top-k stay fp32.
    """

    format: ExportFormat = "onnx"
    static_hw: tuple[int, int] | None = None
    batch: int = 1
    raw: bool = False
    op: AttentionOp = "gather"
    precision: ExportPrecision = "fp32"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of the file, in order."""
        return ("pixels", "padding_mask") if self.static_hw is None else ("pixels",)

    @property
    def min_side(self) -> int:
        """Minimum height and width of inputs in pixels; smaller images need padding."""
        any_size = self.static_hw is None
        return _LEAST_SIDE_OF_PROGRAMS_PX if any_size and self.format == "torch-export" else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs of the file, in order."""
        return ("logits", "boxes") if self.raw else ("scores", "labels", "boxes")


def weights_file(path: Path) -> Path:
    """Name the weights of an OpenVINO model: ``model.bin`` beside ``model.xml``.

    Args:
        path: The model; its suffix may be followed by another, as in ``model.xml.unverified``.
    """
    return path.with_name(".bin".join(path.name.rsplit(".xml", 1)))
