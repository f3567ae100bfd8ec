"""The model as a program of plain tensors, without what only training needs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from msdetr.export.folding import fold_batch_norms
from msdetr.export.settings import BACKEND_OF_OP, ExportSettings
from msdetr.model import (
    Backbone,
    BoxHead,
    DecoderLayer,
    DetectionModel,
    LearnedQueries,
    SuppressingDecoder,
    TwoStageQueries,
)
from msdetr.model.box_relation import BoxRelationBias
from msdetr.model.detections import select_detections
from msdetr.model.memory import Memory
from msdetr.model.queries import QueryGroup


class DetectionProgram(nn.Module):
    """Images in, detections out; only the last decoder layer classifies.

    Args:
        model: In evaluation mode; its modules are taken over.
        detections: Detections per image; None yields all queries raw.

    Source: Zhao et al., MS-DETR, CVPR 2024, section 3.3: one-to-many supervision acts in
    training only.
    """

    def __init__(self, model: DetectionModel, *, detections: int | None) -> None:
        super().__init__()
        self.backbone, self.neck, self.encoder = model.backbone, model.neck, model.encoder
        self.query_source = model.query_source
        self.decoder = model.decoder
        self.detections = detections

    def forward(self, pixels: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            pixels: [B, 3, H, W] float32, normalised; zero on padding.
            padding_mask: [B, H, W] bool, True on padding; None if there is none.

        Returns:
            ``scores`` [B, D], ``labels`` [B, D] int64 and ``boxes`` [B, D, 4] (x0, y0, x1, y1)
            in pixels of the input, by descending score; or, raw, ``logits`` [B, Q, K] and
            ``boxes`` [B, Q, 4] (cx, cy, w, h) in 0..1 of the unpadded image. Floats are float32.
        """
        if padding_mask is None:
            padding_mask = torch.zeros_like(pixels[:, 0], dtype=torch.bool)
        maps = self.backbone(pixels.to(self._dtype))
        memory = self.encoder(self.neck(maps, padding_mask))
        logits, boxes = self._decode(self.query_source(memory), memory)
        if self.detections is None:
            return logits, boxes
        found = select_detections(logits, boxes, _unpadded_hw(padding_mask), self.detections)
        return found.scores, found.labels, found.boxes_xyxy_px

    @property
    def _dtype(self) -> torch.dtype:
        return self.encoder.level_embed.dtype

    def _decode(self, queries: QueryGroup, memory: Memory) -> tuple[Tensor, Tensor]:
        cast_queries = replace(
            queries,
            content=queries.content.to(self._dtype),
            position=queries.position.to(self._dtype),
        )
        detected: tuple[Tensor, Tensor] = self.decoder.detect([cast_queries], memory)
        return detected


def build_program(
    model: DetectionModel, settings: ExportSettings, *, detections: int
) -> DetectionProgram:
    """Make a program of a copy of a model, with a ResNet's batch norms folded.

    Args:
        model: On the CPU; stays as it is.
        settings: Form of the file.
        detections: Detections per image, unless the output is raw.
    """
    model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    model.set_attention_backend(BACKEND_OF_OP[settings.op])
    # timm's norms may hold activations, and need not follow the convolution beside them.
    if isinstance(model.backbone, Backbone):
        fold_batch_norms(model.backbone)
    _drop_training_weights(model)
    program = DetectionProgram(model, detections=None if settings.raw else detections)
    if settings.precision == "fp16":
        _halve(program)
    return program.eval().requires_grad_(requires_grad=False)


def _drop_training_weights(model: DetectionModel) -> None:
    model.training_groups = None
    model.decoder.class_heads = nn.ModuleList([model.decoder.class_heads[-1]])
    model.decoder.one_to_many_class_heads = None
    for layer in model.decoder.layers:
        cast(DecoderLayer, layer).extra_ffn = None
    source = model.query_source
    if isinstance(source, TwoStageQueries):
        # Cells are chosen by class index 0 alone.
        head = source.class_head
        head.weight, head.bias = nn.Parameter(head.weight[:1]), nn.Parameter(head.bias[:1])
        head.out_features = 1


def _halve(program: DetectionProgram) -> None:
    precise = {
        module
        for part in program.modules()
        if isinstance(part, BoxHead | BoxRelationBias | LearnedQueries)
        for module in part.modules()
    }
    if isinstance(program.decoder, SuppressingDecoder):
        # Half precision would make many queries equally confident.
        precise.update(program.decoder.class_heads)
    for module in program.modules():
        if module not in precise:
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.half(), requires_grad=False))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.half())


def _unpadded_hw(padding_mask: Tensor) -> Tensor:
    height = (~padding_mask[:, :, 0]).sum(1)
    width = (~padding_mask[:, 0, :]).sum(1)
    return torch.stack([height, width], dim=-1)
