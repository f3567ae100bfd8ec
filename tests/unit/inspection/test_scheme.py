"""Traces of schemes that cannot be repeated from them, stored and shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from msdetr.assignment import RepeatedHungarianAssigner
from msdetr.assignment.task_aligned import TaskAlignedAssigner
from msdetr.errors import TraceError, UsageError
from msdetr.files import SUMS_FILE, list_sums
from msdetr.inspection.assignment_table import AssignmentTable, assignment_rows, own_columns
from msdetr.inspection.pictures import ImagePictures
from msdetr.inspection.positives import count_positives
from msdetr.inspection.recording import Recorder
from msdetr.inspection.rematch import rematch
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.stability import stability_rows
from msdetr.inspection.summary import SummaryBuilder
from msdetr.inspection.summary_table import summary_table
from msdetr.inspection.trace import MatchTrace
from msdetr.losses import Criterion
from msdetr.structures import Assigner

ALIGNED = TaskAlignedAssigner(3, 1.0, 6.0)
REPEATED = RepeatedHungarianAssigner(2.0, 5.0, 2.0, copies=2)

TracedBy = Callable[..., tuple[Any, MatchTrace]]


@pytest.fixture
def traced_by(scene: Any) -> TracedBy:
    """Trace a scene with another assigner: the scene, and the trace."""

    def make(assigner: Assigner, name: str = "other", **options: Any) -> tuple[Any, MatchTrace]:
        made = scene(**options)
        supervision = made.criterion.supervision
        rule = replace(supervision.one_to_many, assigner=assigner)
        recorder = Recorder(Criterion(replace(supervision, one_to_many=rule)))
        images = tuple(
            replace(image, **vars(recorder.record(made.output, made.targets, i, made.u[:, i])))
            for i, image in enumerate(made.trace.images)
        )
        assert images[0].explanation is not None
        scheme = StoredScheme.of({"type": name}, assigner.describe(), images[0].explanation)
        return made, MatchTrace(replace(made.trace.info, one_to_many=scheme), images)

    return make


@pytest.mark.parametrize("assigner", [ALIGNED, REPEATED], ids=["aligned", "repeated"])
def test_stored_trace_holds_what_training_assigns(
    traced_by: TracedBy, tmp_path: Path, assigner: Assigner
) -> None:
    made, trace = traced_by(assigner)
    trace.save(tmp_path / "trace")
    loaded = MatchTrace.load(tmp_path / "trace")
    assert loaded.info.one_to_many == trace.info.one_to_many
    assert loaded.info.one_to_many.describe() == assigner.describe()
    whole = assigner.explain(made.output.one_to_many, made.targets, made.u)
    for index, image in enumerate(loaded.images):
        matching = rematch(image, loaded.info.one_to_many)
        count = image.num_targets
        assert torch.equal(matching.one_to_many, whole.paired[:, index, :count])
        assert torch.equal(matching.scores, whole.score[:, index, :count])
        listed = (image.one_to_many_queries >= 0).sum(dim=2)
        assert torch.equal(listed, matching.one_to_many.sum(dim=2))
        assert float(matching.strengths.min() if count else 0) >= 0
        assert float(matching.strengths.max() if count else 0) <= 1


def test_table_has_the_columns_and_words_of_the_scheme(traced_by: TracedBy) -> None:
    _, trace = traced_by(ALIGNED)
    file = io.StringIO(newline="")
    table = AssignmentTable(file, own_columns(trace.info))
    for image in trace.images:
        matching = rematch(image, trace.info.one_to_many)
        table.write(assignment_rows(image, matching, trace.info, layers=range(2), top=40))
    file.seek(0)
    rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["paired", "served", "reason"]
    for row in rows:
        if row["reason"].startswith("lost_to_target"):
            assert row["reason"] == f"lost_to_target:{row['served']}" != row["target"]
    assert {row["reason"].split(":")[0] for row in rows} >= {"", "lost_to_target", "beyond_k"}


def test_summary_counts_the_causes_of_the_scheme(traced_by: TracedBy) -> None:
    # More copies than queries: some targets go without.
    _, trace = traced_by(RepeatedHungarianAssigner(2.0, 5.0, 2.0, copies=1), num_queries=5)
    builder = SummaryBuilder(trace.info, range(2))
    for image in trace.images:
        builder.add(image, rematch(image, trace.info.one_to_many))
    summary = builder.build()
    first = summary.layers[0]
    assert first.targets_without_positives == {"more_targets_than_queries": 1}
    assert (first.images_at_cap, first.positives_dropped_by_cap) == (None, None)
    assert json.loads(json.dumps(summary.to_dict()))["setting"]["one_to_many"] == {"type": "other"}
    names = list(summary_table(summary).columns[0].cells)
    assert "no positives: more targets than queries" in names
    assert not [name for name in names if "cap" in str(name)]


def test_pictures_and_stability(traced_by: TracedBy, tmp_path: Path) -> None:
    _, trace = traced_by(ALIGNED)
    image = trace.images[0]
    matching = rematch(image, trace.info.one_to_many)
    files = ImagePictures(image, matching, trace.info, [0, 1]).save(tmp_path)
    assert len(files) == 3
    rows = list(stability_rows([(1, trace), (2, trace)]))
    assert rows[-1].one_to_many_jaccard == 1.0


def test_scores_that_are_not_finite_can_be_drawn(traced_by: TracedBy) -> None:
    _, trace = traced_by(ALIGNED)
    matching = rematch(trace.images[0], trace.info.one_to_many)
    scores = matching.scores.clone()
    scores[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    assert replace(matching, scores=scores).strengths[0, 0, :3].tolist() == [0, 1, 0]
    none = torch.full_like(scores, -torch.inf)
    assert replace(matching, scores=none).strengths.unique().tolist() == [0]


def test_settings_of_ms_detr_can_be_tried_on_any_trace_but_k_beyond_the_queries(
    traced_by: TracedBy, scene: Any
) -> None:
    _, trace = traced_by(ALIGNED)
    rule = scene().trace.info.one_to_many
    assert rematch(trace.images[0], rule).one_to_many.any()
    with pytest.raises(UsageError, match="k"):
        rematch(trace.images[0], replace(rule, k=41))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("reason", lambda value: value + 9, "reason 1[0-9] does not exist"),
        ("score", lambda value: value[:, :, :3].contiguous(), "score is"),
        ("query.served", None, "is damaged"),
    ],
)
def test_damaged_explanations_are_refused(
    traced_by: TracedBy, tmp_path: Path, name: str, change: Any, told: str
) -> None:
    _, trace = traced_by(ALIGNED)
    path = tmp_path / "trace"
    trace.save(path)
    tensors = load_file(path / "trace.safetensors")
    value = tensors.pop(f"0.explanation.{name}")
    if change is not None:
        tensors[f"0.explanation.{name}"] = change(value)
    save_file(tensors, path / "trace.safetensors")
    contents = {f: (path / f).read_bytes() for f in ("trace.json", "trace.safetensors")}
    (path / SUMS_FILE).write_bytes(list_sums(contents))
    with pytest.raises(TraceError, match=told):
        MatchTrace.load(path)


def test_positives_of_schemes_without_a_cap_are_all_kept(traced_by: TracedBy) -> None:
    _, trace = traced_by(ALIGNED)
    rows = list(count_positives(trace))
    assert all(row.candidates == row.kept == row.positives for row in rows)
    assert sum(row.positives for row in rows) == sum(
        int(image.explanation.paired.sum()) for image in trace.images if image.explanation
    )
