from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.build import build_model
from msdetr.errors import CheckpointError
from msdetr.interop.official import (
    count_classes,
    from_published,
    published_names,
    to_published,
    translate,
)
from msdetr.model import DetectionModel
from msdetr.recipe import ModelRecipe

MODEL: dict[str, Any] = {
    "backbone": {"name": "resnet_tiny", "weights": "none", "norm": "batch", "stem_width": 8},
    "width": 32,
    "heads": 4,
    "points": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "ffn_width": 16,
    "num_queries": 4,
    "mixed_query_selection": True,
}


def build(num_classes: int = 3, **fields: Any) -> DetectionModel:
    return build_model(ModelRecipe.model_validate({**MODEL, **fields}), num_classes)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {
        k: torch.randn_like(v) if v.is_floating_point() else v
        for k, v in build().state_dict().items()
    }


VARIANTS: list[dict[str, Any]] = [
    {},
    {"placement": "baseline", "extra_ffn": False},
    {"placement": "b", "extra_ffn": False},
    {"two_stage": False},
    {"two_stage": False, "iterative_refinement": False},
    {"decoder_layers": 1},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(variant: dict[str, Any]) -> None:
    model = build(**variant)
    ours = model.state_dict()
    back = from_published(to_published(ours), ours, "file.pth")
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    model.load_state_dict(back)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_two_tensors_share_a_published_name(variant: dict[str, Any]) -> None:
    aliases = [
        a for names in published_names(build(**variant).state_dict()).values() for a in names
    ]
    assert len(set(aliases)) == len(aliases)


@pytest.mark.parametrize(
    ("variant", "ours", "published"),
    [
        (
            {},
            "decoder.class_heads.1.bias",
            ("class_embed.1.bias", "transformer.decoder.class_embed.1.bias"),
        ),
        (
            {},
            "query_source.class_head.bias",
            ("class_embed.2.bias", "transformer.decoder.class_embed.2.bias"),
        ),
        (
            {"placement": "b", "extra_ffn": False},
            "decoder.box_heads.0.layers.2.bias",
            (
                "bbox_embed.0.layers.2.bias",
                "transformer.decoder.bbox_embed.0.layers.2.bias",
                "bbox_embed_o2m.0.layers.2.bias",
            ),
        ),
        (
            {"placement": "b", "extra_ffn": False},
            "decoder.one_to_many_class_heads.1.weight",
            ("class_embed_o2m.1.weight",),
        ),
        ({"two_stage": False}, "decoder.class_heads.1.bias", ("class_embed.1.bias",)),
        (
            {"two_stage": False, "iterative_refinement": False},
            "decoder.box_heads.0.layers.0.bias",
            ("bbox_embed.0.layers.0.bias", "bbox_embed.1.layers.0.bias"),
        ),
        (
            {},
            "decoder.layers.1.extra_ffn.linear2.weight",
            ("transformer.decoder.layers.1.linear4.weight",),
        ),
        (
            {},
            "decoder.layers.0.self_attention_norm.bias",
            ("transformer.decoder.layers.0.norm2.bias",),
        ),
        ({"two_stage": False}, "query_source.embedding.weight", ("query_embed.weight",)),
    ],
)
def test_published_names(variant: dict[str, Any], ours: str, published: tuple[str, ...]) -> None:
    assert published_names(build(**variant).state_dict())[ours] == published


def test_names_of_other_models_are_refused() -> None:
    with pytest.raises(KeyError, match="stray"):
        published_names(["encoder.level_embed", "stray.weight"])


def test_strict_loading_lists_everything_that_is_wrong(state: dict[str, Tensor]) -> None:
    published = to_published(state)
    del published["transformer.level_embed"]
    published["input_proj.0.0.bias"] = torch.zeros(7)
    published["stray.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        from_published(published, state, "file.pth")
    lines = str(caught.value).splitlines()
    assert lines[0] == "file.pth: 3 problems"
    assert any("transformer.level_embed" in line and "missing" in line for line in lines)
    assert any("input_proj.0.0.bias" in line and "[32], got [7]" in line for line in lines)
    assert any("stray.weight" in line and "no such tensor" in line for line in lines)


def test_one_alias_suffices_but_aliases_must_agree(state: dict[str, Tensor]) -> None:
    published = to_published(state)
    alias = "transformer.decoder.class_embed.0.bias"
    published[alias] = published[alias] + 1
    with pytest.raises(CheckpointError, match=r"transformer\.decoder\.class_embed\.0\.bias"):
        from_published(published, state, "file.pth")
    del published[alias]
    from_published(published, state, "file.pth")


def test_aliases_of_different_shape_disagree(state: dict[str, Tensor]) -> None:
    published = to_published(state)
    published["class_embed.0.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError, match="one tensor"):
        translate(published, state, "file.pth")


def test_translation_takes_what_it_knows(state: dict[str, Tensor]) -> None:
    published = to_published(state)
    del published["transformer.level_embed"]
    published["stray.weight"] = torch.zeros(1)
    result = translate(published, build(num_classes=8).state_dict(), "file.pth")
    assert result.unknown == ("stray.weight",)
    assert "encoder.level_embed" not in result.state
    # Shapes are the caller's business: here the classes differ.
    assert result.state["decoder.class_heads.0.bias"].shape == (3,)


def test_extra_layers_of_the_file_are_unknown(state: dict[str, Tensor]) -> None:
    result = translate(to_published(state), build(decoder_layers=1).state_dict(), "file.pth")
    assert "transformer.decoder.layers.1.linear1.weight" in result.unknown


def test_numbers_must_be_finite_and_of_a_floating_type(state: dict[str, Tensor]) -> None:
    published = to_published(state)
    bias = published["input_proj.0.0.bias"]
    published["input_proj.0.0.bias"] = bias.long()
    with pytest.raises(CheckpointError, match=r"input_proj\.0\.0\.bias.*\[32\] of int64"):
        from_published(published, state, "file.pth")
    published["input_proj.0.0.bias"] = bias / 0
    with pytest.raises(CheckpointError, match=r"input_proj\.0\.0\.bias: .*not finite"):
        from_published(published, state, "file.pth")


def test_half_precision_is_taken(state: dict[str, Tensor]) -> None:
    model = build()
    half = {name: value.half() for name, value in to_published(state).items()}
    model.load_state_dict(from_published(half, model.state_dict(), "file.pth"))
    assert model.encoder.level_embed.dtype == torch.float32


def test_classes_are_counted(state: dict[str, Tensor]) -> None:
    assert count_classes(to_published(state)) == 3
    assert count_classes({}) is None
