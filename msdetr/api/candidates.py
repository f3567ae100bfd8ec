"""How well the best queries fit, in one model or two: the workflow behind ``msdetr candidates``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from msdetr.api.output import check_output, writing
from msdetr.api.traces.make_trace import ProbeSet, trace_checkpoint
from msdetr.assignment import OneToManyAssigner
from msdetr.build import build_assigner
from msdetr.data.images import decode_image
from msdetr.drawing.figures import save_figure
from msdetr.errors import DataError, UsageError, counted
from msdetr.inspection.bootstrap import Estimate, bootstrap_means
from msdetr.inspection.candidates.figures import (
    CandidateTarget,
    choose_targets,
    draw_candidates,
    draw_iou_densities,
)
from msdetr.inspection.candidates.measures import (
    MEASURES,
    MeasuredTrace,
    check_same_targets,
    write_candidates_csv,
)
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import MatchTrace
from msdetr.recipe import FocalRecipe, OneToManyRecipe

FILES = ("candidates.csv", "candidates.png", "iou_density.png", "summary.json")
_NAMES = ("A", "B")
_DIFFERENCE = "A - B"


@dataclass(frozen=True)
class CandidatesReport:
    """Result of a comparison.

    Attributes:
        sources: Where each model comes from, by name ("A", "B").
        rule: Weights of the score by which queries are ranked: those of A, or the
            default ones where A has an assigner without such weights.
        num_images: Images traced.
        num_targets: Their targets.
        estimates: By model (or "A - B") and branch, an estimate per measure, of the last layer.
        files: What was written.
    """

    sources: dict[str, str]
    rule: OneToManyAssigner
    num_images: int
    num_targets: int
    estimates: dict[tuple[str, str], dict[str, Estimate]]
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "sources": self.sources,
            "iou_weight": self.rule.iou_weight,
            "class_weight": self.rule.class_weight,
            "num_images": self.num_images,
            "num_targets": self.num_targets,
            "last_layer": [
                {
                    "model": model,
                    "branch": branch,
                    **{name: estimate.to_dict() for name, estimate in values.items()},
                }
                for (model, branch), values in self.estimates.items()
            ],
        }

    def table(self) -> Table:
        """Return the means with their intervals, a column per model and branch."""
        table = Table(
            title=f"top queries of {counted(self.num_targets, 'target')} in "
            f"{counted(self.num_images, 'image')}, last layer",
            caption="mean over targets, and below it the 95% bootstrap interval over images",
        )
        table.add_column("")
        for model, branch in self.estimates:
            table.add_column(f"{model}\n{branch.replace('_', '-')}", justify="right")
        for name in MEASURES:
            texts = [values[name].lines() for values in self.estimates.values()]
            table.add_row(name.replace("probability", "prob"), *texts)
        return table


def compare_candidates(
    checkpoints: Sequence[Path] = (),
    *,
    traces: Sequence[Path] = (),
    output: Path,
    data: str | None = None,
    probe: ProbeSet | None = None,
    num_pictures: int = 6,
    device: str = "auto",
) -> CandidatesReport:
    """Measure the top 20 queries of every target, in one model or in two.

    Args:
        checkpoints: One or two checkpoints or run directories, A and B.
        traces: Stored traces instead.
        output: Directory for the files; must not hold them yet.
        data: A root in COCO's layout, or "IMAGES,ANNOTATIONS.json"; the validation split of
            A's recipe by default.
        probe: Which images; the first 200 by default.
        num_pictures: Targets in ``candidates.png``.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InvalidInputError: Something cannot be used as asked, or the two are not comparable.
    """
    if bool(checkpoints) == bool(traces) or len(checkpoints) + len(traces) > 2:
        raise UsageError("`checkpoints`", "give `checkpoints` or `traces`, once or twice")
    check_output(output, FILES)
    loaded = [MatchTrace.load(path) for path in traces] or [
        trace_checkpoint(path, data=data, probe=probe or ProbeSet(), device=device)
        for path in checkpoints
    ]
    if not any(image.num_targets for image in loaded[0].images):
        raise DataError(loaded[0].info.annotations_file, "no traced image has targets")
    for other in loaded[1:]:
        check_same_targets(loaded[0], other)
    rule = _score_rule(loaded[0])
    models = [
        MeasuredTrace.of(name, trace, rule) for name, trace in zip(_NAMES, loaded, strict=False)
    ]
    report = CandidatesReport(
        sources={model.name: model.trace.info.source for model in models},
        rule=rule,
        num_images=len(loaded[0].images),
        num_targets=sum(image.num_targets for image in loaded[0].images),
        estimates=_estimate(models),
        files=tuple(output / name for name in FILES),
    )
    shown = _read_pictures(loaded[0], num_pictures)
    with writing(output) as aside:
        write_candidates_csv(aside / FILES[0], models)
        save_figure(draw_candidates(models, shown, rule), aside / FILES[1])
        save_figure(draw_iou_densities(models), aside / FILES[2])
        (aside / FILES[3]).write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    return report


def _score_rule(trace: MatchTrace) -> OneToManyAssigner:
    """Return the rule whose score ranks the queries: the trace's own, else the default one."""
    own = trace.info.one_to_many
    if not isinstance(own, StoredScheme):
        return own
    default = build_assigner(OneToManyRecipe(), FocalRecipe())
    assert isinstance(default, OneToManyAssigner)
    return default


def _estimate(models: Sequence[MeasuredTrace]) -> dict[tuple[str, str], dict[str, Estimate]]:
    estimates = {}
    for model in models:
        for branch, values in model.by_branch.items():
            last = bootstrap_means([value[-1] for value in values])
            estimates[model.name, branch] = dict(zip(MEASURES, last, strict=True))
    if len(models) == 2:
        first, second = (model.by_branch["one_to_one"] for model in models)
        pairs = zip(first, second, strict=True)
        last = bootstrap_means([a[-1] - b[-1] for a, b in pairs])
        estimates[_DIFFERENCE, "one_to_one"] = dict(zip(MEASURES, last, strict=True))
    return estimates


def _read_pictures(trace: MatchTrace, num_pictures: int) -> list[CandidateTarget]:
    return [
        CandidateTarget(
            position,
            target,
            decode_image(Path(trace.images[position].path), trace.images[position].original_hw),
        )
        for position, target in choose_targets(trace, num_pictures)
    ]
