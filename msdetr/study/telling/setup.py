"""The sections that say what was compared: facts, arms, cells, machines."""

from __future__ import annotations

import json
from typing import Any

from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.numbers import NONE, metric_title
from msdetr.study.telling.section import Section, Table


def facts(study: StudyFindings) -> list[tuple[str, str]]:
    """List what to know first, as name and value."""
    finished = sum(cell.is_finished for cell in study.cells)
    return [
        ("metric", metric_title(study.metric, study.nms_threshold)),
        ("smallest effect of interest", f"{study.smallest_effect:g}"),
        ("equal for all cells", study.budget),
        ("baseline", study.baseline),
        ("arms", ", ".join(arm.name for arm in study.arms)),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("finished cells", f"{finished} of {len(study.cells)}"),
        ("evaluated on", f"{study.num_images} images with {study.num_targets} targets"),
        ("metrics computed by", study.evaluator),
        *(("machine", machine) for machine in study.machines),
    ]


def setup_sections(study: StudyFindings) -> list[Section]:
    """Build the sections, in the order of the report."""
    return [_arms(study), _cells(study)]


def _arms(study: StudyFindings) -> Section:
    names = tuple(arm.name for arm in study.arms)
    rows = tuple(
        (key, *(_value(values[name]) if name in values else NONE for name in names))
        for key, values in study.settings.items()
    )
    return Section(
        title="What the arms differ in",
        sentences=() if rows else ("The recipes of the arms are equal but for their seeds.",),
        tables=(Table(("field of the recipe", *names), rows),) if rows else (),
    )


def _value(value: Any) -> str:  # noqa: ANN401 - JSON values
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cells(study: StudyFindings) -> Section:
    machines = list(study.machines)
    rows = tuple(
        (
            cell.arm,
            str(cell.seed),
            cell.state,
            "yes" if cell.is_analysed else "no",
            str(machines.index(cell.machine or "not known") + 1) if cell.is_finished else NONE,
            cell.error or NONE,
        )
        for cell in study.cells
    )
    return Section(
        title="Cells",
        tables=(Table(("arm", "seed", "state", "analysed", "machine", "error"), rows),),
        notes=tuple(
            f"Machine {number}: {machine}." for number, machine in enumerate(machines, start=1)
        ),
    )
