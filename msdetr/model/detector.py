"""The detection model: images in, predictions of all branches out."""

from __future__ import annotations

from torch import nn

from msdetr.model.backbone import Backbone
from msdetr.model.decoder import DecodedGroup, Decoder
from msdetr.model.deformable_attention import DeformableAttention
from msdetr.model.encoder import Encoder
from msdetr.model.neck import Neck
from msdetr.model.queries import LearnedQueries, QueryGroup, TwoStageQueries
from msdetr.model.timm_backbone import TimmBackbone
from msdetr.model.training_groups import TrainingGroups
from msdetr.structures import (
    FeatureLevels,
    GroupOutput,
    ImageBatch,
    ModelOutput,
    NoisedTargets,
)


class DetectionModel(nn.Module):
    """Backbone -> neck -> encoder -> query source -> decoder.

    Args:
        backbone: Images to maps.
        neck: Maps to feature levels.
        encoder: Feature levels to memory.
        query_source: Memory to queries.
        decoder: Queries and memory to predictions.
        training_groups: Query groups that only training has; None if there are none.

    Source: Zhao et al., MS-DETR, CVPR 2024.
    """

    def __init__(
        self,
        *,
        backbone: Backbone | TimmBackbone,
        neck: Neck,
        encoder: Encoder,
        query_source: LearnedQueries | TwoStageQueries,
        decoder: Decoder,
        training_groups: TrainingGroups | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.query_source = query_source
        self.decoder = decoder
        self.training_groups = training_groups

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the feature levels, in pixels."""
        return self.neck.strides(self.backbone.strides)

    def set_attention_backend(self, backend: str) -> None:
        """Choose the backend of deformable attention, as for ``msdetr.ops.ms_deform_attn``."""
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.backend = backend

    def forward(
        self,
        images: ImageBatch,
        *,
        with_one_to_many: bool | None = None,
        with_extra_groups: bool | None = None,
        noised: NoisedTargets | None = None,
    ) -> ModelOutput:
        """Predict classes and boxes.

        Args:
            images: Padded images.
            with_one_to_many: Run the one-to-many branch; None runs it in training mode only. A
                model without such a branch yields None for it even when asked.
            with_extra_groups: Run the query groups beside the primary one; None runs them in
                training mode only.
            noised: What denoising queries are made of; without it there are none.
        """
        maps = self.backbone(images.pixels)
        levels = self.neck(maps, images.padding_mask)
        return self.forward_features(
            levels,
            with_one_to_many=with_one_to_many,
            with_extra_groups=with_extra_groups,
            noised=noised,
        )

    def forward_features(
        self,
        levels: FeatureLevels,
        *,
        with_one_to_many: bool | None = None,
        with_extra_groups: bool | None = None,
        noised: NoisedTargets | None = None,
    ) -> ModelOutput:
        """Predict from the neck's levels; arguments as for ``forward``."""
        memory = self.encoder(levels)
        groups: tuple[QueryGroup, ...] = (self.query_source(memory),)
        wanted = self.training if with_extra_groups is None else with_extra_groups
        if self.training_groups is not None and wanted:
            groups += self.training_groups(self.query_source, memory, groups[0], noised)
        decoded: tuple[DecodedGroup, ...] = self.decoder(
            groups,
            memory,
            with_one_to_many=self.training if with_one_to_many is None else with_one_to_many,
        )
        primary, *extra = (
            GroupOutput(group.name, d.one_to_one, d.one_to_many, group.proposals, group.noised)
            for group, d in zip(groups, decoded, strict=True)
        )
        return ModelOutput(primary.one_to_one, primary.one_to_many, primary.proposals, tuple(extra))
