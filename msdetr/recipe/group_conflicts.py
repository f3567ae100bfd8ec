"""What does not fit together in the sections of query groups."""

from __future__ import annotations

from collections.abc import Iterator

from msdetr.recipe.model import ModelRecipe
from msdetr.recipe.query_groups import DenoisingRecipe, QueryGroupsRecipe
from msdetr.recipe.supervision import SupervisionRecipe

Found = tuple[str, tuple[str, ...], str]
"""Key at fault, keys that it does not fit, message; as in ``Conflict``."""


def find_group_conflicts(model: ModelRecipe, supervision: SupervisionRecipe) -> Iterator[Found]:
    """List what does not fit together in the sections of query groups."""
    groups = model.query_groups
    for name in QueryGroupsRecipe.model_fields:
        yield from _in_both_halves(name, getattr(groups, name), getattr(supervision, name))
    if groups.hybrid is not None and groups.group is not None:
        message = "must be null where model.query_groups.group is a mapping, got a mapping"
        yield "model.query_groups.hybrid", ("model.query_groups.group",), message
    if groups.denoising is not None:
        yield from _in_denoising(groups.denoising, model)
    if groups.group is not None and supervision.group is not None:
        yield from _in_reduction(supervision)


def _in_both_halves(name: str, queries: object, rule: object) -> Iterator[Found]:
    model, supervision = f"model.query_groups.{name}", f"supervision.{name}"
    if queries is None and rule is not None:
        yield supervision, (model,), f"must be null where {model} is null, got a mapping"
    if queries is not None and rule is None:
        yield supervision, (model,), f"must be a mapping where {model} is one, got null"


def _in_denoising(denoising: DenoisingRecipe, model: ModelRecipe) -> Iterator[Found]:
    section = "model.query_groups.denoising"
    if not model.two_stage:
        message = "must be null where model.two_stage is false (references have no size there)"
        yield section, ("model.two_stage",), f"{message}, got a mapping"
    budget, number = denoising.budget, denoising.groups
    if budget is None and number is None:
        yield section, (), "must have exactly one of budget and groups, got neither"
    if budget is not None and number is not None:
        # At the line of one of them: the section itself may stand in another file.
        message = f"must be null where {section}.budget is {budget}, got {number}"
        yield f"{section}.groups", (f"{section}.budget",), message


def _in_reduction(supervision: SupervisionRecipe) -> Iterator[Found]:
    rule = supervision.group
    assert rule is not None
    key, other = "supervision.group.reduction", "supervision.group.one_to_many"
    if supervision.one_to_many is None:
        return
    if rule.reduction == "mean" and rule.one_to_many == "primary":
        message = f"must be primary_one where {other} is primary (or let {other} be matched): "
        message += "the primary group's one-to-one supervision would weigh 1/groups beside its"
        yield key, (other,), f"{message} one-to-many supervision, got mean"
    elif rule.reduction == "primary_one" and rule.one_to_many == "matched":
        message = f"must be mean where {other} is matched (or let {other} be primary)"
        yield key, (other,), f"{message}, got primary_one"
