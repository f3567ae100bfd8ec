"""Attention of a suppressor while a model runs, and what follows from it for every target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from msdetr.inspection.recording import RecordedImage
from msdetr.inspection.suppression import Suppression, SuppressorView, find_suppressions
from msdetr.model import DetectionModel, SuppressingDecoder, Suppressor
from msdetr.model.suppressor import more_confident


class SuppressionTracer:
    """Computes the attention weights of a model's suppressor.

    Args:
        model: With or without a suppressor.
    """

    def __init__(self, model: DetectionModel) -> None:
        decoder = model.decoder
        self._suppressor: Suppressor | None = None
        if isinstance(decoder, SuppressingDecoder):
            self._suppressor = decoder.suppressor
        self._weights: Tensor | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep the weights of the forward pass within the context."""
        if self._suppressor is None:
            yield
            return
        handle = self._suppressor.register_forward_pre_hook(self._listen)
        try:
            yield
        finally:
            handle.remove()

    def find(self, row: int, recorded: RecordedImage, targets: Tensor) -> tuple[Suppression, ...]:
        """List the suppressions of one image of the last batch; none without a suppressor.

        Args:
            row: Index of the image in the batch.
            recorded: What was recorded of it.
            targets: [T, 4] boxes (cx, cy, w, h).
        """
        if self._weights is None:
            return ()
        view = SuppressorView(
            weights=self._weights[row].float().cpu(),
            boxes=recorded.one_to_many.boxes_cxcywh[-1],
            before=recorded.one_to_many.probabilities[-1],
            after=recorded.one_to_one.probabilities[-1],
            targets=targets,
            paired=recorded.one_to_many_queries[-1],
            picks=recorded.one_to_one_queries[-1],
        )
        return find_suppressions(view)

    @torch.no_grad()
    def _listen(self, _: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        assert self._suppressor is not None
        content, position, boxes, logits = inputs
        visible = more_confident(logits)
        weights = self._suppressor.attention.weights(content, position, boxes, visible)
        self._weights = weights.mean(dim=1)
