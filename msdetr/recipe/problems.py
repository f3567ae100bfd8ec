"""Findings -> the lines of an error message, in columns."""

from __future__ import annotations

from collections.abc import Sequence

from msdetr.errors import Problem

from .overrides import SET
from .yaml_source import Finding, Place


def format_findings(findings: Sequence[Finding], source: str) -> list[Problem]:
    """Sorts findings (files by line, then overrides) and lays them out.

    Args:
        findings: What is wrong.
        source: The recipe that was asked for; its lines go without its name.
    """
    ordered = sorted(findings, key=lambda finding: _order(finding.place, source))
    keys = [finding.key for finding in ordered]
    width = max(map(len, keys)) if len(keys) > 1 else 0
    return [Problem(_where(finding.place, source), _message(finding, width)) for finding in ordered]


def _message(finding: Finding, width: int) -> str:
    if not width:
        return f"{finding.key}: {finding.message}" if finding.key else finding.message
    return f"{finding.key:<{width}}   {finding.message}"


def _order(place: Place | None, source: str) -> tuple[int, str, int]:
    if place is None:
        return 3, "", 0
    rank = 2 if place.source == SET else int(place.source != source)
    return rank, place.source, place.line or 0


def _where(place: Place | None, source: str) -> str:
    if place is None:
        return ""
    if place.line is None:
        return "" if place.source == source else place.source
    line = f"line {place.line}"
    return line if place.source == source else f"{place.source} {line}"
