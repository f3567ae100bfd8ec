"""The whole report of a study, put together of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.deciding import deciding_sections
from msdetr.study.telling.page import StudyPage
from msdetr.study.telling.reasons import TARGETS_TITLE, reason_sections
from msdetr.study.telling.section import Section
from msdetr.study.telling.setup import facts, setup_sections

ALTERNATIVES = {
    "forest": "Differences from the baseline with their intervals",
    "epochs": "The metric over epochs by arm",
    "nms": "AP under non-maximum suppression by arm",
    "errors": "What kinds of errors cost by arm",
    "branches": "AP by branch, decoder layer and arm",
    "positives": "One-to-many positives by decoder layer and arm",
}


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture of targets won and lost.

    Attributes:
        file: Where it is.
        caption: What is to be seen.
    """

    file: Path
    caption: str


def compose_page(
    study: StudyFindings,
    figures: Mapping[str, Path],
    pictures: Sequence[CaptionedPicture] = (),
) -> StudyPage:
    """Put the report together.

    Args:
        study: What it says.
        figures: Files by name.
        pictures: Of targets won and lost.
    """
    named = {picture.file.stem: picture for picture in pictures}
    sections = [*deciding_sections(study), *reason_sections(study), *setup_sections(study)]
    return StudyPage(
        title=study.description or f"Comparison with {study.baseline}",
        facts=facts(study),
        notes=study.notes,
        sections=[_with_pictures(section, tuple(named)) for section in sections],
        figures={**figures, **{name: picture.file for name, picture in named.items()}},
        alternatives=ALTERNATIVES,
        captions={name: picture.caption for name, picture in named.items()},
    )


def _with_pictures(section: Section, names: tuple[str, ...]) -> Section:
    return replace(section, pictures=names) if section.title == TARGETS_TITLE else section
