"""The exported program computes what the model computes, with fewer weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from msdetr.export import ExportSettings, build_program
from msdetr.model import DetectionModel
from msdetr.model.detections import select_detections
from msdetr.structures import ImageBatch

Build = Callable[..., DetectionModel]
SUPPRESSOR = ("model.placement=b", "model.extra_ffn=false", "model.suppressor={learned_keys: 3}")
KINDS = {
    "main": (),
    "arch a": ("model.placement=a", "model.extra_ffn=false"),
    "arch d": ("model.placement=d",),
    "plain two-stage": ("model.mixed_query_selection=false", "model.look_forward_twice=false"),
    "one-stage": (
        "model.two_stage=false",
        "model.mixed_query_selection=false",
        "supervision.proposals=null",
    ),
    "one head": (
        "model.two_stage=false",
        "model.mixed_query_selection=false",
        "supervision.proposals=null",
        "model.iterative_refinement=false",
        "model.look_forward_twice=false",
    ),
    "batch norm": ("model.backbone.norm=frozen_batch",),
    "timm": (
        "model.backbone={name: timm/mobilenetv3_small_050, norm: batch, stem_width: null,"
        " weights: none}",
    ),
    "timm, padded": (
        "model.backbone={name: timm/convnext_atto, norm: batch, stem_width: null, weights: none}",
    ),
    "suppressor": SUPPRESSOR,
    "suppressor, one head": (*SUPPRESSOR, "model.suppressor.own_class_head=false"),
    "suppressor, positions": (*SUPPRESSOR, "model.suppressor.relation=false"),
}


@pytest.mark.parametrize("op", ["gather", "grid_sample"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_raw_program_yields_the_last_layer(
    kind: str, op: str, build_tiny: Build, images: ImageBatch
) -> None:
    model = build_tiny(*KINDS[kind])
    program = build_program(model, ExportSettings(raw=True, op=op), detections=9)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = model(images).one_to_one
        logits, boxes = program(images.pixels, images.padding_mask)
    torch.testing.assert_close(logits, expected.logits[-1], rtol=0, atol=2e-5)
    torch.testing.assert_close(boxes, expected.boxes_cxcywh[-1], rtol=0, atol=2e-5)


def test_detections_are_in_pixels_of_the_unpadded_input(
    build_tiny: Build, images: ImageBatch
) -> None:
    model = build_tiny()
    program = build_program(model, ExportSettings(), detections=9)
    with torch.no_grad():
        last = model(images).one_to_one
        scores, labels, boxes = program(images.pixels, images.padding_mask)
    expected = select_detections(
        last.logits[-1], last.boxes_cxcywh[-1], torch.tensor([[96, 128], [70, 100]]), 9
    )
    assert scores.shape == (2, 9)
    torch.testing.assert_close(scores, expected.scores, rtol=0, atol=1e-5)
    assert torch.equal(labels, expected.labels)
    torch.testing.assert_close(boxes, expected.boxes_xyxy_px, rtol=0, atol=1e-2)


def test_program_without_mask_takes_whole_images(build_tiny: Build, images: ImageBatch) -> None:
    program = build_program(build_tiny(), ExportSettings(raw=True), detections=9)
    with torch.no_grad():
        nothing = torch.zeros_like(images.padding_mask)
        for bare, masked in zip(
            program(images.pixels), program(images.pixels, nothing), strict=True
        ):
            assert torch.equal(bare, masked)


@pytest.mark.parametrize("kind", ["main", "arch a", "batch norm", "suppressor"])
def test_nothing_of_the_training_is_left(kind: str, build_tiny: Build) -> None:
    model = build_tiny(*KINDS[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    program = build_program(model, ExportSettings(), detections=9)
    names = {name for name, _ in program.named_parameters()}
    assert not [n for n in names if "extra_ffn" in n or "one_to_many" in n or "groups" in n]
    # Only the last layer classifies.
    assert {n for n in names if "class_heads" in n} == {
        "decoder.class_heads.0.weight",
        "decoder.class_heads.0.bias",
    }
    assert program.query_source.class_head.weight.shape == (1, 32)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["hybrid", "group", "cdn"])
def test_query_groups_change_nothing(kind: str, build_tiny: Build, images: ImageBatch) -> None:
    model = build_tiny(recipe=f"shapes_tiny_ms_{kind}")
    plain = build_tiny()
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    program, expected = (
        build_program(each, ExportSettings(raw=True), detections=9) for each in (model, plain)
    )
    assert model.training_groups is not None
    assert program.state_dict().keys() == expected.state_dict().keys()
    with torch.no_grad():
        for ours, theirs in zip(program(images.pixels), expected(images.pixels), strict=True):
            assert torch.equal(ours, theirs)


def test_half_precision_keeps_what_yields_coordinates(
    build_tiny: Build, images: ImageBatch
) -> None:
    model = build_tiny()
    program = build_program(model, ExportSettings(raw=True, precision="fp16"), detections=9)
    full = {n for n, p in program.named_parameters() if p.dtype == torch.float32}
    assert full
    assert all("box_head" in name for name in full)
    with torch.no_grad():
        logits, boxes = program(images.pixels, images.padding_mask)
    assert (logits.dtype, boxes.dtype) == (torch.float32, torch.float32)


def test_half_precision_of_learned_queries(build_tiny: Build, images: ImageBatch) -> None:
    model = build_tiny(*KINDS["one-stage"])
    program = build_program(model, ExportSettings(raw=True, precision="fp16"), detections=9)
    with torch.no_grad():
        expected = model(images).one_to_one
        logits, boxes = program(images.pixels, images.padding_mask)
    # Learned queries keep their order, so that rows can be compared.
    torch.testing.assert_close(logits, expected.logits[-1], rtol=0, atol=0.05)
    torch.testing.assert_close(boxes, expected.boxes_cxcywh[-1], rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", ["suppressor", "suppressor, one head", "suppressor, positions"])
def test_half_precision_keeps_confidence_and_relations(
    kind: str, build_tiny: Build, images: ImageBatch
) -> None:
    program = build_program(
        build_tiny(*KINDS[kind]), ExportSettings(raw=True, precision="fp16"), detections=9
    )
    full = {n for n, p in program.named_parameters() if p.dtype == torch.float32}
    assert {"decoder.class_heads.0.weight", "decoder.class_heads.0.bias"} <= full
    assert all("box_head" in n or "class_heads" in n or "relation" in n for n in full)
    assert any("relation" in n for n in full) == (kind != "suppressor, positions")
    with torch.no_grad():
        logits, boxes = program(images.pixels, images.padding_mask)
    assert (logits.dtype, boxes.dtype) == (torch.float32, torch.float32)
    assert logits.isfinite().all()
