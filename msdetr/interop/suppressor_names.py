"""Names in the published checkpoints of MDS-DETR, as far as they differ from MS-DETR's."""

from __future__ import annotations

import re

_DECODER = "transformer.decoder."
_LAYER = r"decoder\.layers\.(\d+)\."
_SUPPRESSOR = r"decoder\.suppressor\."

# Our name -> published names behind the decoder's; the first pattern that matches counts.
_RULES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), replacements)
    for pattern, replacements in (
        (_LAYER + r"cross_attention\.(.+)", (r"ca_layers.\1.cross_attn.\2",)),
        (_LAYER + r"cross_attention_norm\.(.+)", (r"ca_layers.\1.norm1.\2",)),
        (_LAYER + r"self_attention\.(.+)", (r"ca_layers.\1.add_self_attn.\2",)),
        (_LAYER + r"self_attention_norm\.(.+)", (r"ca_layers.\1.add_norm.\2",)),
        (_LAYER + r"ffn\.norm\.(.+)", (r"ca_layers.\1.norm3.\2",)),
        (_LAYER + r"ffn\.(.+)", (r"ca_layers.\1.\2",)),
        (_SUPPRESSOR + r"attention\.learned_keys", (r"rank_dict.sup_token.0.param",)),
        (_SUPPRESSOR + r"attention\.learned_values", (r"sa_layers.0.sup_token_v",)),
        (_SUPPRESSOR + r"attention\.learned_bias", (r"sa_layers.0.token_bias",)),
        (
            _SUPPRESSOR + r"attention\.relation\.hidden\.(.+)",
            (r"sa_layers.0.linear_rel.layers.0.\1",),
        ),
        (
            _SUPPRESSOR + r"attention\.relation\.output\.(.+)",
            (r"sa_layers.0.linear_rel.layers.1.\1",),
        ),
        (
            _SUPPRESSOR + r"attention\.(.+)",
            (r"sa_layers.0.self_attn.\1", r"sa_layers.0.masked_att.attn.\1"),
        ),
        (_SUPPRESSOR + r"attention_norm\.(.+)", (r"sa_layers.0.norm2.\1",)),
        (_SUPPRESSOR + r"ffn\.norm\.(.+)", (r"sa_layers.0.norm3.\1",)),
        (_SUPPRESSOR + r"ffn\.(.+)", (r"sa_layers.0.\1",)),
    )
)
SUPPRESSOR_HEAD = "decoder.suppressor_class_head."


def has_suppressor(names: list[str]) -> bool:
    """Return whether the names are those of a model with a suppressor."""
    return any(name.startswith("decoder.suppressor.") for name in names)


def decoder_aliases(name: str) -> tuple[str, ...]:
    """Find the published names of a tensor of the decoder's layers; none for any other."""
    for pattern, replacements in _RULES:
        if pattern.fullmatch(name):
            return tuple(_DECODER + pattern.sub(each, name) for each in replacements)
    return ()
