from __future__ import annotations

from collections.abc import Callable

import torch

from msdetr.model import DetectionModel
from msdetr.structures import FeatureLevels


def test_checkpointing_changes_neither_outputs_nor_gradients(
    build_model: Callable[..., DetectionModel], levels: FeatureLevels
) -> None:
    encoder = build_model().encoder
    results = []
    for checkpoint_layers in (False, True):
        encoder.checkpoint_layers = checkpoint_layers
        encoder.zero_grad()
        features = encoder(levels).features
        torch.autograd.backward(features.square().sum())
        results.append([features, *(p.grad for p in encoder.parameters())])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


def test_checkpointing_recomputes_layers(
    build_model: Callable[..., DetectionModel], levels: FeatureLevels
) -> None:
    encoder = build_model(checkpoint_encoder=True).encoder
    calls: list[int] = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.autograd.backward(encoder(levels).features.sum())
    assert len(calls) == 2 * len(encoder.layers)
    calls.clear()
    with torch.no_grad():
        encoder(levels)
    assert len(calls) == len(encoder.layers)


def test_level_embedding_tells_levels_apart(
    build_model: Callable[..., DetectionModel], levels: FeatureLevels
) -> None:
    encoder = build_model().encoder
    before = encoder(levels).features
    with torch.no_grad():
        encoder.level_embed[1] += 1.0
    changed = (encoder(levels).features - before).abs().amax(dim=(0, 2)) > 0
    assert changed[144:180].all()
