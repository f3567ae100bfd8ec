"""Comparison of two checkpoints by their stored detections: the workflow behind ``compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.api.comparison_output import FILES, find_images_dir, write_comparison
from msdetr.api.evaluate_predictions import find_annotations
from msdetr.api.output import check_output
from msdetr.data.coco_file import load_annotations
from msdetr.engine.checkpoint import find_checkpoint, read_info
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError, UsageError
from msdetr.evaluation.results import read_results
from msdetr.files import digest_file, parse_json
from msdetr.study.checkpoints import CheckpointComparison, compare_checkpoints
from msdetr.study.image_bootstrap import NUM_RESAMPLES

_PREDICTIONS = "predictions.json"


@dataclass(frozen=True)
class _Source:
    """Detections, and what they say they were scored against.

    Attributes:
        predictions: Results file.
        annotations: Annotation file; None where nothing tells.
        limit: Only the first so many images, by id; None for all.
    """

    predictions: Path
    annotations: Path | None = None
    limit: int | None = None


def compare(
    first: Path,
    second: Path,
    *,
    data: str | None = None,
    num_resamples: int = NUM_RESAMPLES,
    output: Path | None = None,
) -> CheckpointComparison:
    """Compare two checkpoints on the same images. Runs no model.

    Args:
        first: A run (its last evaluation), a directory that an evaluation wrote, or a results
            file of any detector.
        second: Likewise.
        data: A root in COCO's layout, "IMAGES,ANNOTATIONS.json", or an annotation file; by
            default the annotations of the runs.
        num_resamples: Resamples of the images.
        output: Directory for ``comparison.json``, ``comparison.html`` and pictures of the targets
            that only one of the two finds; none are written without it. Must not hold them yet.

    Raises:
        InvalidInputError: Something is missing, or the two do not belong to the same images.
    """
    if output is not None:
        check_output(output, FILES)
    sources = [_find(first), _find(second)]
    annotations = _choose(sources) if data is None else find_annotations(data)
    truth = load_annotations(annotations)
    names = [str(first), str(second)]
    if first == second:
        names[1] += " (again)"
    results = {
        name: read_results(source.predictions, truth)
        for name, source in zip(names, sources, strict=True)
    }
    ids = sorted(int(image["id"]) for image in truth["images"])
    limit = min((each.limit for each in sources if each.limit is not None), default=len(ids))
    comparison = compare_checkpoints(
        truth, results, image_ids=ids[:limit], num_resamples=num_resamples
    )
    if output is not None:
        write_comparison(output, comparison, truth, find_images_dir(annotations, data))
    return comparison


def _find(path: Path) -> _Source:
    if path.is_file():
        return _Source(path)
    if (path / _PREDICTIONS).is_file():
        return _of_evaluation(path)
    run = RunDirectory(path)
    if (run.evaluation / _PREDICTIONS).is_file():
        return _of_run(run)
    raise UsageError(
        str(path), f"expected a results file, or a directory with {_PREDICTIONS} of an evaluation"
    )


def _of_evaluation(directory: Path) -> _Source:
    predictions = directory / _PREDICTIONS
    try:
        content: Any = parse_json((directory / "metrics.json").read_text(encoding="utf-8"))
        setting = content["setting"]
        return _Source(predictions, Path(setting["annotations"]), int(setting["num_images"]))
    except (OSError, ValueError, LookupError, TypeError):
        return _Source(predictions)


def _of_run(run: RunDirectory) -> _Source:
    predictions = run.evaluation / _PREDICTIONS
    checkpoint = find_checkpoint(run.last)
    if checkpoint is None:
        return _Source(predictions)
    try:
        info = read_info(checkpoint)
        limit = info["overfit"] or info["recipe"]["data"]["val"]["limit"]
        return _Source(predictions, Path(info["data"]["val"]["annotations"]), limit)
    except (CheckpointError, KeyError, TypeError):
        return _Source(predictions)


def _choose(sources: list[_Source]) -> Path:
    named = [source.annotations for source in sources if source.annotations is not None]
    missing = [path for path in named if not path.is_file()]
    if not named or missing:
        lost = f": {missing[0]} is gone" if missing else ""
        raise UsageError("`data`", f"is missing, and the two name no annotation file{lost}")
    if len({digest_file(path) for path in named}) > 1:
        raise UsageError(
            str(sources[1].predictions),
            f"was scored against {named[1]}, the other against {named[0]}; name one as `data`",
        )
    return named[0]
