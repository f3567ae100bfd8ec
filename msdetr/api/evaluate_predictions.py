"""Evaluation of a results file of any detector, without a checkpoint."""

from __future__ import annotations

from pathlib import Path

from msdetr.api.datasets import find_split
from msdetr.api.evaluation_report import FILES, Analyses, EvaluationReport
from msdetr.api.output import check_results
from msdetr.data.coco_file import load_annotations
from msdetr.engine.environment import collect_environment
from msdetr.errors import UsageError
from msdetr.evaluation.results import read_results


def evaluate_predictions(
    predictions: Path | None,
    data: str | None,
    *,
    output: Path | None = None,
    analyses: Analyses | None = None,
    force: bool = False,
) -> EvaluationReport:
    """Score a results file of any detector against COCO annotations.

    Args:
        predictions: File in COCO's results format; None is rejected.
        data: A root in COCO's layout, "IMAGES,ANNOTATIONS.json", or an annotation file alone;
            None is rejected.
        output: Directory for ``metrics.json`` and ``predictions.json``; none are written
            without it. Must not hold them yet, unless with ``force``.
        analyses: What else to find out.
        force: Replace the files of an earlier evaluation.

    Raises:
        InvalidInputError: Data, results or output cannot be used as asked.
    """
    if predictions is None:
        raise UsageError(
            "`checkpoint`", "is missing; give one, or a results file as `from_predictions`"
        )
    if data is None:
        raise UsageError(
            "`data`", "is missing; without `checkpoint` there is no recipe that names a data set"
        )
    analyses = analyses or Analyses()
    analyses.check()
    if output is not None:
        check_results(output, files=FILES, of="an evaluation", force=force)
    annotations = find_annotations(data)
    truth = load_annotations(annotations)
    results = read_results(predictions, truth)
    image_ids = sorted(int(image["id"]) for image in truth["images"])
    setting = {
        "checkpoint": None,
        "predictions": str(predictions),
        "annotations": str(annotations),
        "num_images": len(image_ids),
        "environment": collect_environment(),
    }
    report = analyses.report(truth, [results], image_ids, setting=setting)
    if output is not None:
        report.write(output, results)
    return report


def refuse_without_checkpoint(**given: object) -> None:
    """Refuse what means nothing without a model.

    Args:
        **given: Parameters by name; those that are empty were not set.

    Raises:
        UsageError: There are any.
    """
    for name, value in given.items():
        if value:
            raise UsageError(f"`{name}`", "means nothing without `checkpoint`")


def find_annotations(data: str) -> Path:
    """Find the annotation file that ``data`` names; images need not be there.

    Args:
        data: A root in COCO's layout, "IMAGES,ANNOTATIONS.json", or an annotation file.

    Raises:
        DataError: Something is missing.
        UsageError: It is none of the three.
    """
    alone = Path(data)
    return alone if alone.is_file() else find_split(data).annotations_file
