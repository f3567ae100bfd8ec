"""A decoder that ends with a suppressor: which branch predicts what, from what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from msdetr.model import DetectionModel, SuppressingDecoder
from msdetr.structures import ImageBatch, ModelOutput

Build = Callable[..., DetectionModel]
SETTINGS = {"placement": "b", "decoder_layers": 3, "suppressor": {"learned_keys": 4}}


@pytest.fixture
def model(build_model: Build) -> DetectionModel:
    return build_model(**SETTINGS).eval()


def decoder_of(model: DetectionModel) -> SuppressingDecoder:
    assert isinstance(model.decoder, SuppressingDecoder)
    return model.decoder


def test_one_prediction_one_to_one_and_one_per_layer_one_to_many(
    model: DetectionModel, images: ImageBatch
) -> None:
    output: ModelOutput = model(images, with_one_to_many=True)
    assert output.one_to_many is not None
    assert output.one_to_one.logits.shape[0] == 1
    assert output.one_to_many.logits.shape[0] == output.num_layers == 3
    boxes = output.one_to_many.boxes_cxcywh
    assert torch.equal(output.one_to_one.boxes_cxcywh[0], boxes[-1])
    assert not torch.allclose(output.one_to_one.logits[0], output.one_to_many.logits[-1])


def test_inference_runs_the_suppressor_and_nothing_else(
    model: DetectionModel, images: ImageBatch
) -> None:
    whole, alone = (model(images, with_one_to_many=asked) for asked in (True, False))
    assert alone.one_to_many is None
    assert torch.equal(alone.one_to_one.logits, whole.one_to_one.logits)
    decoder = decoder_of(model)
    memory = model.encoder(model.neck(model.backbone(images.pixels), images.padding_mask))
    logits, boxes = decoder.detect([model.query_source(memory)], memory)
    assert torch.equal(logits, whole.one_to_one.logits[0])
    assert torch.equal(boxes, whole.one_to_one.boxes_cxcywh[0])


def test_boxes_of_the_suppressor_are_detached(model: DetectionModel, images: ImageBatch) -> None:
    output = model.train()(images)
    assert output.one_to_many is not None
    assert output.one_to_many.boxes_cxcywh.requires_grad
    assert not output.one_to_one.boxes_cxcywh.requires_grad
    torch.autograd.backward(output.one_to_one.logits.square().sum())
    decoder = decoder_of(model)
    # The suppressor's classes teach what is below it, but no head of the layers.
    assert decoder.layers[0].ffn.linear1.weight.grad.any()  # type: ignore[union-attr, operator]
    heads = (*decoder.class_heads.parameters(), *decoder.box_heads.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in heads)


@pytest.mark.parametrize("own", [True, False])
def test_class_head_of_the_suppressor(build_model: Build, images: ImageBatch, own: bool) -> None:
    settings = {**SETTINGS, "suppressor": {"learned_keys": 4, "own_class_head": own}}
    model = build_model(**settings).eval()
    decoder = decoder_of(model)
    assert (decoder.suppressor_class_head is not None) is own
    before = model(images, with_one_to_many=True).one_to_one.logits
    with torch.no_grad():
        decoder.class_heads[-1].bias.add_(1.0)  # type: ignore[operator]
    after = model(images, with_one_to_many=True).one_to_one.logits
    # One more for all classes leaves the order of confidence as it is.
    torch.testing.assert_close(after, before if own else before + 1.0)


def test_confidence_is_single_precision_in_bfloat16(
    model: DetectionModel, images: ImageBatch
) -> None:
    seen = []
    decoder_of(model).suppressor.register_forward_pre_hook(lambda _m, args: seen.append(args[3]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(images)
    (logits,) = seen
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_layers_have_one_kind_of_heads(model: DetectionModel) -> None:
    decoder = decoder_of(model)
    assert decoder.one_to_many_class_heads is None
    assert len(decoder.class_heads) == len(decoder.box_heads) == 3


def test_images_do_not_see_each_other(model: DetectionModel, images: ImageBatch) -> None:
    """Batched equals single from the neck's output on; group norm sees padding before it."""
    levels = model.neck(model.backbone(images.pixels), images.padding_mask)
    both = model.forward_features(levels).one_to_one.logits
    for index in range(2):
        alone = type(levels)(
            tuple(m[index : index + 1] for m in levels.maps),
            tuple(m[index : index + 1] for m in levels.padding_masks),
        )
        found = model.forward_features(alone).one_to_one.logits[:, 0]
        torch.testing.assert_close(found, both[:, index], atol=1e-5, rtol=1e-4)
