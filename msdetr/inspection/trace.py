"""The match trace: what a model predicted for the targets of some images, layer by layer.

Everything that inspection shows is computed from a trace: one forward pass makes it, the rest
works without the model. All tensors are on the CPU; floats are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msdetr.assignment import HungarianAssigner, OneToManyAssigner
from msdetr.errors import TraceError
from msdetr.inspection.query_groups import TracedGroups
from msdetr.inspection.scheme import StoredScheme, explanation_from, tensors_of
from msdetr.inspection.suppression import Suppression
from msdetr.inspection.trace_files import read_files, write_files
from msdetr.structures import Explanation

# 2: ``one_to_many`` has a ``type``; in traces of version 1 it is always MS-DETR's rule.
FORMAT_VERSION = 2
MS_DETR = "ms_detr"
BRANCHES = ("one_to_one", "one_to_many")
LOSS_NAMES = ("class", "box", "giou")
SIZE_BINS = ("small", "medium", "large")
# COCO's bounds of the annotated area, in pixels.
_SIZE_BOUNDS_PX = (32.0**2, 96.0**2)


@dataclass(frozen=True)
class TraceInfo:
    """What a trace was made of.

    Attributes:
        source: Checkpoint directory, or ``from scratch: RECIPE``.
        source_sha256: Digest of the checkpoint's weights file; None from scratch.
        weights: "trained", "averaged" or "untrained".
        recipe: The resolved recipe.
        annotations_file: Annotation file of the images.
        annotations_sha256: Its digest.
        category_names: [K] name of every label.
        category_ids: [K] original category id of every label.
        one_to_one: Rule of the one-to-one assignment.
        one_to_many: Rule of the one-to-many assignment, MS-DETR's or what is kept of another;
            the default rule where the model has no such branch.
        loss_weights: Per branch the factors of the class, box and GIoU loss in the total.
        has_one_to_many: Whether the model has a one-to-many branch. If not, both branches read
            the one-to-one predictions, and the one-to-many assignment is what it would be.
        shares_class_head: Whether both branches predict classes with one head.
        num_layers: N.
        num_queries: Q.
    """

    source: str
    source_sha256: str | None
    weights: str
    recipe: dict[str, Any]
    annotations_file: str
    annotations_sha256: str
    category_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    one_to_one: HungarianAssigner
    one_to_many: OneToManyAssigner | StoredScheme
    loss_weights: dict[str, tuple[float, float, float]]
    has_one_to_many: bool
    shares_class_head: bool
    num_layers: int
    num_queries: int

    @property
    def has_suppressor(self) -> bool:
        """Whether a suppressor alone is trained one-to-one, which the last layer's picks are of.

        Picks of the layers before it are what they would be, of one-to-many predictions.
        """
        return self.recipe.get("model", {}).get("suppressor") is not None


@dataclass(frozen=True, eq=False)
class TracedBranch:
    """Predictions of one branch for one image.

    Attributes:
        boxes_cxcywh: [N, Q, 4] float32 in 0..1.
        probabilities: [N, T, Q] float32, of each target's class.
        losses: [N, 3] float32, class, box and GIoU loss of the image, summed over its pairs,
            neither weighted nor divided by the number of targets.
    """

    boxes_cxcywh: Tensor
    probabilities: Tensor
    losses: Tensor


@dataclass(frozen=True, eq=False)
class TracedImage:
    """One image of a trace, with T targets (0 or more).

    Attributes:
        image_id: Id in the annotation file.
        file_name: Name in the annotation file.
        path: Where the image was.
        original_hw: Height and width in pixels.
        boxes_cxcywh: [T, 4] float32 in 0..1.
        labels: [T] int64.
        annotation_ids: [T] int64.
        areas_px: [T] float32, annotated areas in pixels.
        one_to_one: Predictions of that branch.
        one_to_many: Predictions of that branch; those of one-to-one where the model has none.
        u: [N, Q] float32 in [0, 1), the random numbers of the cap.
        hungarian_cost: [N, T, Q] float32, of the one-to-one branch's predictions.
        one_to_one_queries: [N, T] int64, the assigner's output; -1 for targets without a query.
        one_to_many_queries: [N, T, J] int64, the assigner's output by descending score, J the
            smaller of k and Q for MS-DETR's rule; -1 on unused slots.
        explanation: Of the one-to-many assignment; None for MS-DETR's rule, which is repeated.
        groups: What the query groups beside the primary one are paired with.
        suppressions: What the suppressor did, if the model has one.
    """

    image_id: int
    file_name: str
    path: str
    original_hw: tuple[int, int]
    boxes_cxcywh: Tensor
    labels: Tensor
    annotation_ids: Tensor
    areas_px: Tensor
    one_to_one: TracedBranch
    one_to_many: TracedBranch
    u: Tensor
    hungarian_cost: Tensor
    one_to_one_queries: Tensor
    one_to_many_queries: Tensor
    explanation: Explanation | None = None
    groups: TracedGroups = field(default_factory=TracedGroups)
    suppressions: tuple[Suppression, ...] = ()

    @property
    def num_targets(self) -> int:
        """T."""
        return len(self.labels)

    @property
    def size_bins(self) -> list[str]:
        """Size bin of every target, "small", "medium" or "large", by COCO's areas."""
        low, high = _SIZE_BOUNDS_PX
        return [SIZE_BINS[(a >= low) + (a > high)] for a in self.areas_px.tolist()]


@dataclass(frozen=True, eq=False)
class MatchTrace:
    """Predictions and assignments of a model on some images.

    Attributes:
        info: What it was made of.
        images: By ascending image id.
    """

    info: TraceInfo
    images: tuple[TracedImage, ...]

    def save(self, path: Path) -> None:
        """Write the trace as a directory: ``trace.json``, ``trace.safetensors``, checksums.

        An older trace at the same place is replaced as a whole.

        Raises:
            TraceError: The directory cannot be written or holds something else.
        """
        entries, tensors = [], {}
        for index, image in enumerate(self.images):
            entries.append({key: getattr(image, key) for key in _PLAIN})
            if image.groups.groups:
                entries[-1]["groups"] = image.groups.to_dict()
            if image.suppressions:
                entries[-1]["suppressions"] = [each.to_dict() for each in image.suppressions]
            for key, value in _tensors_of(image, both=self.info.has_one_to_many).items():
                tensors[f"{index}.{key}"] = value
        rules = {"one_to_many": _tagged(self.info.one_to_many)}
        info = {field.name: getattr(self.info, field.name) for field in fields(TraceInfo)}
        info |= {"one_to_one": asdict(self.info.one_to_one), **rules}
        document = {"format_version": FORMAT_VERSION, **info, "images": entries}
        write_files(path, document, tensors)

    @classmethod
    def load(cls, path: Path) -> MatchTrace:
        """Read a trace.

        Args:
            path: Its directory, or the ``trace.json`` in it.

        Raises:
            TraceError: There is none, it is damaged, or of a newer format.
        """
        document, tensors = read_files(path, FORMAT_VERSION)
        try:
            info = _info_from(document)
            images = tuple(
                _image_from(index, entry, tensors, info)
                for index, entry in enumerate(document["images"])
            )
        except (LookupError, TypeError, ValueError) as error:
            raise TraceError(str(path), f"is damaged: {type(error).__name__} {error}") from error
        return cls(info, images)

    def select(self, image_ids: Sequence[int]) -> MatchTrace:
        """Return a trace of some of the images.

        Raises:
            TraceError: An id is not in the trace.
        """
        known = {image.image_id: image for image in self.images}
        missing = [image_id for image_id in image_ids if image_id not in known]
        if missing:
            listed = ", ".join(map(str, missing[:5]))
            raise TraceError(
                "`image_ids`", f"{listed}: not among the {len(known)} images of the trace"
            )
        return MatchTrace(self.info, tuple(known[i] for i in sorted(set(image_ids))))

    def limit(self, num_images: int) -> MatchTrace:
        """Return a trace of the first images only."""
        return MatchTrace(self.info, self.images[:num_images])


_PLAIN = ("image_id", "file_name", "path", "original_hw")
_BRANCH_TENSORS = tuple(f.name for f in fields(TracedBranch))
_IMAGE_TENSORS = tuple(
    f.name
    for f in fields(TracedImage)
    if f.name not in (*_PLAIN, *BRANCHES, "explanation", "groups", "suppressions")
)
_EXPLANATION = "explanation."
_QUERIES = {"one_to_one_queries", "one_to_many_queries"}
_INTEGERS = {"labels", "annotation_ids", *_QUERIES}


def _tensors_of(image: TracedImage, *, both: bool) -> dict[str, Tensor]:
    found = {key: getattr(image, key) for key in _IMAGE_TENSORS}
    for branch in BRANCHES:
        names = _BRANCH_TENSORS if both or branch == "one_to_one" else ("losses",)
        found |= {f"{branch}.{n}": getattr(getattr(image, branch), n) for n in names}
    if image.explanation is not None:
        tensors = tensors_of(image.explanation)
        found |= {_EXPLANATION + name: tensor for name, tensor in tensors.items()}
    return {
        key: value.to(torch.int32) if key in _QUERIES else value.contiguous()
        for key, value in found.items()
    }


def _tagged(rule: OneToManyAssigner | StoredScheme) -> dict[str, Any]:
    return rule.to_dict() if isinstance(rule, StoredScheme) else {"type": MS_DETR, **asdict(rule)}


def _rule_from(values: Mapping[str, Any]) -> OneToManyAssigner | StoredScheme:
    settings = dict(values)
    if settings.pop("type", MS_DETR) != MS_DETR:
        return StoredScheme.from_dict(settings)
    return OneToManyAssigner(**settings)


def _info_from(document: Mapping[str, Any]) -> TraceInfo:
    values = {field.name: document[field.name] for field in fields(TraceInfo)}
    info = TraceInfo(**values)
    return replace(
        info,
        category_names=tuple(info.category_names),
        category_ids=tuple(info.category_ids),
        one_to_one=HungarianAssigner(**values["one_to_one"]),
        one_to_many=_rule_from(values["one_to_many"]),
        loss_weights={branch: _three(info.loss_weights[branch]) for branch in BRANCHES},
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _image_from(
    index: int, entry: Mapping[str, Any], tensors: Mapping[str, Tensor], info: TraceInfo
) -> TracedImage:
    found = {key: tensors[f"{index}.{key}"] for key in _IMAGE_TENSORS}
    one_to_one = {n: tensors[f"{index}.one_to_one.{n}"] for n in _BRANCH_TENSORS}
    one_to_many = {n: tensors.get(f"{index}.one_to_many.{n}", one_to_one[n]) for n in one_to_one}
    sizes = {"N": info.num_layers, "Q": info.num_queries, "T": len(found["labels"])}
    sizes["J"] = found["one_to_many_queries"].shape[-1]
    _check_shapes(f"image {index}", found, _IMAGE_SHAPES, sizes)
    _check_values(f"image {index}", found, info)
    for branch in (one_to_one, one_to_many):
        _check_shapes(f"image {index}", branch, _BRANCH_SHAPES, sizes)
    values: dict[str, Any] = {key: entry[key] for key in _PLAIN}
    values |= {key: value.long() if key in _INTEGERS else value for key, value in found.items()}
    height, width = entry["original_hw"]
    return TracedImage(
        **{**values, "original_hw": (int(height), int(width))},
        one_to_one=TracedBranch(**one_to_one),
        one_to_many=TracedBranch(**one_to_many),
        explanation=_explanation_from(index, tensors, info, sizes),
        groups=TracedGroups.from_dict(entry["groups"]) if "groups" in entry else TracedGroups(),
        suppressions=_suppressions_from(entry.get("suppressions", ()), sizes),
    )


def _explanation_from(
    index: int, tensors: Mapping[str, Tensor], info: TraceInfo, sizes: Mapping[str, int]
) -> Explanation | None:
    if not isinstance(info.one_to_many, StoredScheme):
        return None
    prefix = f"{index}.{_EXPLANATION}"
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return explanation_from(found, info.one_to_many, sizes)


def _suppressions_from(
    entries: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]
) -> tuple[Suppression, ...]:
    found = tuple(Suppression.from_dict(entry) for entry in entries)
    for each in found:
        targets = 0 <= each.target < sizes["T"] and -1 <= each.by_target < sizes["T"]
        queries = 0 <= each.query < sizes["Q"] and -1 <= each.by < sizes["Q"]
        if not (targets and queries):
            raise ValueError(f"a suppression names a query or target that does not exist: {each}")
    return found


_IMAGE_SHAPES = {
    "boxes_cxcywh": "T4",
    "labels": "T",
    "annotation_ids": "T",
    "areas_px": "T",
    "u": "NQ",
    "hungarian_cost": "NTQ",
    "one_to_one_queries": "NT",
    "one_to_many_queries": "NTJ",
}
_BRANCH_SHAPES = {"boxes_cxcywh": "NQ4", "probabilities": "NTQ", "losses": "N3"}


def _check_shapes(
    where: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, str], sizes: Mapping[str, int]
) -> None:
    for name, tensor in tensors.items():
        expected = tuple(sizes[d] if d in sizes else int(d) for d in shapes[name])
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{where}: {name} is {tuple(tensor.shape)}, expected {expected}")


def _check_values(where: str, tensors: Mapping[str, Tensor], info: TraceInfo) -> None:
    queries = range(-1, info.num_queries)
    allowed = {
        "labels": range(len(info.category_names)),
        "one_to_one_queries": queries,
        "one_to_many_queries": queries,
    }
    for name, values in allowed.items():
        unknown = set(tensors[name].flatten().tolist()) - set(values)
        if unknown:
            raise ValueError(f"{where}: {name} holds {min(unknown)}, which does not exist")
