"""The whole report of a study, put together of its sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.deciding import deciding_sections
from msdetr.study.telling.page import StudyPage
from msdetr.study.telling.reasons import reason_sections
from msdetr.study.telling.setup import facts, setup_sections

ALTERNATIVES = {
    "forest": "Differences from the baseline with their intervals",
    "epochs": "The metric over epochs by arm",
    "nms": "AP under non-maximum suppression by arm",
    "errors": "What kinds of errors cost by arm",
    "branches": "AP by branch, decoder layer and arm",
    "positives": "One-to-many positives by decoder layer and arm",
}


def compose_page(study: StudyFindings, figures: Mapping[str, Path]) -> StudyPage:
    """Put the report together.

    Args:
        study: What it says.
        figures: Files by name.
    """
    return StudyPage(
        title=study.description or f"Comparison with {study.baseline}",
        facts=facts(study),
        notes=study.notes,
        sections=[*deciding_sections(study), *reason_sections(study), *setup_sections(study)],
        figures=figures,
        alternatives=ALTERNATIVES,
    )
