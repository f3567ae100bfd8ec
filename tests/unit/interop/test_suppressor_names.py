"""Published names of MDS-DETR; the goldens compare them all."""

from __future__ import annotations

import pytest

from msdetr.interop.suppressor_names import decoder_aliases, has_suppressor


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decoder.layers.2.self_attention_norm.bias", ("ca_layers.2.add_norm.bias",)),
        ("decoder.layers.0.ffn.norm.weight", ("ca_layers.0.norm3.weight",)),
        ("decoder.layers.0.ffn.linear1.weight", ("ca_layers.0.linear1.weight",)),
        ("decoder.suppressor.attention.learned_keys", ("rank_dict.sup_token.0.param",)),
        (
            "decoder.suppressor.attention.relation.output.bias",
            ("sa_layers.0.linear_rel.layers.1.bias",),
        ),
        (
            "decoder.suppressor.attention.out_proj.bias",
            (
                "sa_layers.0.self_attn.out_proj.bias",
                "sa_layers.0.masked_att.attn.out_proj.bias",
            ),
        ),
    ],
)
def test_names_of_the_decoder(name: str, expected: tuple[str, ...]) -> None:
    assert decoder_aliases(name) == tuple(f"transformer.decoder.{each}" for each in expected)


def test_names_outside_the_layers_are_left_to_others() -> None:
    assert decoder_aliases("decoder.class_heads.0.weight") == ()
    assert decoder_aliases("encoder.level_embed") == ()


def test_a_suppressor_shows_in_the_names() -> None:
    assert has_suppressor(["decoder.suppressor.ffn.norm.bias"])
    assert not has_suppressor(["decoder.layers.0.ffn.norm.bias"])
