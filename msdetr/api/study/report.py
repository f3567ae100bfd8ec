"""What a study says: the workflow behind ``msdetr study report``. Runs no model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from msdetr.api.datasets import find_index
from msdetr.api.output import check_output, writing
from msdetr.api.progress import show_progress
from msdetr.api.study.stored_cells import GroundTruth, examine, read_ground_truth
from msdetr.api.study.target_pictures import TargetPicture, draw_targets
from msdetr.drawing.figures import save_figure
from msdetr.errors import InvalidInputError
from msdetr.evaluation.found_targets import number_targets
from msdetr.evaluation.matching import describe_library
from msdetr.files import replace_text, replacing_directory
from msdetr.study.arm_findings import find_out
from msdetr.study.cell import Cell
from msdetr.study.cell_findings import CellFindings
from msdetr.study.design import NEVER_COMPARED, StudyDesign
from msdetr.study.folder import read_study
from msdetr.study.lock import StudyLock
from msdetr.study.study_findings import CellRow, StudyFindings
from msdetr.study.telling.cells_csv import render_cells
from msdetr.study.telling.figures import draw_study
from msdetr.study.telling.latex import render_latex
from msdetr.study.telling.markdown import render_markdown
from msdetr.study.telling.page import StudyPage, render_page
from msdetr.study.telling.whole import CaptionedPicture, compose_page

FILES = ("report.html", "report.md", "table.tex", "cells.csv", "study.json")
FIGURES_FOLDER = "figures"
# Files on this machine are nobody else's business: of a path, the last part tells enough.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.~-])/(?:[^\s/:'\"]+/)+")
_DIGITS = 9


@dataclass(frozen=True)
class StudyReport:
    """What was found and written; prints itself with rich.

    Attributes:
        findings: Everything that the report says.
        files: Files and folders written.
    """

    findings: StudyFindings
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Content of ``study.json``."""
        content: dict[str, Any] = _rounded(self.findings.to_dict())
        return content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print what a reader must know first, the verdicts and the files."""
        for note in self.findings.notes:
            yield Text(f"note: {note}")
        for arm in self.findings.arms:
            if arm.decision is not None:
                yield Text(str(arm.decision.verdict))
        for file in self.files:
            yield Text(str(file))


def report_study(
    directory: Path, *, output: Path | None = None, data: str | None = None
) -> StudyReport:
    """Compare the arms of a study by what its cells left, finished or not.

    The same cells give the same bytes.

    Args:
        directory: The study's folder.
        output: Where to write; the study's folder by default. Older reports are replaced.
        data: Where the annotation file is now, if it was moved: a root in COCO's layout,
            "IMAGES,ANNOTATIONS.json", or the file.

    Raises:
        InvalidInputError: There is no study, or files of its cells are missing or damaged.
    """
    design, folder = read_study(directory)
    output = directory if output is None else output
    check_output(output, ())
    cells = folder.cells()
    finished = [cell for cell in cells if cell.state == "finished"]
    truth = read_ground_truth(finished, data) if finished else GroundTruth(_NO_IMAGES, ())
    looked_at = show_progress(finished, len(finished), "examining cells")
    found = {cell.name: examine(cell, truth, design) for cell in looked_at}
    lock = folder.read_lock()
    findings = _collect(design, lock, cells, found, truth)
    return StudyReport(findings, _write(findings, output, _draw(findings, lock, truth, data)))


_NO_IMAGES: Mapping[str, Any] = {"images": [], "annotations": [], "categories": []}


def _collect(
    design: StudyDesign,
    lock: StudyLock,
    cells: Sequence[Cell],
    found: Mapping[str, CellFindings],
    truth: GroundTruth,
) -> StudyFindings:
    by_arm = {
        arm: {
            cell.seed: found[cell.name] for cell in cells if cell.arm == arm and cell.name in found
        }
        for arm in design.arms
    }
    analyses = [each.stored.analysis for each in found.values()]
    return StudyFindings(
        description=design.description.strip(),
        metric=design.metric,
        smallest_effect=design.smallest_effect,
        nms_threshold=design.nms_threshold,
        budget=design.budget
        if design.max_seconds is None
        else f"{design.max_seconds:g} seconds of training",
        baseline=design.baseline,
        seeds=design.seeds,
        added_arms=tuple(name for name, added in lock.arms.items() if added.after_results),
        added_seeds=tuple(seed for seed, added in lock.seeds.items() if added.after_results),
        arms=tuple(
            find_out(
                by_arm,
                design.baseline,
                metric=design.metric,
                smallest_effect=design.smallest_effect,
                numbers=number_targets(truth.content, image_ids=truth.image_ids),
            )
        ),
        cells=tuple(_row(cell, found.get(cell.name)) for cell in cells),
        settings=_settings(lock),
        num_images=len(truth.image_ids),
        num_targets=truth.num_targets,
        num_traced=next((each.num_traced for each in analyses if each is not None), None),
        evaluator=describe_library(),
    )


def _row(cell: Cell, found: CellFindings | None) -> CellRow:
    error = cell.error if cell.state == "failed" else None
    return CellRow(
        arm=cell.arm,
        seed=cell.seed,
        state=cell.state,
        error=_ABSOLUTE_PATH.sub("", error or ""),
        is_analysed=cell.is_analysed,
        machine=None if found is None else found.stored.machine,
        measures={} if found is None else found.measures(),
    )


def _settings(lock: StudyLock) -> dict[str, dict[str, Any]]:
    """Return the fields that differ between arms, by arm; without arms that lack them."""
    flat = {arm: dict(_flatten(recipe, "")) for arm, recipe in lock.recipes.items()}
    keys = dict.fromkeys(key for fields in flat.values() for key in fields)
    return {
        key: {arm: fields[key] for arm, fields in flat.items() if key in fields}
        for key in keys
        if key not in NEVER_COMPARED and len({json.dumps(f.get(key)) for f in flat.values()}) > 1
    }


def _flatten(section: Mapping[str, Any], prefix: str) -> Sequence[tuple[str, Any]]:
    fields: list[tuple[str, Any]] = []
    for name, value in section.items():
        if isinstance(value, Mapping):
            fields += _flatten(value, f"{prefix}{name}.")
        else:
            fields.append((prefix + name, value))
    return fields


def _draw(
    findings: StudyFindings, lock: StudyLock, truth: GroundTruth, data: str | None
) -> list[TargetPicture]:
    """Draw targets won and lost; there are no pictures where there are no images."""
    if not truth.image_ids:
        return []
    recipe = lock.load_recipes("the study")[findings.baseline]
    try:
        index = find_index(recipe.data, data)
    except InvalidInputError:
        return []
    return draw_targets(findings.arms, truth, index)


def _write(
    findings: StudyFindings, output: Path, pictures: Sequence[TargetPicture]
) -> tuple[Path, ...]:
    figures = draw_study(findings)
    with writing(output) as aside:
        folder = output / FIGURES_FOLDER
        with replacing_directory(folder) as drawn:
            for name, figure in figures.items():
                save_figure(figure, drawn / f"{name}.svg")
            for picture in pictures:
                picture.save(drawn)
        page = compose_page(
            findings,
            {name: folder / f"{name}.svg" for name in figures},
            [CaptionedPicture(folder / each.file_name, each.caption) for each in pictures],
        )
        for name, text in zip(FILES, _render(findings, page), strict=True):
            replace_text(aside / name, text)
    return tuple(output / name for name in (*FILES, FIGURES_FOLDER))


def _render(findings: StudyFindings, page: StudyPage) -> tuple[str, ...]:
    """Return the contents of ``FILES``."""
    content = _rounded(findings.to_dict())
    return (
        render_page(page),
        render_markdown(page, FIGURES_FOLDER),
        render_latex(findings),
        render_cells(findings.cells),
        json.dumps(content, indent=2, allow_nan=False) + "\n",
    )


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """Round to digits that do not depend on the order of sums, nor on the machine."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(key): _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
