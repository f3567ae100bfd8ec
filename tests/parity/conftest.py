"""Models of the published implementations, rebuilt from the golden numbers' own description."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.interop.official import from_published
from msdetr.model import (
    Backbone,
    BoxHead,
    ClassHead,
    Decoder,
    DecoderLayer,
    DetectionModel,
    Encoder,
    EncoderLayer,
    LayerOrder,
    LearnedQueries,
    Neck,
    OneToManySource,
    TwoStageQueries,
)
from msdetr.structures import ModelOutput, Targets

# Placement of every small case, from the table in the goldens' README.
_CROSS_FIRST_INNER = (LayerOrder.CROSS_ATTENTION_FIRST, OneToManySource.FIRST_ATTENTION)
_PLACEMENTS = {
    "ms_internal_aux_ffn": _CROSS_FIRST_INNER,
    "ms_internal_no_aux_ffn": _CROSS_FIRST_INNER,
    "ms_pp_aux_ffn": _CROSS_FIRST_INNER,
    "ms_arch_a": (LayerOrder.SELF_ATTENTION_FIRST, OneToManySource.LAYER_OUTPUT),
}
_BASELINE = (LayerOrder.SELF_ATTENTION_FIRST, OneToManySource.NONE)


@dataclass(frozen=True)
class ModelSizes:
    """What a published model is made of."""

    encoder_layers: int
    decoder_layers: int
    ffn: int
    queries: int
    flags: tuple[str, ...]
    placement: tuple[LayerOrder, OneToManySource]
    width: int = 256
    heads: int = 8
    levels: int = 4
    points: int = 4
    classes: int = 91
    dropout: float = 0.0


def build_values(state: Mapping[str, Mapping[str, Any]], salt: str) -> dict[str, Tensor]:
    """Build a published state dict by the goldens' rule for weights."""
    return {
        name: _values(entry["values_of"], entry["shape"], salt) for name, entry in state.items()
    }


def _values(name: str, shape: list[int], salt: str) -> Tensor:
    seed = zlib.crc32((salt + name).encode())
    x = np.random.RandomState(seed).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        x = 1 + 0.1 * np.abs(x)
    elif last == "running_mean":
        x = 0.1 * x
    elif len(shape) <= 1:
        x = 1 + 0.1 * x if last == "weight" else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    if "bbox_embed" in name and ".layers.2." in name:
        x = 0.1 * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def compose(sizes: ModelSizes, backbone: Backbone) -> DetectionModel:
    """Compose a model of the published kind named by its command-line flags."""
    two_stage = "--two_stage" in sizes.flags
    refinement = "--with_box_refine" in sizes.flags
    class_head, box_head = ClassHead(sizes.width, sizes.classes), BoxHead(sizes.width)
    shared: dict[str, Any] = {
        "width": sizes.width,
        "heads": sizes.heads,
        "levels": sizes.levels,
        "points": sizes.points,
        "ffn_width": sizes.ffn,
        "dropout": sizes.dropout,
    }
    order, one_to_many = sizes.placement
    decoder_layers = [
        DecoderLayer(
            **shared,
            order=order,
            one_to_many=one_to_many,
            extra_ffn="--use_aux_ffn" in sizes.flags,
        )
        for _ in range(sizes.decoder_layers)
    ]
    query_source: LearnedQueries | TwoStageQueries
    if two_stage:
        query_source = TwoStageQueries(
            width=sizes.width,
            num_queries=sizes.queries,
            class_head=class_head,
            box_head=box_head,
            mixed_selection="--mixed_selection" in sizes.flags,
        )
    else:
        query_source = LearnedQueries(width=sizes.width, num_queries=sizes.queries)
    return DetectionModel(
        backbone=backbone,
        neck=Neck(backbone.channels, sizes.width, sizes.levels),
        encoder=Encoder(
            layers=[EncoderLayer(**shared) for _ in range(sizes.encoder_layers)],
            width=sizes.width,
            levels=sizes.levels,
        ),
        query_source=query_source,
        decoder=Decoder(
            layers=decoder_layers,
            class_head=class_head,
            box_head=box_head,
            iterative_refinement=refinement,
            look_forward_twice="--look_forward_twice" in sizes.flags,
            first_size_bias=0.0 if two_stage else -2.0,
        ),
    )


class StoredMaps(torch.nn.Module):
    """Stands in for a backbone: the small cases start from backbone maps."""

    def __init__(self, maps: tuple[Tensor, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.maps = maps
        self.channels = tuple(m.shape[1] for m in maps)
        self.strides = strides

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        del pixels
        return self.maps


@dataclass(frozen=True)
class GoldenCase:
    """One small case: model with its weights, inputs and what is expected."""

    name: str
    model: DetectionModel
    tensors: dict[str, Tensor]
    expected: dict[str, Any]

    def predict(self) -> ModelOutput:
        """Run the model on the stored maps, with the one-to-many branch."""
        maps = tuple(
            self.tensors[f"in/feature{i}"] for i in range(len(self.model.backbone.channels))
        )
        levels = self.model.neck(maps, self.tensors["in/mask"])
        return self.model.forward_features(levels, with_one_to_many=True)

    @property
    def targets(self) -> Targets:
        """The targets of all images."""
        images = range(self.tensors["in/mask"].shape[0])
        return Targets.from_lists(
            [self.tensors[f"in/target{b}.boxes"] for b in images],
            [self.tensors[f"in/target{b}.labels"] for b in images],
        )


def load_case(folder: Path, name: str) -> GoldenCase:
    """Build the model of a small case and load its weights under the published names."""
    expected = json.loads((folder / "expected.json").read_text())[name]
    config = expected["config"]
    tensors = load_file(folder / f"{name}.safetensors")
    maps = tuple(tensors[f"in/feature{i}"] for i in range(len(config["backbone_channels"])))
    sizes = ModelSizes(
        **{k: config[k] for k in ("encoder_layers", "decoder_layers", "ffn", "queries", "width")},
        **{k: config[k] for k in ("heads", "levels", "points", "classes")},
        flags=tuple(config["flags"]),
        placement=_PLACEMENTS.get(name, _BASELINE),
    )
    model = compose(sizes, StoredMaps(maps, tuple(config["backbone_strides"])))  # type: ignore[arg-type]
    published = build_values(expected["state"], config["salt"])
    model.load_state_dict(from_published(published, model.state_dict(), name))
    return GoldenCase(name, model, tensors, expected)


@pytest.fixture(scope="session")
def golden_case(golden_dir: Path) -> Callable[[str], GoldenCase]:
    """Load a small case by name, once per session."""
    loaded: dict[str, GoldenCase] = {}

    def load(name: str) -> GoldenCase:
        if name not in loaded:
            loaded[name] = load_case(golden_dir, name)
        return loaded[name]

    return load


_PLUS_PLUS = ("--mixed_selection", "--look_forward_twice")
_MANIFEST: dict[str, tuple[int, tuple[str, ...], tuple[LayerOrder, OneToManySource]]] = {
    "ms_ddetr_300q": (300, ("--use_aux_ffn",), _CROSS_FIRST_INNER),
    "ms_ddetr_pp_300q": (300, ("--use_aux_ffn", *_PLUS_PLUS), _CROSS_FIRST_INNER),
    "ms_ddetr_pp_900q": (900, ("--use_aux_ffn", *_PLUS_PLUS), _CROSS_FIRST_INNER),
    "ms_ddetr_300q_arch_a": (300, (), _PLACEMENTS["ms_arch_a"]),
    "ddetr_300q": (300, (), _BASELINE),
}


@pytest.fixture(scope="session")
def full_size_model() -> Callable[[str], DetectionModel]:
    """Compose a full-size published model by its name in the manifest."""

    def build(name: str) -> DetectionModel:
        queries, flags, placement = _MANIFEST[name]
        sizes = ModelSizes(
            encoder_layers=6,
            decoder_layers=6,
            ffn=2048,
            queries=queries,
            flags=("--two_stage", "--with_box_refine", *flags),
            placement=placement,
        )
        return compose(sizes, Backbone(name="resnet50"))

    return build


@pytest.fixture(scope="session")
def published_values() -> Callable[..., dict[str, Tensor]]:
    """The rule that weights follow."""
    return build_values
