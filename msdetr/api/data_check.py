"""Check a recipe's data: the workflow behind ``msdetr data check``, and its cheap part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msdetr.api.datasets import TrainingData, check_names
from msdetr.api.progress import counting, show_progress
from msdetr.build import build_assigner, build_label_space, limit_split, locate_files, outside_names
from msdetr.data.annotation_checks import (
    check_classes,
    check_crowding,
    check_group_crowding,
    check_outside,
    check_targets,
)
from msdetr.data.coco_file import (
    drop_inconsistent_entries,
    find_inconsistent_ids,
    parse_annotations,
)
from msdetr.data.coco_index import CocoIndex, index_annotations
from msdetr.data.findings import NUM_EXAMPLES, Finding
from msdetr.data.image_checks import ImageFacts, examine_images, find_leakage, summarise_images
from msdetr.data.report import DataReport, SplitFacts
from msdetr.errors import DataError
from msdetr.losses import Criterion
from msdetr.recipe import Recipe, assigners

SPLITS = ("train", "val")
_BOTH = "both"

Findings = list[tuple[str, Finding]]


def check_data(recipe: Recipe) -> DataReport:
    """Check the data of a recipe as thoroughly as can be: annotations and every image file.

    Args:
        recipe: Names the data and the model that they are for.

    Returns:
        What was found; nothing that is wrong with the data raises.
    """
    findings: Findings = []
    indices: dict[str, CocoIndex] = {}
    max_positives = _max_positives(recipe)
    for split in SPLITS:
        index, errors = _read(recipe, split)
        findings += [(split, finding) for finding in errors]
        if index is not None:
            indices[split] = index
            warnings = find_warnings(recipe, split, index, max_positives)
            findings += [(split, finding) for finding in warnings]
    findings += _check_label_space(recipe, indices)
    findings += _check_images(indices, recipe.data.max_image_pixels)
    findings.sort(key=lambda entry: entry[1].severity != "error")
    return DataReport(
        splits={split: SplitFacts.of(index) for split, index in indices.items()},
        num_queries=recipe.model.num_queries,
        max_positives=max_positives,
        findings=findings,
        group_capacities=_group_capacities(recipe),
    )


def find_warnings(
    recipe: Recipe, split: str, index: CocoIndex, max_positives: int | None
) -> list[Finding]:
    """Run the cheap part of the check, which opens no image.

    Args:
        recipe: Of the model that the data are for.
        split: "train" or "val".
        index: The split's annotations, which were read without an error.
        max_positives: The most queries of an image that may be positive; None for all.
    """
    outside = outside_names(recipe.data, index)
    found = [
        *index.findings,
        *check_outside(outside, is_allowed=recipe.data.allow_outside),
    ]
    if split == "val":
        found += check_targets(index.num_targets)
    if split == "train":
        num_boxes = np.diff(index.first_target)
        found += check_crowding(index.image_ids, num_boxes, recipe.model.num_queries, max_positives)
        found += check_group_crowding(
            index.image_ids, num_boxes, hybrid=_hybrid_capacity(recipe), denoising=_budget(recipe)
        )
        found += check_classes(index.count_by_class(), index.shared_names())
    return found


def training_notes(recipe: Recipe, data: TrainingData, criterion: Criterion) -> list[str]:
    """Say what a training run should know of its data: numbers, and the cheap part's warnings."""
    rule = criterion.supervision.one_to_many
    max_positives = None if rule is None else rule.assigner.max_positives(recipe.model.num_queries)
    return [
        *data.lines(),
        *(
            f"warning: {split}: {finding.line()}"
            for split, index in data.indices.items()
            for finding in find_warnings(recipe, split, index, max_positives)
        ),
    ]


def _max_positives(recipe: Recipe) -> int | None:
    many = recipe.supervision.one_to_many
    # Nobody asked for a file to be executed.
    if many is None or isinstance(many.assigner, assigners.FileRecipe):
        return None
    assigner = build_assigner(many, recipe.supervision.focal)
    return assigner.max_positives(recipe.model.num_queries)


def _hybrid_capacity(recipe: Recipe) -> int | None:
    """Count the boxes of an image of which the hybrid group can serve every copy."""
    queries, rule = recipe.model.query_groups.hybrid, recipe.supervision.hybrid
    return None if queries is None or rule is None else queries.queries // rule.copies


def _budget(recipe: Recipe) -> int | None:
    """Count the boxes of an image beyond which denoising queries exceed their budget."""
    denoising = recipe.model.query_groups.denoising
    if denoising is None or denoising.budget is None:
        return None
    bounded = denoising.max_targets is not None and denoising.max_targets <= denoising.budget
    return None if bounded else denoising.budget


def _group_capacities(recipe: Recipe) -> dict[str, int]:
    """Count the boxes of an image that each kind of query group can take in full."""
    groups = recipe.model.query_groups
    capacities = {
        "group": None if groups.group is None else recipe.model.num_queries,
        "hybrid": _hybrid_capacity(recipe),
        "denoising": _budget(recipe),
    }
    return {name: number for name, number in capacities.items() if number is not None}


def _read(recipe: Recipe, split: str) -> tuple[CocoIndex | None, list[Finding]]:
    """Index a split, without what contradicts itself, and list these errors."""
    try:
        with counting("generating shapes") as progress:
            located = locate_files(recipe.data, split, progress)
        file = parse_annotations(located.annotations_file)
    except DataError as error:
        return None, _as_findings("annotation_file", error)
    errors = [
        Finding(
            inconsistent.check,
            "error",
            f"{inconsistent.where}: each of these {inconsistent.what}",
            len(inconsistent.ids),
            tuple(map(str, inconsistent.ids[:NUM_EXAMPLES])),
        )
        for inconsistent in find_inconsistent_ids(file.content)
    ]
    if errors:
        file = replace(file, content=drop_inconsistent_entries(file.content))
    index = index_annotations(file, located.images_dir)
    return limit_split(recipe.data, split, index), errors


def _check_label_space(recipe: Recipe, indices: dict[str, CocoIndex]) -> Findings:
    """Look for classes that the model of the training data would not know."""
    if "train" not in indices:
        return []
    try:
        label_space = build_label_space(recipe.data, indices["train"])
    except DataError as error:
        return [("train", finding) for finding in _as_findings("label_space", error)]
    if "val" not in indices:
        return []
    val = indices["val"]
    try:
        check_names(val, label_space)
        label_space.labels_of(val.category_ids, str(val.annotations_file))
    except DataError as error:
        return [("val", finding) for finding in _as_findings("label_space", error)]
    return []


def _check_images(indices: dict[str, CocoIndex], max_pixels: int) -> Findings:
    facts: dict[str, list[ImageFacts]] = {}
    found: Findings = []
    for split, index in indices.items():
        examined = examine_images(index, max_pixels)
        facts[split] = list(show_progress(examined, len(index), f"decoding {split} images"))
        found += [(split, finding) for finding in summarise_images(facts[split])]
    leakage = find_leakage(facts.get("train", []), facts.get("val", []))
    return found if leakage is None else [*found, (_BOTH, leakage)]


def _as_findings(check: str, error: DataError) -> list[Finding]:
    return [
        Finding(
            check,
            "error",
            ": ".join(part for part in (error.source, problem.where, problem.message) if part),
            1,
        )
        for problem in error.problems
    ]
