"""Fields that are valid alone but do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from msdetr.pretraining import PACKAGE, PACKAGED, TIMM
from msdetr.recipe.assigners import MsDetrRecipe
from msdetr.recipe.data import DataRecipe
from msdetr.recipe.group_conflicts import find_group_conflicts
from msdetr.recipe.model import BackboneRecipe, ModelRecipe
from msdetr.recipe.query_groups import QueryGroupsRecipe
from msdetr.recipe.supervision import MS_DETR_FIELDS, OneToManyRecipe, SupervisionRecipe
from msdetr.recipe.training import TrainRecipe

_DILATABLE = ("resnet50", "resnet101")


@dataclass(frozen=True)
class Conflict:
    """Two or more fields that do not fit together.

    Attributes:
        key: Dotted key of the field to change.
        others: Dotted keys of the fields that it does not fit.
        message: What was expected and what was found.
    """

    key: str
    others: tuple[str, ...]
    message: str


def find_conflicts(
    model: ModelRecipe, supervision: SupervisionRecipe, data: DataRecipe, train: TrainRecipe
) -> list[Conflict]:
    """List every combination of fields that cannot work, in the order of the sections."""
    conflicts = [
        *_in_backbone(model.backbone),
        *_in_model(model),
        *_between_model_and_supervision(model, supervision),
        *_beside_suppressor(model),
        *(Conflict(*found) for found in find_group_conflicts(model, supervision)),
        *_in_data(data),
        *_in_train(train),
    ]
    if supervision.one_to_many is not None:
        conflicts += _in_one_to_many(supervision.one_to_many, model.num_queries)
    return conflicts


def _in_backbone(backbone: BackboneRecipe) -> Iterator[Conflict]:
    name = ("model.backbone.name",)
    if backbone.dilation and backbone.name not in _DILATABLE:
        message = f"must be false for {backbone.name} (only {' and '.join(_DILATABLE)}), got true"
        yield Conflict("model.backbone.dilation", name, message)
    if backbone.stem_width is not None and backbone.name != "resnet_tiny":
        message = f"must be null for {backbone.name} (only resnet_tiny), got {backbone.stem_width}"
        yield Conflict("model.backbone.stem_width", name, message)
    if backbone.drop_path > 0 and not backbone.name.startswith(TIMM):
        message = f"must be 0 for {backbone.name} (only timm/NAME), got {backbone.drop_path}"
        yield Conflict("model.backbone.drop_path", name, message)
    if backbone.norm == "group" and backbone.name.startswith(TIMM):
        message = f"must be frozen_batch or batch for {backbone.name}, got group"
        yield Conflict("model.backbone.norm", name, message)
    yield from _in_weights(backbone)


def _in_weights(backbone: BackboneRecipe) -> Iterator[Conflict]:
    name = ("model.backbone.name",)
    known = PACKAGED.get(backbone.weights.removeprefix(PACKAGE))
    if backbone.weights.startswith(PACKAGE) and known and known.backbone != backbone.name:
        message = f"must be weights of {backbone.name}, got {backbone.weights}"
        message += f" (of {known.backbone})"
        yield Conflict("model.backbone.weights", name, message)
    if backbone.weights != "imagenet":
        return
    if backbone.name == "resnet_tiny":
        message = "must be none or a path for resnet_tiny, got imagenet"
        yield Conflict("model.backbone.weights", name, message)
    elif backbone.norm == "group" and not backbone.name.startswith(TIMM):
        message = "must be none or a path where model.backbone.norm is group, got imagenet"
        yield Conflict("model.backbone.weights", ("model.backbone.norm",), message)


def _in_model(model: ModelRecipe) -> Iterator[Conflict]:
    if model.width % model.heads:
        message = f"must be a divisor of model.width = {model.width}, got {model.heads}"
        yield Conflict("model.heads", ("model.width",), message)
    if model.mixed_query_selection and not model.two_stage:
        message = "must be false where model.two_stage is false, got true"
        yield Conflict("model.mixed_query_selection", ("model.two_stage",), message)
    if model.look_forward_twice and not model.iterative_refinement:
        message = "must be false where model.iterative_refinement is false, got true"
        yield Conflict("model.look_forward_twice", ("model.iterative_refinement",), message)
    if model.extra_ffn and model.placement not in ("c", "d"):
        message = f"must be false for placement {model.placement} (only c and d), got true"
        yield Conflict("model.extra_ffn", ("model.placement",), message)


def _beside_suppressor(model: ModelRecipe) -> Iterator[Conflict]:
    if model.suppressor is None:
        return
    other = "model.suppressor"
    where = f"where {other} is a mapping"
    if model.placement not in ("b", "baseline"):  # the latter conflicts with the supervision
        message = f"must be b {where} (one-to-many supervision of the layers' outputs)"
        yield Conflict("model.placement", (other,), f"{message}, got {model.placement}")
    for name in ("two_stage", "iterative_refinement"):
        if not getattr(model, name):
            yield Conflict(f"model.{name}", (other,), f"must be true {where}, got false")
    for name in QueryGroupsRecipe.model_fields:
        if getattr(model.query_groups, name) is not None:
            message = f"must be null {where}, got a mapping"
            yield Conflict(f"model.query_groups.{name}", (other,), message)


def _between_model_and_supervision(
    model: ModelRecipe, supervision: SupervisionRecipe
) -> Iterator[Conflict]:
    one_to_many = ("supervision.one_to_many",)
    if supervision.one_to_many is None and model.placement != "baseline":
        message = f"must be baseline where {one_to_many[0]} is null, got {model.placement}"
        yield Conflict("model.placement", one_to_many, message)
    if supervision.one_to_many is not None and model.placement == "baseline":
        message = f"must be a, b, c or d unless {one_to_many[0]} is null, got baseline"
        yield Conflict("model.placement", one_to_many, message)
    two_stage = ("model.two_stage",)
    if supervision.proposals is None and model.two_stage:
        message = "must be a mapping where model.two_stage is true, got null"
        yield Conflict("supervision.proposals", two_stage, message)
    if supervision.proposals is not None and not model.two_stage:
        message = "must be null where model.two_stage is false, got a mapping"
        yield Conflict("supervision.proposals", two_stage, message)


def _in_one_to_many(one_to_many: OneToManyRecipe, num_queries: int) -> Iterator[Conflict]:
    section, assigner = "supervision.one_to_many", one_to_many.assigner
    for name, message in assigner.conflicts(num_queries):
        yield Conflict(f"{section}.assigner.{name}", ("model.num_queries",), message)
    if not isinstance(assigner, MsDetrRecipe):
        for name in sorted(MS_DETR_FIELDS & one_to_many.model_fields_set):
            message = f"is a setting of ms_detr, but {section}.assigner is {assigner.type}, "
            message += f"whose settings stand in {section}.assigner"
            yield Conflict(f"{section}.{name}", (f"{section}.assigner",), message)
        return
    if one_to_many.k > num_queries:
        message = f"must be at most model.num_queries = {num_queries}, got {one_to_many.k}"
        yield Conflict(f"{section}.k", ("model.num_queries",), message)


def _in_data(data: DataRecipe) -> Iterator[Conflict]:
    sizes, section = data.augmentation, "data.augmentation"
    ordered = (
        ("data.eval_max_size", data.eval_max_size, "data.eval_size", data.eval_size),
        (f"{section}.max_size", sizes.max_size, f"{section}.train_sizes", max(sizes.train_sizes)),
        (f"{section}.crop_max", sizes.crop_max, f"{section}.crop_min", sizes.crop_min),
    )
    for key, value, other, minimum in ordered:
        if value < minimum:
            yield Conflict(key, (other,), f"must be at least {other} = {minimum}, got {value}")
    if min(sizes.crop_pre_sizes) < sizes.crop_min:
        message = f"must all be at least {section}.crop_min = {sizes.crop_min}"
        message += f", got {min(sizes.crop_pre_sizes)}"
        yield Conflict(f"{section}.crop_pre_sizes", (f"{section}.crop_min",), message)


def _in_train(train: TrainRecipe) -> Iterator[Conflict]:
    if train.batch_size % train.images_per_forward:
        message = f"must be a divisor of train.batch_size = {train.batch_size}"
        message += f", got {train.images_per_forward}"
        yield Conflict("train.images_per_forward", ("train.batch_size",), message)
    if any(second <= first for first, second in pairwise(train.lr_drop_epochs)):
        message = f"must increase, got {list(train.lr_drop_epochs)}"
        yield Conflict("train.lr_drop_epochs", (), message)
