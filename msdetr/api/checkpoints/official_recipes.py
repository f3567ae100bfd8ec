"""Which recipe describes the model in a published file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from msdetr.build import build_model
from msdetr.errors import Problem
from msdetr.interop.official import count_classes, find_mismatches, published_names
from msdetr.interop.published_file import PublishedFile
from msdetr.pretraining import NAME_FIELD, TIMM
from msdetr.recipe import (
    ModelRecipe,
    QueryGroupsRecipe,
    Recipe,
    load_recipe,
    packaged_recipes,
)

_PUBLISHED_PLACEMENTS = ("baseline", "a", "c")


def fitting_recipes(published: PublishedFile) -> list[str]:
    """Find the packaged recipes whose models take every tensor of a published file.

    Placements and query groups that were never published are left out: some have the names of a
    published model, but compute something else.

    Returns:
        Names, sorted.
    """
    models: dict[ModelRecipe, list[str]] = {}
    for info in packaged_recipes():
        recipe = load_recipe(info.path)
        if _is_published(recipe.model) and not check_arguments(published, recipe):
            models.setdefault(recipe.model, []).append(info.name)
    return sorted(
        name for model, names in models.items() if _fits(published, model) for name in names
    )


def is_placement_published(recipe: ModelRecipe) -> bool:
    """Return whether some published code has the placement; only MDS-DETR has b."""
    return recipe.suppressor is not None or recipe.placement in _PUBLISHED_PLACEMENTS


def find_unpublished_groups(recipe: ModelRecipe) -> list[Problem]:
    """List the query groups of a model that no published code has; Hybrid DETR has its own."""
    groups, section = recipe.query_groups, "model.query_groups"
    others = [name for name in QueryGroupsRecipe.model_fields if name != "hybrid"]
    given = [name for name in others if getattr(groups, name) is not None]
    problems = [
        Problem(f"{section}.{n}", "is set, which the published code has not") for n in given
    ]
    if groups.hybrid is not None and recipe.placement != "baseline":
        reason = f"is set where model.placement is {recipe.placement}, which no published code has"
        problems.append(Problem(f"{section}.hybrid", reason))
    return problems


def find_unpublished_backbone(recipe: ModelRecipe) -> list[Problem]:
    """Say what is wrong with a backbone whose tensors have no names in the published code."""
    name = recipe.backbone.name
    if not name.startswith(TIMM):
        return []
    reason = f"is {name!r}, which the published code has not: it knows torchvision's ResNets only"
    return [Problem(NAME_FIELD, reason)]


def check_arguments(published: PublishedFile, recipe: Recipe) -> list[Problem]:
    """Compare a recipe with the command line of the training run, where the tensors do not tell.

    Two-stage models may have any number of queries, attention any number of heads with the same
    tensors, and supervision without an FFN of its own adds no tensor.

    Returns:
        One problem per option that contradicts the recipe.
    """
    model, hybrid = recipe.model, recipe.model.query_groups.hybrid
    expected: dict[str, tuple[str, object]] = {
        "num_queries": ("model.num_queries", model.num_queries),
        "nheads": ("model.heads", model.heads),
        # Hybrid DETR's names.
        "num_queries_one2one": ("model.num_queries", model.num_queries),
        "num_queries_one2many": ("model.query_groups.hybrid", hybrid.queries if hybrid else 0),
    }
    if model.suppressor is None:
        # MDS-DETR's code has the option too, and does not need it.
        expected["use_ms_detr"] = ("model.placement", model.placement != "baseline")
    else:
        expected["num_token"] = ("model.suppressor.learned_keys", model.suppressor.learned_keys)
    if recipe.supervision.hybrid is not None:
        expected["k_one2many"] = ("supervision.hybrid.copies", recipe.supervision.hybrid.copies)
    return [
        Problem(
            f"args.{option}",
            f"is {published.arguments[option]!r} in the file; {key} of the recipe differs",
        )
        for option, (key, value) in expected.items()
        if option in published.arguments and published.arguments[option] != value
    ]


def explain_misfit(published: PublishedFile, expected: Mapping[str, Tensor], recipe: str) -> str:
    """Say why a published file probably does not fit a recipe, and what to do.

    Args:
        published: The file.
        expected: State dict of the recipe's model.
        recipe: The recipe, as the user named it.
    """
    if not _known(published.state, expected):
        return (
            "none of its tensors has a name of the model: it is no published checkpoint of "
            "MS-DETR, MDS-DETR or Deformable-DETR"
        )
    fitting = fitting_recipes(published)
    if len(fitting) == 1:
        return f"does not fit recipe {recipe}, but {fitting[0]}: use `recipe={fitting[0]!r}`"
    if fitting:
        return (
            f"does not fit recipe {recipe}, but {', '.join(fitting)}, which have the same tensors: "
            "use the one that it was trained with"
        )
    return (
        f"does not fit recipe {recipe} nor any packaged one: if it is a variant of one, state the "
        "differences with `overrides=['model.KEY=VALUE']`; else it is damaged or of another model"
    )


def _known(state: Iterable[str], expected: Iterable[str]) -> bool:
    wanted = {alias for aliases in published_names(expected).values() for alias in aliases}
    return not wanted.isdisjoint(state)


def _is_published(recipe: ModelRecipe) -> bool:
    unpublished = [*find_unpublished_groups(recipe), *find_unpublished_backbone(recipe)]
    return is_placement_published(recipe) and not unpublished


def _fits(published: PublishedFile, recipe: ModelRecipe) -> bool:
    num_classes = count_classes(published.state)
    if num_classes is None:
        return False
    with torch.device("meta"):
        model = build_model(recipe, num_classes)
    return not find_mismatches(published.state, model.state_dict())
