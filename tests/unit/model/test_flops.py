"""Operations counted by torch, and counted by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from msdetr.model import DetectionModel
from msdetr.model.flops import FlopCounter
from msdetr.structures import ImageBatch

Build = Callable[..., DetectionModel]

# Of the small model: width, heads, points, levels, width of the FFN, queries, classes, layers.
C, M, P, L, F, Q, K, N = 32, 4, 2, 4, 48, 6, 5, 2
HW = (64, 96)
S = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def deformable(queries: int) -> int:
    samples = queries * M * L * P
    products = linear(S, C, C) + linear(queries, C, C) + linear(queries, C, 3 * M * L * P)
    return products + 2 * 4 * samples * (C // M)


def ffn(rows: int) -> int:
    return 2 * linear(rows, C, F)


def heads(rows: int) -> int:
    return linear(rows, C, K) + 2 * linear(rows, C, C) + linear(rows, C, 4)


def decoder_layer() -> int:
    projections, scores_and_sums = linear(Q, C, 4 * C), 2 * 2 * Q * Q * C
    return projections + scores_and_sums + deformable(Q) + ffn(Q)


def behind_the_neck() -> int:
    encoder = N * (deformable(S) + ffn(S))
    proposals = linear(S, C, C) + heads(S)
    queries = linear(Q, 2 * C, 2 * C)
    return encoder + proposals + queries + N * (decoder_layer() + heads(Q))


def convolutions(model: DetectionModel) -> dict[str, int]:
    """Operations of every convolution for one image, from the shapes that flow through it."""
    counts: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            assert isinstance(module, nn.Conv2d)
            assert module.groups == 1
            counts[name] = 2 * output[0].numel() * module.weight[0].numel()

        return hook

    convs = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    removers = [module.register_forward_hook(count(name)) for name, module in convs]
    with torch.no_grad():
        model(ImageBatch(torch.zeros(1, 3, *HW), torch.zeros(1, *HW, dtype=torch.bool)))
    for remover in removers:
        remover.remove()
    return counts


def batch(size: int) -> ImageBatch:
    return ImageBatch(torch.randn(size, 3, *HW), torch.zeros(size, *HW, dtype=torch.bool))


def test_inference_is_what_a_hand_counts(build_model: Build) -> None:
    model = build_model().eval()
    expected = sum(convolutions(model).values()) + behind_the_neck()
    assert FlopCounter(model).count_inference(*HW) == expected


def test_a_step_is_three_times_the_forward_pass(build_model: Build) -> None:
    """Every product has two gradients, but for images and proposals: they need none."""
    model = build_model()
    convs = convolutions(model)
    # Placement b takes the one-to-many features after cross-attention; its heads run as well.
    forward = sum(convs.values()) + behind_the_neck() + N * heads(Q)
    expected = 3 * forward - next(iter(convs.values())) - linear(Q, 2 * C, 2 * C)
    counter = FlopCounter(model)
    assert counter.count_training(batch(1)) == expected
    assert counter.count_training(batch(2)) == 2 * expected


def test_recomputed_layers_count_again(build_model: Build) -> None:
    plain = FlopCounter(build_model()).count_training(batch(1))
    again = FlopCounter(build_model(checkpoint_encoder=True)).count_training(batch(1))
    # The last product of a layer is not computed again: nothing of the backward pass reads it.
    encoder = N * (deformable(S) + ffn(S))
    assert again - plain == pytest.approx(encoder, rel=0.3)
    assert again - plain <= encoder


@pytest.mark.parametrize("training", [False, True])
def test_counting_leaves_the_model_alone(build_model: Build, training: bool) -> None:
    model = build_model().train(training)
    before = copy.deepcopy(model.state_dict())
    counter = FlopCounter(model)
    counter.count_training(batch(1))
    counter.count_inference(*HW)
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    after: dict[str, Any] = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(tensor.is_meta for tensor in counter._model.state_dict().values())
