"""What is computed of a cell with its model once it is trained, for the report of its study.

Afterwards the report needs no model: it reads these files and those of the run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msdetr.api.evaluate import evaluate
from msdetr.api.traces.make_trace import DEFAULT_NUM_IMAGES, ProbeSet, trace_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError
from msdetr.files import replace_text, replacing_directory
from msdetr.inspection.positives import count_positives, write_positives
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import MatchTrace
from msdetr.study.cell import ANALYSIS_FOLDER
from msdetr.study.stored_analysis import ANALYSIS_FILE, FORMAT_VERSION, POSITIVES_FILE


def analyse_cell(directory: Path, *, device: str = "auto") -> None:
    """Fill the ``analysis`` of a finished run, replacing an older one as a whole.

    The last checkpoint is analysed, as it is the last evaluation that a study compares. The same
    checkpoint gives the same bytes on the same kind of machine.

    Args:
        directory: The run.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InvalidInputError: The run has no checkpoint, or its data cannot be read.
    """
    checkpoint = RunDirectory(directory).find_last()
    if checkpoint is None:
        raise CheckpointError(str(directory), "has no last checkpoint to analyse")
    probe = ProbeSet(num_images=DEFAULT_NUM_IMAGES)
    branches = _branches(checkpoint, device)
    trace = trace_checkpoint(checkpoint, probe=probe, device=device)
    with replacing_directory(directory / ANALYSIS_FOLDER) as folder:
        write_positives(folder / POSITIVES_FILE, count_positives(trace))
        content = {"format_version": FORMAT_VERSION, "branches": branches, **_describe(trace)}
        replace_text(folder / ANALYSIS_FILE, json.dumps(content, indent=2) + "\n")


def _branches(checkpoint: Path, device: str) -> dict[str, Any]:
    report = evaluate(checkpoint, device=device, per_layer=True)
    assert report is not None
    return {"one_to_one": report.to_dict()["per_layer"], "one_to_many": None}


def _describe(trace: MatchTrace) -> dict[str, Any]:
    rule = trace.info.one_to_many
    return {
        "num_traced": len(trace.images),
        "has_one_to_many": trace.info.has_one_to_many,
        "one_to_many": rule.description if isinstance(rule, StoredScheme) else rule.describe(),
    }
