"""Whether the file of an assigner is still the one that a run was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msdetr.assignment.own_file import FileAssigner
from msdetr.errors import AssignerError
from msdetr.losses import Criterion

ASSIGNER = "assigner"
_SHOWN_DIGITS = 12


def assigner_info(criterion: Criterion) -> dict[str, Any]:
    """Return what checkpoints store of an assigner from a file, as JSON values; else nothing."""
    assigner = _from_file(criterion)
    if assigner is None:
        return {}
    return {ASSIGNER: {"name": assigner.name, "sha256": assigner.sha256}}


def check_same_assigner(info: Mapping[str, Any], criterion: Criterion, source: str) -> None:
    """Refuse a file of an assigner that has changed since a run was trained with it.

    Args:
        info: Content of ``checkpoint.json``.
        criterion: With the assigner that was just read, if it is from a file.
        source: The checkpoint, for messages.

    Raises:
        AssignerError: The bytes of the file are others than the run's.
    """
    assigner, before = _from_file(criterion), info.get(ASSIGNER)
    if assigner is None or not isinstance(before, dict):
        return
    if before.get("sha256") != assigner.sha256:
        raise AssignerError(
            assigner.name,
            f"is not what {source} was trained with: its SHA-256 was "
            f"{str(before.get('sha256'))[:_SHOWN_DIGITS]}..., is "
            f"{assigner.sha256[:_SHOWN_DIGITS]}...; put the old file back",
        )


def _from_file(criterion: Criterion) -> FileAssigner | None:
    rule = criterion.supervision.one_to_many
    return rule.assigner if rule and isinstance(rule.assigner, FileAssigner) else None
