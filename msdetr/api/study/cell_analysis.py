"""What is computed of a cell with its model once it is trained, for the report of its study.

Afterwards the report needs no model: it reads these files and those of the run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.datasets import load_evaluation_data
from msdetr.api.evaluate import evaluate_branches
from msdetr.api.traces.make_trace import trace_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError
from msdetr.files import replacing_directory
from msdetr.inspection.positives import count_positives, write_positives
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import MatchTrace
from msdetr.study.cell import ANALYSIS_FOLDER
from msdetr.study.stored_analysis import ANALYSIS_FILE, FORMAT_VERSION, POSITIVES_FILE


def analyse_cell(directory: Path, *, device: str = "auto") -> None:
    """Fill the ``analysis`` of a finished run, replacing an older one as a whole.

    The last checkpoint is analysed, since the last evaluation is what a study compares. The same
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
    branches = _score_branches(checkpoint, device)
    trace = trace_checkpoint(checkpoint, device=device)
    content = {"format_version": FORMAT_VERSION, **_describe(trace), "branches": branches}
    with replacing_directory(directory / ANALYSIS_FOLDER) as folder:
        write_positives(folder / POSITIVES_FILE, count_positives(trace))
        (folder / ANALYSIS_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _score_branches(checkpoint: Path, device: str) -> dict[str, Any]:
    loaded = load_checkpoint(checkpoint)
    images = load_evaluation_data(loaded.recipe, loaded.label_space)
    metrics = evaluate_branches(loaded, images, device=device)
    assert metrics is not None  # a cell's analysis is one process
    return metrics.to_dict()


def _describe(trace: MatchTrace) -> dict[str, Any]:
    rule = trace.info.one_to_many
    return {
        "num_traced": len(trace.images),
        "has_one_to_many": trace.info.has_one_to_many,
        "one_to_many": rule.description if isinstance(rule, StoredScheme) else rule.describe(),
    }
