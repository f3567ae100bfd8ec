"""Floating-point operations of a model, counted without computing anything.

Counted are matrix products, convolutions, attention and the sampling of deformable attention, a
multiplication with its addition as two; additions, norms, activations, matching and losses are not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import msdetr.ops.flops  # noqa: F401 - teaches the counter the operator
from msdetr.model.detector import DetectionModel
from msdetr.structures import ImageBatch, NoisedTargets

_META = torch.device("meta")


class FlopCounter:
    """Counts what a model computes, on tensors that have shapes but no memory.

    Args:
        model: Copied without its weights; later changes of the model are not seen.
    """

    def __init__(self, model: DetectionModel) -> None:
        self._model = _copy_shapes(model)

    def count_training(self, images: ImageBatch, noised: NoisedTargets | None = None) -> int:
        """Count the forward and backward pass of a training batch, recomputed layers included.

        Args:
            images: The batch; only its shapes matter.
            noised: What its denoising queries are made of.
        """
        given = {} if noised is None else {"noised": noised.to(_META)}
        self._model.train()
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            output = self._model(images.to(_META), **given)
            predicted = [each.sum() for each in _tensors(output) if each.requires_grad]
            torch.autograd.backward(predicted)
        self._model.zero_grad()
        return int(counter.get_total_flops())

    def count_inference(self, height: int, width: int) -> int:
        """Count the forward pass of one image at inference.

        Args:
            height: Of the image as the model gets it, in pixels.
            width: Likewise.
        """
        pixels = torch.empty(1, 3, height, width, device=_META)
        images = ImageBatch(pixels, torch.empty(1, height, width, dtype=torch.bool, device=_META))
        self._model.eval()
        # Without gradients the counter's hooks stumble over views of parameters.
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            self._model(images, with_one_to_many=False)
        return int(counter.get_total_flops())


def _copy_shapes(model: DetectionModel) -> DetectionModel:
    """Copy a model; its parameters and buffers become tensors without memory."""
    without_memory: dict[int, object] = {
        id(each): nn.Parameter(each.detach().to(_META), requires_grad=each.requires_grad)
        for each in model.parameters()
    }
    without_memory |= {id(each): each.to(_META) for each in model.buffers()}
    return copy.deepcopy(model, without_memory)


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif is_dataclass(output):
        for field in fields(output):
            yield from _tensors(getattr(output, field.name))
    elif isinstance(output, tuple):
        for each in output:
            yield from _tensors(each)
