"""The sections that say why: duplicates, errors, layers, positives, targets, costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msdetr.evaluation.branch_metrics import NMS_THRESHOLD
from msdetr.study.arm_findings import ArmFindings
from msdetr.study.seed_means import SeedMean
from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling import numbers
from msdetr.study.telling.section import Section, Table

TARGETS_TITLE = "Targets won and lost"

_DESCRIPTIVE = (
    "In parentheses, 95% t intervals of the mean difference over seeds. There are many, and they "
    "are not corrected for that: they describe, and decide nothing."
)


def reason_sections(study: StudyFindings) -> list[Section]:
    """Build the sections, in the order of the report, without those that have no numbers."""
    sections = [
        _metrics(study),
        _duplicates(study),
        _errors(study),
        _branches(study),
        _positives(study),
        _targets(study),
        _costs(study),
    ]
    return [section for section in sections if section.tables]


def _metrics(study: StudyFindings) -> Section:
    return Section(
        title="Other metrics",
        tables=_compared(study, "metrics", header=numbers.metric_title),
        notes=(_DESCRIPTIVE,),
    )


def _duplicates(study: StudyFindings) -> Section:
    return Section(
        title="Duplicates: AP under non-maximum suppression",
        figures=("nms",),
        tables=_compared(
            study, "nms", header=lambda name: "no NMS" if name == "none" else f"NMS {name}"
        ),
        notes=(
            "A DETR should need no suppression: an arm that gains by it finds the boxes and has "
            "not learned to lower the scores of duplicates.",
            _DESCRIPTIVE,
        ),
    )


def _errors(study: StudyFindings) -> Section:
    return Section(
        title="Kinds of errors",
        figures=("errors",),
        tables=_compared(study, "errors"),
        notes=(
            "What AP50 would gain if there were no such errors (TIDE); a negative difference is an "
            "improvement. The costs do not add up to what is missing from 1. Thin lines: standard "
            "deviation over seeds.",
            _DESCRIPTIVE,
        ),
    )


def _branches(study: StudyFindings) -> Section:
    title = "AP by branch and decoder layer"
    nms_title = f"{title}, after NMS at {NMS_THRESHOLD:g}"
    after_nms = _compared(study, "branches_nms", header=_layer, title=nms_title)
    return Section(
        title="Branches and decoder layers",
        figures=("branches",),
        tables=(*_compared(study, "branches", header=_layer, title=title), *after_nms[:1]),
        notes=(
            "Layers count from 0; the last layer of the one-to-one branch makes the detections.",
        ),
    )


def _layer(name: str) -> str:
    branch, _, layer = name.partition("/")
    return f"{branch.replace('_', '-')}, layer {layer}"


_MEASURES: Mapping[str, tuple[str, Callable[[float | None], str]]] = {
    "candidates": ("candidates per target, before the cap", lambda v: numbers.plain(v, 2)),
    "per_target": ("positives per target", lambda v: numbers.plain(v, 2)),
    "dropped": ("candidates that the cap drops", numbers.share),
    "without": ("targets without positives", numbers.share),
    "without_by_cap": ("targets without positives because of the cap", numbers.share),
}


def _positives(study: StudyFindings) -> Section:
    own = [arm for arm in study.arms if arm.has_one_to_many]
    tables = [table for arm in own for table in _positive_tables(arm)]
    without = [arm.name for arm in study.arms if arm.has_one_to_many is False]
    notes = [
        f"Counted on {study.num_traced} validation images with the trained models, as the training "
        "would assign them.",
        "Found: matched at IoU 0.5 with a score of 0.3 or more. The last column is of the same "
        "targets, by the baseline with the same seeds: few positives also mean a hard target.",
    ]
    if without:
        notes.append(f"No one-to-many branch: {', '.join(without)}.")
    return Section(
        title="One-to-many positives",
        figures=("positives",) if own else (),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _positive_tables(arm: ArmFindings) -> list[Table]:
    found = arm.measures["positives"]
    layers = [name.partition("/")[2] for name in found if name.startswith("per_target/")]
    table = Table(
        header=(f"{arm.name}, by layer", *layers),
        rows=tuple(
            (title, *(show(found[f"{key}/{layer}"].mean) for layer in layers))
            for key, (title, show) in _MEASURES.items()
        ),
        title=f"{arm.name}: {arm.one_to_many}",
    )
    return [table, *_found_table(arm)]


def _found_table(arm: ArmFindings) -> list[Table]:
    if not arm.by_positives:
        return []
    names = {"capped": "none, by the cap", "0": "none"}
    return [
        Table(
            header=("positives in the last layer", "targets", f"found by {arm.name}", "baseline"),
            rows=tuple(
                (
                    names.get(group.name, group.name),
                    str(group.num_targets),
                    numbers.share(group.found),
                    numbers.share(group.found_by_baseline),
                )
                for group in arm.by_positives
            ),
        )
    ]


def _targets(study: StudyFindings) -> Section:
    rows = [
        (
            arm.name,
            str(seed),
            str(changes.num_targets),
            str(changes.num_won),
            str(changes.num_lost),
        )
        for arm in study.arms
        for seed, changes in arm.targets.items()
    ]
    header = ("arm", "seed", "targets", "won", "lost")
    return Section(
        title=TARGETS_TITLE,
        tables=(Table(header, tuple(rows)),) if rows else (),
        notes=(
            "Won: found by the arm and not by the baseline with the same seed; lost: the other way "
            "round. Found: matched at IoU 0.5 with a score of 0.3 or more. Pictures show the "
            "images of the first seed with the most of both; captions name the class and the score "
            "of the detection.",
        ),
    )


_COSTS: Mapping[str, tuple[str, Callable[[float | None], str]]] = {
    "train_seconds": ("training", numbers.seconds),
    "evaluation_seconds": ("evaluations", numbers.seconds),
    "images_per_second": ("images per second", lambda v: numbers.plain(v, 2)),
    "peak_memory_mib": ("peak memory, MiB", lambda v: numbers.plain(v, 0)),
    "step_flops": ("FLOPs of a step", numbers.large),
    "image_flops": ("FLOPs of an image", numbers.large),
}


def _costs(study: StudyFindings) -> Section:
    present = [key for key in _COSTS if any(key in arm.measures["costs"] for arm in study.arms)]
    table = Table(
        header=("arm", *(_COSTS[key][0] for key in present)),
        rows=tuple(
            (arm.name, *(_COSTS[key][1](_mean(arm.measures["costs"], key)) for key in present))
            for arm in study.arms
        ),
    )
    return Section(
        title="Costs",
        tables=(table,) if present else (),
        notes=(
            "Means over seeds. Times compare arms only where all cells had the machine to "
            "themselves, or shared it alike. FLOPs of a step: forward and backward pass; of an "
            "image: inference.",
        ),
    )


def _mean(measures: Mapping[str, SeedMean], key: str) -> float | None:
    return measures[key].mean if key in measures else None


def _compared(
    study: StudyFindings,
    family: str,
    *,
    header: Callable[[str], str] = str,
    title: str = "",
) -> tuple[Table, ...]:
    """Show means by arm, and differences from the baseline; nothing where there is no number."""
    names = _names(study.arms, family)
    if not names:
        return ()
    arms = [arm for arm in study.arms if arm.values]
    others = [arm for arm in arms if arm.decision is not None]
    means = tuple(
        (header(name), *(numbers.plain(_mean(arm.measures[family], name)) for arm in arms))
        for name in names
    )
    differences = tuple(
        (header(name), *(_difference(arm.measures[family], name) for arm in others))
        for name in names
        if any(_differs(arm.measures[family], name) for arm in others)
    )
    tables = [Table(("", *(arm.name for arm in arms)), means, title or "Means over seeds")]
    if differences:
        columns = ("", *(arm.name for arm in others))
        tables.append(Table(columns, differences, f"Differences from {study.baseline}"))
    return tuple(tables)


def _difference(measures: Mapping[str, SeedMean], name: str) -> str:
    return numbers.difference(measures[name]) if name in measures else numbers.NONE


def _differs(measures: Mapping[str, SeedMean], name: str) -> bool:
    return name in measures and measures[name].difference is not None


def _names(arms: Sequence[ArmFindings], family: str) -> list[str]:
    found = {
        name: mean
        for arm in arms
        for name, mean in arm.measures[family].items()
        if mean.mean is not None
    }
    return list(found)
