"""Backbone, neck, encoder, query sources, decoder and the detection model."""

from __future__ import annotations

from msdetr.model.backbone import Backbone
from msdetr.model.decoder import Decoder
from msdetr.model.decoder_layer import DecoderLayer, LayerOrder, OneToManySource
from msdetr.model.detections import select_detections, suppress_duplicates
from msdetr.model.detector import DetectionModel
from msdetr.model.encoder import Encoder, EncoderLayer
from msdetr.model.heads import BoxHead, ClassHead
from msdetr.model.layers import LayerSizes
from msdetr.model.neck import Neck
from msdetr.model.parameter_groups import parameter_group
from msdetr.model.pretrained import load_backbone_weights
from msdetr.model.queries import LearnedQueries, TwoStageQueries
from msdetr.model.suppressing_decoder import SuppressingDecoder
from msdetr.model.suppressor import Suppressor
from msdetr.model.timm_backbone import TimmBackbone
from msdetr.model.training_groups import (
    DenoisingQueries,
    HybridQueries,
    IndependentGroups,
    TrainingGroups,
)

__all__ = [
    "Backbone",
    "BoxHead",
    "ClassHead",
    "Decoder",
    "DecoderLayer",
    "DenoisingQueries",
    "DetectionModel",
    "Encoder",
    "EncoderLayer",
    "HybridQueries",
    "IndependentGroups",
    "LayerOrder",
    "LayerSizes",
    "LearnedQueries",
    "Neck",
    "OneToManySource",
    "SuppressingDecoder",
    "Suppressor",
    "TimmBackbone",
    "TrainingGroups",
    "TwoStageQueries",
    "load_backbone_weights",
    "parameter_group",
    "select_detections",
    "suppress_duplicates",
]
