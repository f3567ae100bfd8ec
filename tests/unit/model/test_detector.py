"""The composed model: what holds for outputs whatever the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from msdetr.model import DetectionModel
from msdetr.model.heads import BoxHead, ClassHead
from msdetr.structures import FeatureLevels, ImageBatch, ModelOutput

Build = Callable[..., DetectionModel]

VARIANTS: list[dict[str, Any]] = [
    {"placement": "baseline"},
    {"placement": "a"},
    {"placement": "b"},
    {"extra_ffn": True},
    {"extra_ffn": False},
    {"placement": "d", "extra_ffn": True},
    {"mixed_query_selection": True, "look_forward_twice": True},
    {"two_stage": False},
    {"two_stage": False, "iterative_refinement": False},
    {"two_stage": True, "iterative_refinement": False},
]


def tensors(output: ModelOutput) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def only_image(levels: FeatureLevels, image: int) -> FeatureLevels:
    """Cut one image of a batch out of its padding."""
    maps, masks = [], []
    for m, mask in zip(levels.maps, levels.padding_masks, strict=True):
        height, width = int((~mask[image, :, 0]).sum()), int((~mask[image, 0]).sum())
        maps.append(m[image : image + 1, :, :height, :width])
        masks.append(mask[image : image + 1, :height, :width])
    return FeatureLevels(tuple(maps), tuple(masks))


def assert_same_predictions(ours: ModelOutput, theirs: ModelOutput, image: int) -> None:
    """``theirs`` holds one image, ``ours`` a batch; proposals have other cells and are left out."""
    for batch, single in (
        (ours.one_to_one, theirs.one_to_one),
        (ours.one_to_many, theirs.one_to_many),
    ):
        if batch is None or single is None:
            assert batch is single is None
            continue
        for field in ("logits", "boxes_cxcywh"):
            both = getattr(batch, field)[:, image], getattr(single, field)[:, 0]
            torch.testing.assert_close(*both, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batched_equals_single_without_padding(
    build_model: Build, levels: FeatureLevels, variant: dict[str, Any]
) -> None:
    model = build_model(**variant).eval()
    batched = model.forward_features(levels, with_one_to_many=True)
    for image in range(2):
        single = model.forward_features(only_image(levels, image), with_one_to_many=True)
        assert_same_predictions(batched, single, image)


def test_content_of_the_padding_does_not_matter(build_model: Build, levels: FeatureLevels) -> None:
    model = build_model().eval()
    noisy = tuple(
        torch.where(mask[:, None], torch.randn_like(m), m)
        for m, mask in zip(levels.maps, levels.padding_masks, strict=True)
    )
    before = model.forward_features(levels)
    after = model.forward_features(FeatureLevels(noisy, levels.padding_masks))
    for ours, theirs in zip(tensors(before), tensors(after), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_images_of_a_batch_do_not_mix(build_model: Build, images: ImageBatch) -> None:
    model = build_model().eval()
    swapped = ImageBatch(images.pixels.flip(0), images.padding_mask.flip(0))
    for ours, theirs in zip(
        tensors(model(images, with_one_to_many=False)),
        tensors(model(swapped, with_one_to_many=False)),
        strict=True,
    ):
        image_axis = 1 if ours.dim() == 4 else 0
        torch.testing.assert_close(ours, theirs.flip(image_axis))


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_ranges_and_gradients(
    build_model: Build, images: ImageBatch, variant: dict[str, Any]
) -> None:
    model = build_model(num_queries=9, **variant).train()
    output = model(images)
    assert output.one_to_one.logits.shape == (2, 2, 9, 5)
    assert output.one_to_one.boxes_cxcywh.shape == (2, 2, 9, 4)
    assert (output.one_to_many is None) == (variant.get("placement") == "baseline")
    assert (output.proposals is None) == (not variant.get("two_stage", True))
    found = tensors(output)
    assert all(t.isfinite().all() for t in found)
    assert all(((t >= 0) & (t <= 1)).all() for t in found if t.shape[-1] == 4)
    torch.autograd.backward(sum((t.sum() for t in found if t.requires_grad), torch.zeros(())))
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_branch_runs_in_training_or_when_asked(build_model: Build, images: ImageBatch) -> None:
    model = build_model()
    runs = {
        (training, asked): model.train(training)(images, with_one_to_many=asked).one_to_many
        is not None
        for training in (True, False)
        for asked in (None, True, False)
    }
    assert runs == {
        (True, None): True,
        (True, True): True,
        (True, False): False,
        (False, None): False,
        (False, True): True,
        (False, False): False,
    }


def test_baseline_has_no_branch_even_when_asked(build_model: Build, images: ImageBatch) -> None:
    model = build_model(placement="baseline")
    assert model(images, with_one_to_many=True).one_to_many is None


def test_one_query(build_model: Build, images: ImageBatch) -> None:
    output = build_model(num_queries=1)(images)
    assert output.one_to_one.logits.shape == (2, 2, 1, 5)
    assert all(t.isfinite().all() for t in tensors(output))


def test_strides_of_the_levels(build_model: Build) -> None:
    assert build_model().strides == (8, 16, 32, 64)


def test_dropout_acts_in_training_only(build_model: Build, images: ImageBatch) -> None:
    def logits(model: DetectionModel) -> Tensor:
        result: Tensor = model(images).one_to_one.logits
        return result

    plain = build_model(dropout=0.0).train()
    assert torch.equal(logits(plain), logits(plain))
    dropping = build_model(dropout=0.3)
    assert not torch.equal(logits(dropping.train()), logits(dropping))
    assert torch.equal(logits(dropping.eval()), logits(dropping))


def test_builds_and_runs_without_storage(build_model: Build, images: ImageBatch) -> None:
    with torch.device("meta"):
        model = build_model()
    # Only the native operator knows shapes without values.
    model.set_attention_backend("native")
    assert all(t.is_meta for t in model.state_dict().values())
    assert all(t.is_meta for t in tensors(model(images.to("meta"))))


def test_all_state_loads_back(build_model: Build, images: ImageBatch) -> None:
    first, second = build_model().eval(), build_model().eval()
    assert not torch.equal(first(images).one_to_one.logits, second(images).one_to_one.logits)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images).one_to_one.logits, second(images).one_to_one.logits)


def weights_of(parts: list[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    heads = {
        id(p)
        for part in parts
        for m in part.modules()
        if isinstance(m, ClassHead | BoxHead)
        for p in m.parameters()
    }
    for part in parts:
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1 and id(parameter) not in heads:
                yield name, parameter


def test_transformer_weights_start_xavier_uniform(
    build_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Keep the small model's fixture from shaking the weights.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    model = build_model(extra_ffn=True)
    zero = ("sampling_offsets.weight", "attention_weights.weight")
    other = ("level_embed",)
    checked = 0
    for name, parameter in weights_of([model.encoder, model.query_source, model.decoder]):
        if name.endswith(zero):
            assert not parameter.any(), name
        elif not name.endswith(other):
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.95 * bound < parameter.abs().max() <= bound, name
            assert float(parameter.detach().std()) == pytest.approx(
                bound / math.sqrt(3), rel=0.1
            ), name
            checked += 1
    assert checked == 2 * 4 + 2 * 8 + 2


@pytest.mark.parametrize("variant", [{}, {"two_stage": False}])
def test_bfloat16_autocast_keeps_coordinates_in_float32(
    build_model: Build, images: ImageBatch, variant: dict[str, Any]
) -> None:
    model = build_model(**variant)
    exact = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(images)
    for t in tensors(rounded):
        assert t.dtype == torch.float32
        assert t.isfinite().all()
    total = sum((t.sum() for t in tensors(rounded) if t.requires_grad), torch.zeros(()))
    torch.autograd.backward(total)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if not variant:
        return
    # Learned queries are the same in both precisions; selected ones may swap ranks.
    error = (exact.one_to_one.boxes_cxcywh - rounded.one_to_one.boxes_cxcywh).abs().max()
    assert error < 0.02


def test_runs_in_bfloat16_throughout(build_model: Build, images: ImageBatch) -> None:
    model = build_model().to(torch.bfloat16).eval()
    pixels = images.pixels.to(torch.bfloat16)
    output = model(ImageBatch(pixels, images.padding_mask))
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors(output))


def test_attention_backends_agree(build_model: Build, images: ImageBatch) -> None:
    model = build_model().eval()
    outputs = []
    for backend in ("reference", "gather"):
        model.set_attention_backend(backend)
        outputs.append(tensors(model(images)))
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs)
    model.set_attention_backend("other")
    with pytest.raises(ValueError, match="other"):
        model(images)


def test_more_queries_than_proposing_cells_is_an_error(build_model: Build) -> None:
    pixels = functional.pad(torch.randn(1, 3, 32, 32), (0, 0))
    small = ImageBatch(pixels, torch.zeros(1, 32, 32, dtype=torch.bool))
    with pytest.raises(RuntimeError):
        build_model(num_queries=30)(small)


def test_compiles_as_one_graph(build_model: Build, images: ImageBatch) -> None:
    model = build_model().train()
    # Without code generation: what may fail is the tracing, and that takes seconds.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(tensors(compiled(images)), tensors(model(images)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
