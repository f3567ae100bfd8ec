"""Statistics of what query groups beside the primary one learn from, and their table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from msdetr.csv_files import CsvWriter
from msdetr.inspection.query_groups import TracedGroup, TracedGroups


@dataclass(frozen=True)
class GroupSummary:
    """A group in one decoder layer, over all images of a trace.

    Attributes:
        name: Of the group.
        layer: Decoder layer, from 0.
        queries: Queries of an image, mean.
        serving: Of these, those that have a target, mean.
        background: The others, mean.
        also_one_to_many: Share of pairs that the primary group's one-to-many assignment makes
            too; None where there is no such assignment or no pair.
    """

    name: str
    layer: int
    queries: float
    serving: float
    background: float
    also_one_to_many: float | None


@dataclass(frozen=True)
class NoiseSummary:
    """How noisy denoising queries are, over all images of a trace.

    Attributes:
        slots: Slots of an image, mean.
        positive_iou: IoU of positive slots' boxes with their targets, mean; None without any.
        negative_iou: The same of negative slots.
        flipped: Share of slots with another class than their target's; None without any.
    """

    slots: float
    positive_iou: float | None
    negative_iou: float | None
    flipped: float | None


def summarize_groups(images: Sequence[TracedGroups]) -> tuple[GroupSummary, ...]:
    """Describe the groups of a trace, by group and layer; nothing without groups."""
    names = list(dict.fromkeys(g.name for image in images for g in image.groups))
    return tuple(
        summary
        for name in names
        for summary in _summarize(
            name, [g for image in images for g in image.groups if g.name == name]
        )
    )


def _summarize(name: str, groups: Sequence[TracedGroup]) -> Iterator[GroupSummary]:
    queries = sum(group.num_queries for group in groups) / len(groups)
    for layer in range(len(groups[0].serving)):
        serving = sum(group.serving[layer] for group in groups) / len(groups)
        pairs = sum(group.pairs[layer] for group in groups)
        shared = [g.also_one_to_many[layer] for g in groups if g.also_one_to_many is not None]
        yield GroupSummary(
            name=name,
            layer=layer,
            queries=queries,
            serving=serving,
            background=queries - serving,
            also_one_to_many=sum(shared) / pairs if shared and pairs else None,
        )


def summarize_noise(images: Sequence[TracedGroups]) -> NoiseSummary | None:
    """Describe the noise of a trace; None without denoising queries."""
    noises = [image.noise for image in images if image.noise is not None]
    if not noises:
        return None
    slots = [
        (iou, positive, flipped)
        for noise in noises
        for iou, positive, flipped in zip(noise.iou, noise.positive, noise.flipped, strict=True)
    ]
    return NoiseSummary(
        slots=len(slots) / len(noises),
        positive_iou=_mean(iou for iou, positive, _ in slots if positive),
        negative_iou=_mean(iou for iou, positive, _ in slots if not positive),
        flipped=_mean(float(flipped) for _, _, flipped in slots),
    )


class GroupTable:
    """Writes ``groups.csv``: one row per image, group and decoder layer.

    Args:
        file: Open for writing text without newline translation.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = CsvWriter(file)
        self._writer.write(
            (
                *("image", "group", "layer", "queries", "serving", "background", "pairs"),
                "also_one_to_many",
            )
        )

    def write(self, image_id: int, groups: TracedGroups) -> None:
        """Append the rows of an image."""
        for group in groups.groups:
            for layer, (serving, pairs) in enumerate(zip(group.serving, group.pairs, strict=True)):
                also = group.also_one_to_many
                background = group.num_queries - serving
                place = (image_id, group.name, layer, group.num_queries)
                shared = "" if also is None else also[layer]
                self._writer.write((*place, serving, background, pairs, shared))


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
