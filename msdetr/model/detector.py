"""The detection model: images in, predictions of all branches out."""

from __future__ import annotations

from torch import nn

from msdetr.model.backbone import Backbone
from msdetr.model.decoder import Decoder, DecoderOutput
from msdetr.model.deformable_attention import DeformableAttention
from msdetr.model.encoder import Encoder
from msdetr.model.neck import Neck
from msdetr.model.queries import LearnedQueries, QuerySelection, TwoStageQueries
from msdetr.structures import FeatureLevels, ImageBatch, ModelOutput


class DetectionModel(nn.Module):
    """Backbone -> neck -> encoder -> query source -> decoder.

    Args:
        backbone: Images to maps.
        neck: Maps to feature levels.
        encoder: Feature levels to memory.
        query_source: Memory to queries.
        decoder: Queries and memory to predictions.

    Source: Zhao et al., MS-DETR, CVPR 2024.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: Neck,
        encoder: Encoder,
        query_source: LearnedQueries | TwoStageQueries,
        decoder: Decoder,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.query_source = query_source
        self.decoder = decoder

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the feature levels, in pixels."""
        return self.neck.strides(self.backbone.strides)

    def set_attention_backend(self, backend: str) -> None:
        """Choose the backend of deformable attention, as for ``msdetr.ops.ms_deform_attn``."""
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.backend = backend

    def forward(self, images: ImageBatch, *, with_one_to_many: bool | None = None) -> ModelOutput:
        """Predict classes and boxes.

        Args:
            images: Padded images.
            with_one_to_many: Run the one-to-many branch; None runs it in training mode only. A
                model without such a branch yields None for it even when asked.
        """
        maps = self.backbone(images.pixels)
        levels = self.neck(maps, images.padding_mask)
        return self.forward_features(levels, with_one_to_many=with_one_to_many)

    def forward_features(
        self, levels: FeatureLevels, *, with_one_to_many: bool | None = None
    ) -> ModelOutput:
        """Predict from the neck's levels; arguments as for ``forward``."""
        memory = self.encoder(levels)
        selection: QuerySelection = self.query_source(memory)
        decoded: DecoderOutput = self.decoder(
            selection.groups,
            memory,
            attention_mask=selection.attention_mask,
            with_one_to_many=self.training if with_one_to_many is None else with_one_to_many,
        )
        return ModelOutput(decoded.one_to_one, decoded.one_to_many, selection.proposals)
