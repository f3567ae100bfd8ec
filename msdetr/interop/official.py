"""Names in the published MS-DETR, MDS-DETR and Deformable-DETR checkpoints.

A published state dict holds some tensors under several names: the heads also appear inside the
decoder, and heads that layers share appear once per layer. Each of our tensors thus has one or more
published names (its aliases).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.errors import CheckpointError, Problem
from msdetr.interop.query_rows import count_rows, join_rows, row_tables, split_rows
from msdetr.interop.suppressor_names import SUPPRESSOR_HEAD, decoder_aliases, has_suppressor

# Our name -> first published name; the first pattern that matches the whole name counts.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"backbone\.body\.(.+)", r"backbone.0.body.\1"),
        (r"neck\.projections\.(.+)", r"input_proj.\1"),
        (r"encoder\.level_embed", r"transformer.level_embed"),
        (r"encoder\.(layers\.\d+)\.attention\.(.+)", r"transformer.encoder.\1.self_attn.\2"),
        (r"encoder\.(layers\.\d+)\.attention_norm\.(.+)", r"transformer.encoder.\1.norm1.\2"),
        (r"encoder\.(layers\.\d+)\.ffn\.norm\.(.+)", r"transformer.encoder.\1.norm2.\2"),
        (r"encoder\.(layers\.\d+)\.ffn\.(.+)", r"transformer.encoder.\1.\2"),
        (r"decoder\.(layers\.\d+)\.cross_attention\.(.+)", r"transformer.decoder.\1.cross_attn.\2"),
        (r"decoder\.(layers\.\d+)\.cross_attention_norm\.(.+)", r"transformer.decoder.\1.norm1.\2"),
        (r"decoder\.(layers\.\d+)\.self_attention\.(.+)", r"transformer.decoder.\1.self_attn.\2"),
        (r"decoder\.(layers\.\d+)\.self_attention_norm\.(.+)", r"transformer.decoder.\1.norm2.\2"),
        (r"decoder\.(layers\.\d+)\.ffn\.norm\.(.+)", r"transformer.decoder.\1.norm3.\2"),
        (r"decoder\.(layers\.\d+)\.ffn\.(.+)", r"transformer.decoder.\1.\2"),
        (r"decoder\.(layers\.\d+)\.extra_ffn\.norm\.(.+)", r"transformer.decoder.\1.norm4.\2"),
        (
            r"decoder\.(layers\.\d+)\.extra_ffn\.linear1\.(.+)",
            r"transformer.decoder.\1.linear3.\2",
        ),
        (
            r"decoder\.(layers\.\d+)\.extra_ffn\.linear2\.(.+)",
            r"transformer.decoder.\1.linear4.\2",
        ),
        (r"query_source\.memory_proj\.(.+)", r"transformer.enc_output.\1"),
        (r"query_source\.memory_norm\.(.+)", r"transformer.enc_output_norm.\1"),
        (r"query_source\.query_proj\.(.+)", r"transformer.pos_trans.\1"),
        (r"query_source\.query_norm\.(.+)", r"transformer.pos_trans_norm.\1"),
        (r"query_source\.(?:content|embedding)\.(.+)", r"query_embed.\1"),
        (r"query_source\.reference_points\.(.+)", r"transformer.reference_points.\1"),
        (r"training_groups\.hybrid\.content\.(.+)", r"query_embed.\1"),
        (r"training_groups\.independent\.content\.\d+\.(.+)", r"query_embed.\1"),
        (r"training_groups\.denoising\.labels\.(.+)", r"label_enc.\1"),
    )
)
_HEAD = re.compile(
    r"(?:decoder\.(?P<kind>class|box|one_to_many_class)_heads\.(?P<layer>\d+)"
    r"|query_source\.(?P<proposal>class|box)_head"
    r"|decoder\.suppressor_(?P<suppressor>class)_head)\.(?P<rest>.+)"
)
_STAGE = re.compile(r"training_groups\.independent\.stages\.(\d+)\.(\w+)\.(.+)")
# No published model has several groups with proposal stages: these names are ours.
_STAGE_PARTS = {
    "memory_proj": "enc_output",
    "memory_norm": "enc_output_norm",
    "class_head": "class_embed",
    "box_head": "bbox_embed",
}
_STEMS = {"class": "class_embed", "box": "bbox_embed", "one_to_many_class": "class_embed_o2m"}


@dataclass(frozen=True)
class Translation:
    """A published state dict under our names.

    Attributes:
        state: Tensors by our name.
        unknown: Published names that the model has no tensor for; of a table with more learned
            rows than the model has, the rest, as in ``query_embed.weight[300:]``.
    """

    state: dict[str, Tensor]
    unknown: tuple[str, ...]


def published_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Find the published names of a model's tensors.

    Args:
        names: All names of the model's state dict; together they tell the kind of model
            (two-stage, shared heads), on which the aliases depend.

    Returns:
        Our name to its published aliases. Counters of batch norm are left out: published
        models have none.

    Raises:
        KeyError: A name is not one of ``DetectionModel``'s.
    """
    known = [name for name in names if not name.endswith("num_batches_tracked")]
    structure = _Structure.of(known)
    return {name: structure.aliases(name) for name in known}


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our state dict, with every alias that the published models have."""
    state = join_rows(state)
    names = published_names(state)
    return {alias: state[name] for name, aliases in names.items() for alias in aliases}


def translate(
    published: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> Translation:
    """Rename those tensors of a published state dict that a model knows.

    Shapes are not compared, and tensors may be missing: for taking over part of a model.

    Args:
        published: State dict under published names.
        expected: Our model's state dict.
        source: The file, for error messages.

    Raises:
        CheckpointError: Aliases of one tensor differ.
    """
    state: dict[str, Tensor] = {}
    problems: list[Problem] = []
    joined = join_rows(expected)
    aliases_of = published_names(joined)
    for name, aliases in aliases_of.items():
        present = [alias for alias in aliases if alias in published]
        if not present:
            continue
        state[name] = published[present[0]]
        problems += [
            Problem(alias, f"differs from {present[0]}, though both name one tensor")
            for alias in present[1:]
            if not _same(published[alias], state[name])
        ]
    if problems:
        raise CheckpointError(source, problems)
    wanted = {alias for aliases in aliases_of.values() for alias in aliases}
    unknown = tuple(name for name in published if name not in wanted)
    return Translation(
        split_rows(state, expected), (*unknown, *_surplus_rows(state, expected, aliases_of))
    )


def _surplus_rows(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    aliases_of: Mapping[str, tuple[str, ...]],
) -> Iterator[str]:
    number = count_rows(expected)
    for table in row_tables(expected)[:1]:
        rows = state.get(table)
        if rows is not None and rows.ndim > 0 and len(rows) > number:
            yield f"{aliases_of[table][0]}[{number}:]"


def from_published(
    published: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Rename a published state dict for a model that takes all of it.

    Args:
        published: State dict under published names.
        expected: Our model's state dict; names and shapes are compared, values are kept for
            counters of batch norm only.
        source: The file, for error messages.

    Returns:
        State dict for ``load_state_dict`` with ``strict=True``.

    Raises:
        CheckpointError: Names are missing or unexpected, shapes differ, aliases of one tensor
            do, or values are not finite.
    """
    problems = find_mismatches(published, expected)
    if problems:
        raise CheckpointError(source, problems)
    translation = translate(published, expected, source)
    problems = [
        Problem(published_names(expected)[name][0], "holds values that are not finite numbers")
        for name, tensor in translation.state.items()
        if not tensor.isfinite().all()
    ]
    if problems:
        raise CheckpointError(source, problems)
    return {name: translation.state.get(name, tensor) for name, tensor in expected.items()}


def find_mismatches(
    published: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[Problem]:
    """List how a published state dict differs from a model in names and shapes.

    Args:
        published: State dict under published names.
        expected: Our model's state dict, also of a model without values (device "meta").

    Returns:
        One problem per published name that is unexpected, missing under all its aliases, or of
        another shape; empty if the file fits.
    """
    expected = join_rows(expected)
    aliases_of = published_names(expected)
    wanted = {alias for aliases in aliases_of.values() for alias in aliases}
    problems = [
        Problem(name, "unexpected: the model has no such tensor")
        for name in published
        if name not in wanted
    ]
    for name, aliases in aliases_of.items():
        present = [alias for alias in aliases if alias in published]
        if not present:
            problems.append(Problem(aliases[0], "missing from the file"))
        shape = list(expected[name].shape)
        problems += [
            Problem(alias, f"expected shape {shape}, got {_describe(published[alias])}")
            for alias in present
            if list(published[alias].shape) != shape or not published[alias].is_floating_point()
        ]
    return problems


def count_classes(published: Mapping[str, Tensor]) -> int | None:
    """Return K, the classes of a published state dict; None if it has no class head."""
    bias = published.get("class_embed.0.bias")
    return None if bias is None or bias.ndim != 1 else len(bias)


def _describe(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{list(tensor.shape)}{kind}"


def _same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


@dataclass(frozen=True)
class _Structure:
    num_layers: int
    two_stage: bool
    shared_heads: bool
    own_one_to_many: bool
    suppressor: bool
    own_suppressor_head: bool

    @classmethod
    def of(cls, names: Iterable[str]) -> _Structure:
        names = list(names)
        layers = {m[1] for name in names if (m := re.match(r"decoder\.layers\.(\d+)\.", name))}
        heads = {m[1] for name in names if (m := re.match(r"decoder\.box_heads\.(\d+)\.", name))}
        return cls(
            num_layers=len(layers),
            two_stage=any(name.startswith("query_source.memory_proj.") for name in names),
            shared_heads=len(heads) < len(layers),
            own_one_to_many=any("one_to_many_class_heads" in name for name in names),
            suppressor=has_suppressor(names),
            own_suppressor_head=any(name.startswith(SUPPRESSOR_HEAD) for name in names),
        )

    def aliases(self, name: str) -> tuple[str, ...]:
        head = _HEAD.fullmatch(name)
        if head is not None:
            return tuple(f"{stem}.{head['rest']}" for stem in self._head_aliases(head))
        if self.suppressor and (found := decoder_aliases(name)):
            return found
        stage = _STAGE.fullmatch(name)
        if stage is not None:
            return (f"groups.{int(stage[1]) + 1}.{_STAGE_PARTS[stage[2]]}.{stage[3]}",)
        for pattern, replacement in _RULES:
            if pattern.fullmatch(name):
                return (pattern.sub(replacement, name),)
        raise KeyError(name)

    def _head_aliases(self, head: re.Match[str]) -> list[str]:
        if head["proposal"]:
            kind, layers = head["proposal"], [self.num_layers]
        elif head["suppressor"]:
            kind, layers = head["suppressor"], [self.num_layers + 1]
        else:
            kind = head["kind"]
            layers = list(range(self.num_layers)) if self.shared_heads else [int(head["layer"])]
        if kind == "class" and self.suppressor and not self.own_suppressor_head:
            # The suppressor shares the last layer's.
            layers += [self.num_layers + 1] if layers == [self.num_layers - 1] else []
        stems = [_STEMS[kind]]
        # The decoder refines with box heads, and the proposal stage uses both kinds there.
        if (kind == "box" and not self.shared_heads) or (kind == "class" and self.two_stage):
            stems.append(f"transformer.decoder.{_STEMS[kind]}")
        if kind == "box" and self.own_one_to_many and not head["proposal"]:
            stems.append("bbox_embed_o2m")
        return [f"{stem}.{layer}" for stem in stems for layer in layers]
