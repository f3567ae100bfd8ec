"""What a training run says of duplicates at its end, where suppression would have removed them."""

from __future__ import annotations

from contextlib import suppress

from rich.console import Console
from rich.text import Text

from msdetr.api.datasets import EvaluationData
from msdetr.engine.reporting import logger, logging_to
from msdetr.engine.run_directory import RunDirectory
from msdetr.evaluation.matching import fastest_library
from msdetr.evaluation.nms_sweep import NmsSweep, sweep_nms
from msdetr.evaluation.results import read_results
from msdetr.recipe import Recipe

WORTH_SAYING = 0.01
"""AP that suppression must add."""
MAX_SLOW_DETECTIONS = 100_000
"""With pycocotools alone, so many are scored six times in less than a minute."""


def tell_duplicates(directory: RunDirectory, recipe: Recipe, images: EvaluationData) -> str | None:
    """Say on stderr and in the log what duplicates cost in the last evaluation, if it is much.

    Errors are reported likewise, but not raised: the training run is done.

    Args:
        directory: Of the run; holds the detections of the last evaluation.
        recipe: Of the run.
        images: What they were evaluated on.

    Returns:
        The line that was said; None if there was nothing to say.
    """
    try:
        said = _look(directory, recipe, images)
    except Exception as error:  # the training run is done and must not fail because of a remark
        said = f"not looked for duplicates: {error}"
    if said is not None:
        with suppress(OSError), logging_to(directory.log_file):
            logger.info("%s", said)
        Console(stderr=True).print(Text(said), soft_wrap=True)
    return said


def describe_duplicates(sweep: NmsSweep, recipe: Recipe) -> str | None:
    """Say what duplicates cost and what helps.

    Args:
        sweep: Of the last evaluation.
        recipe: Of the run.

    Returns:
        One line; None if suppression would not add more than ``WORTH_SAYING``.
    """
    plain, best = sweep.rows[0].ap, sweep.best
    if plain is None or best.ap is None or best.ap - plain <= WORTH_SAYING:
        return None
    fewer = "" if recipe.supervision.one_to_many is None else "fewer positives per target, "
    return (
        f"duplicates: AP {100 * plain:.1f}, but {100 * best.ap:.1f} after class-wise NMS at "
        f"{best.threshold:g}. The model finds the boxes and has not learned to remove duplicates; "
        f"more steps, {fewer}or evaluation.nms_threshold={best.threshold:g} would help."
    )


def _look(directory: RunDirectory, recipe: Recipe, images: EvaluationData) -> str | None:
    file = directory.evaluation / "predictions.json"
    if recipe.evaluation.nms_threshold is not None or not file.is_file():
        return None
    results = read_results(file, images.ground_truth)
    if fastest_library() == "pycocotools" and len(results) > MAX_SLOW_DETECTIONS:
        return (
            f"not looked for duplicates: {len(results)} detections take pycocotools minutes; "
            "pip install 'msdetr[fast]', or run msdetr eval --nms-sweep"
        )
    sweep = sweep_nms(images.ground_truth, results, image_ids=images.image_ids)
    return describe_duplicates(sweep, recipe)
