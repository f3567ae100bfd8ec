"""Tracing of a detection program with sizes that vary or are fixed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from msdetr.export.program import DetectionProgram
from msdetr.export.settings import ExportSettings


def trace(
    program: DetectionProgram, settings: ExportSettings, example_hw: tuple[int, int]
) -> ExportedProgram:
    """Trace a program.

    Args:
        program: What to trace.
        settings: Form of the file.
        example_hw: For inputs of any size, one that the model accepts; above 64 px, so that no
            level is a single cell.
    """
    with torch.no_grad(), quiet():
        return torch.export.export(
            program,
            example_inputs(settings, example_hw),
            dynamic_shapes=_dynamic_shapes(settings),
            strict=False,
        )


def example_inputs(settings: ExportSettings, example_hw: tuple[int, int]) -> tuple[Tensor, ...]:
    """Make inputs of the right form: pixels, and a padding mask where the file has one."""
    if settings.static_hw is not None:
        return (torch.zeros(settings.batch, 3, *settings.static_hw),)
    padding_mask = torch.zeros(2, *example_hw, dtype=torch.bool)
    return torch.zeros(2, 3, *example_hw), padding_mask


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' warnings about their own code."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _dynamic_shapes(settings: ExportSettings) -> Any:  # noqa: ANN401 - as torch.export takes it
    if settings.static_hw is not None:
        return None
    # Named dimensions would have to be proved free of constraints that always hold.
    free = Dim.DYNAMIC
    return {
        "pixels": {0: free, 2: free, 3: free},
        "padding_mask": {0: free, 1: free, 2: free},
    }
