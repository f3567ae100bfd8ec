"""What a training run leaves for its reader: ``plots/`` and ``report.html``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from msdetr.api.datasets import EvaluationData
from msdetr.api.plot import SavedFigure, plot_runs
from msdetr.data.images import decode_image
from msdetr.drawing.detections import draw_detections
from msdetr.engine.metrics_file import read_rows
from msdetr.engine.reporting import logger, logging_to
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import MsdetrError, counted
from msdetr.files import parse_json, replace_text
from msdetr.losses import Criterion
from msdetr.recipe import Recipe, recipe_to_dict, recipe_to_yaml
from msdetr.run_report.page import RunReport, SamplePictures, render_run_report
from msdetr.terminal import LiteralConsole

REPORT_FILE = "report.html"
_NUM_SAMPLES = 6
_MIN_SCORE = 0.3
_MAX_DETECTIONS = 20


def report_run(
    directory: RunDirectory,
    recipe: Recipe,
    images: EvaluationData,
    criterion: Criterion,
    *,
    duplicates: str | None = None,
) -> Path | None:
    """Draw the curves of a finished run and write its report.

    Errors are reported on stderr and in the run's log, but not raised: the run's checkpoints
    matter more.

    Args:
        directory: Of the run.
        recipe: Of the run.
        images: Validation images, whose detections are in the run's ``evaluation``.
        criterion: Of the run; its assigner describes itself.
        duplicates: What is to be said of them; None for nothing.

    Returns:
        The report; None if it could not be written.
    """
    console = LiteralConsole(stderr=True)
    file = directory.path / REPORT_FILE
    try:
        plots = plot_runs([directory.path])
        facts = _facts(directory, recipe, images, criterion)
        report = _collect(directory, recipe, images, plots.figures, facts, warning=duplicates or "")
        replace_text(file, render_run_report(report))
    except Exception as error:  # the training run is done and must not fail because of a figure
        said = f"the run is whole, but has no report: {_explain(error, directory)}"
        console.say(said)
        return None
    console.say(f"report: {file}")
    return file


def _explain(error: Exception, directory: RunDirectory) -> str:
    """Log an error, with its traceback if it is unexpected, and return it in one line."""
    is_expected = isinstance(error, MsdetrError)
    with suppress(OSError), logging_to(directory.log_file):
        logger.error("no report: %s", error, exc_info=None if is_expected else error)
    if is_expected:
        return str(error)
    return f"{type(error).__name__}: {error}; its traceback is in {directory.log_file}"


def _collect(
    directory: RunDirectory,
    recipe: Recipe,
    images: EvaluationData,
    figures: Sequence[SavedFigure],
    facts: list[tuple[str, str]],
    *,
    warning: str,
) -> RunReport:
    metrics = _read_json(directory.evaluation / "metrics.json")
    environment = _read_json(directory.environment_file)
    return RunReport(
        name=directory.path.resolve().name,
        description=recipe.description,
        facts=facts,
        curves={figure.title: figure.svg for figure in figures},
        evaluation=metrics,
        evaluation_warning=warning,
        evaluation_note=f"The last evaluation, on {counted(len(images.image_ids), 'image')}.",
        samples=_draw_samples(directory, images),
        samples_note=(
            f"Up to {_NUM_SAMPLES} validation images with objects, evenly spread over the ids; "
            f"detections of the last evaluation with a score of at least {_MIN_SCORE}, "
            f"{_MAX_DETECTIONS} at most."
        ),
        recipe=recipe_to_yaml(recipe),
        environment="" if environment is None else json.dumps(environment, indent=2),
    )


def _facts(
    directory: RunDirectory, recipe: Recipe, images: EvaluationData, criterion: Criterion
) -> list[tuple[str, str]]:
    epochs = [row for row in read_rows(directory.metrics_file) if row["kind"] == "epoch"]
    scored = [row for row in epochs if row.get("ap") is not None]
    fields = recipe_to_dict(recipe)
    many = criterion.supervision.one_to_many
    supervision = "one-to-one only"
    if many is not None:
        supervision = (
            f"one-to-one and one-to-many ({many.assigner.describe()}), "
            f"placement {fields['model']['placement']}"
        )
    facts = [
        ("supervision", supervision),
        ("queries", str(fields["model"]["num_queries"])),
        *_suppressor_facts(recipe),
        *_group_facts(recipe),
        ("validation images", str(images.dataset.index.annotations_file)),
        ("finished epochs", f"{len(epochs)} of {fields['train']['epochs']}"),
        ("images per step", str(fields["train"]["batch_size"])),
        ("seed", str(fields["train"]["seed"])),
    ]
    if scored:
        best = max(scored, key=lambda row: row["ap"])
        facts.append(("last AP", f"{100 * scored[-1]['ap']:.1f}"))
        facts.append(("best AP", f"{100 * best['ap']:.1f} after epoch {best['epoch'] + 1}"))
    return facts


def _suppressor_facts(recipe: Recipe) -> list[tuple[str, str]]:
    facts = []
    suppressor, class_loss = recipe.model.suppressor, recipe.supervision.class_loss
    if suppressor is not None:
        sees = "boxes" if suppressor.relation else "positions"
        keys = f"{suppressor.learned_keys} learned keys"
        facts.append(("suppressor, one-to-one", f"sees more confident queries' {sees}, {keys}"))
    if class_loss != "focal":
        facts.append(("class loss", class_loss))
    return facts


def _group_facts(recipe: Recipe) -> list[tuple[str, str]]:
    """Say what trained beside the primary queries; nothing of it is left at inference."""
    groups, supervision = recipe.model.query_groups, recipe.supervision
    facts = []
    if groups.hybrid is not None and supervision.hybrid is not None:
        number, copies = groups.hybrid.queries, supervision.hybrid.copies
        facts.append(("hybrid group, training only", f"{number} queries, {copies} per target"))
    if groups.group is not None:
        others, queries = groups.group.groups - 1, recipe.model.num_queries
        facts.append(("further groups, training only", f"{others} of {queries} queries each"))
    if groups.denoising is not None:
        kind = "contrastive" if groups.denoising.contrastive else "plain"
        budget, fixed = groups.denoising.budget, groups.denoising.groups
        extent = f"{fixed} groups" if budget is None else f"budget {budget}"
        facts.append(("denoising queries, training only", f"{kind}, {extent}"))
    return facts


def _draw_samples(directory: RunDirectory, images: EvaluationData) -> list[SamplePictures]:
    predictions = _read_json(directory.evaluation / "predictions.json")
    if predictions is None:
        return []
    index = images.dataset.index
    detected, targets = _by_image(predictions), _by_image(images.ground_truth["annotations"])
    present = [i for i, image_id in enumerate(images.image_ids) if targets[image_id]]
    stride = max(1, len(present) // _NUM_SAMPLES)
    known = set(images.dataset.label_space.category_ids)
    samples = []
    for position in present[::stride][:_NUM_SAMPLES]:
        image_id = images.image_ids[position]
        found = [
            entry
            for entry in detected[image_id]
            # A label space with unused labels (coco91) can detect what has no name.
            if entry["score"] >= _MIN_SCORE and entry["category_id"] in known
        ]
        found = sorted(found, key=lambda entry: -entry["score"])[:_MAX_DETECTIONS]
        height, width = index.image_hw[position].tolist()
        image = decode_image(index.path_of(position), (height, width))
        samples.append(
            SamplePictures(
                file_name=str(index.file_names[position]),
                ground_truth=_draw(image, targets[image_id], images),
                num_targets=len(targets[image_id]),
                detections=_draw(image, found, images),
                num_detections=len(found),
            )
        )
    return samples


def _draw(
    image: Image.Image, entries: Sequence[Mapping[str, Any]], images: EvaluationData
) -> Image.Image:
    labels = images.dataset.label_space
    position = {category_id: i for i, category_id in enumerate(labels.category_ids)}
    rows = [position[entry["category_id"]] for entry in entries]
    scored = bool(entries) and "score" in entries[0]
    return draw_detections(
        image,
        [_corners(entry["bbox"]) for entry in entries],
        rows,
        [labels.names[row] for row in rows],
        [entry["score"] for entry in entries] if scored else None,
    )


def _corners(bbox: Sequence[float]) -> list[float]:
    x, y, width, height = bbox
    return [x, y, x + width, y + height]


def _by_image(entries: Sequence[Mapping[str, Any]]) -> Mapping[int, list[Mapping[str, Any]]]:
    grouped: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        if not entry.get("iscrowd"):
            grouped[entry["image_id"]].append(entry)
    return grouped


def _read_json(path: Path) -> Any:  # noqa: ANN401 - JSON values
    return parse_json(path.read_text(encoding="utf-8")) if path.is_file() else None
