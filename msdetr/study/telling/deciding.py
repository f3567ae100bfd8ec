"""The sections that say what is better: verdicts, statistics over seeds, intervals over images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msdetr.study.arm_findings import ArmFindings
from msdetr.study.interval import signed
from msdetr.study.paired import PairedComparison
from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.numbers import NONE, between, metric_title, plain, small, with_spread
from msdetr.study.telling.section import Section, Table


def deciding_sections(study: StudyFindings) -> list[Section]:
    """Build the sections, in the order of the report."""
    return [_verdicts(study), _statistics(study), _over_images(study)]


def _others(study: StudyFindings) -> Iterator[ArmFindings]:
    return (arm for arm in study.arms if arm.decision is not None)


def _verdicts(study: StudyFindings) -> Section:
    metric = metric_title(study.metric, study.nms_threshold)
    sentences = [str(arm.decision.verdict) for arm in study.arms if arm.decision is not None]
    return Section(
        title="Verdicts",
        sentences=tuple(sentences),
        figures=("forest", "epochs"),
        tables=(_values(study),),
        notes=(
            f"Differences are {metric} of an arm minus that of {study.baseline} with the same "
            "seed. Better and worse: the 95% interval of the mean difference excludes 0, and p "
            "stays below 0.05 once corrected for the number of arms. "
            f"No difference worth having: the interval lies within ±{study.smallest_effect:g}. "
            "Undecided: anything else.",
            *_suppression(study),
        ),
    )


def _suppression(study: StudyFindings) -> Iterator[str]:
    if study.nms_threshold is not None:
        yield (
            f"All arms are compared after class-wise NMS at {study.nms_threshold:g}; only the "
            "curves over epochs and the table of duplicates are of all detections."
        )


def _values(study: StudyFindings) -> Table:
    """One row per arm, one column per seed."""
    states = {(cell.arm, cell.seed): cell.state for cell in study.cells}
    metric = metric_title(study.metric, study.nms_threshold)
    return Table(
        header=("arm", *(f"seed {seed}" for seed in study.seeds), "mean ± spread"),
        rows=tuple(
            (
                arm.name,
                *(
                    plain(arm.values[seed])
                    if seed in arm.values
                    else _without_value(states[arm.name, seed])
                    for seed in study.seeds
                ),
                _mean(arm, study.metric),
            )
            for arm in study.arms
        ),
        title=f"{metric} of the last evaluation of every cell",
    )


def _without_value(state: str) -> str:
    return NONE if state == "finished" else state


def _mean(arm: ArmFindings, metric: str) -> str:
    found = arm.measures["metrics"].get(metric)
    return NONE if found is None else with_spread(found.mean, found.spread)


def _statistics(study: StudyFindings) -> Section:
    compared = [arm.decision.comparison for arm in _others(study) if arm.decision is not None]
    known = [each for each in compared if each is not None]
    notes = dict.fromkeys(note for each in known if (note := each.sign_flip_note()) is not None)
    return Section(
        title="Statistics over seeds",
        tables=(_intervals(known), _p_values(known)) if known else (),
        sentences=() if known else ("No arm shares two seeds with the baseline.",),
        notes=(
            *(f"{note[0].upper()}{note[1:]}." for note in notes),
            "The paired interval decides. It is narrower than the unpaired one where the arms "
            "have good and bad seeds in common, that is, where the correlation is well above 0. "
            "Holm: p corrected for the number of arms.",
        ),
    )


def _intervals(compared: Sequence[PairedComparison]) -> Table:
    return Table(
        header=(
            *("arm", "seeds", "mean difference", "spread"),
            *("95% interval, paired", "unpaired", "correlation"),
        ),
        rows=tuple(
            (
                found.arm,
                str(found.num_seeds),
                signed(found.mean),
                plain(found.spread, 4),
                between(found.paired),
                between(found.unpaired),
                small(found.correlation),
            )
            for found in compared
        ),
    )


def _p_values(compared: Sequence[PairedComparison]) -> Table:
    return Table(
        header=("arm", "p of t", "Holm", "p of sign flips", "Holm", "smallest p of sign flips"),
        rows=tuple(
            (
                found.arm,
                small(found.t_p),
                small(found.holm_t_p),
                small(found.sign_flip_p),
                small(found.holm_sign_flip_p),
                small(found.smallest_sign_flip_p),
            )
            for found in compared
        ),
    )


def _over_images(study: StudyFindings) -> Section:
    rows = [row for arm in _others(study) for row in _image_rows(arm)]
    header = ("arm", "seed", "difference", "95% interval over images")
    return Section(
        title="How much it depends on the images",
        tables=(Table(header, tuple(rows)), _headlines(study)) if rows else (),
        sentences=() if rows else ("No arm shares a seed with the baseline.",),
        notes=(
            f"Every row compares two checkpoints on {study.num_images} images, which are drawn "
            "anew 1,000 times. However narrow such an interval is, it says nothing of the "
            "methods: another seed gives another checkpoint. The last table draws seeds and "
            "images; with few seeds its intervals are too narrow, so the verdicts do not go by "
            "them.",
        ),
    )


def _image_rows(arm: ArmFindings) -> Iterator[tuple[str, ...]]:
    assert arm.decision is not None
    for seed, found in arm.decision.over_images.items():
        yield arm.name, str(seed), signed(found.difference), between(found.interval)


def _headlines(study: StudyFindings) -> Table:
    found = [
        (arm.name, arm.decision.headline)
        for arm in _others(study)
        if arm.decision is not None and arm.decision.headline is not None
    ]
    return Table(
        header=("arm", "seeds", "mean difference", "95% interval over seeds and images"),
        rows=tuple(
            (name, str(each.num_seeds), signed(each.difference), between(each.interval))
            for name, each in found
        ),
        title="Seeds and images together",
    )
