"""Random predictions of a batch, and the trace that recording them gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.inspection.recording import Recorder
from msdetr.inspection.trace import MatchTrace, TracedImage, TraceInfo
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision
from msdetr.structures import ModelOutput, Predictions, Targets

HUNGARIAN = HungarianAssigner(class_weight=2.0, l1_weight=5.0, giou_weight=2.0)
RULE = OneToManyAssigner(
    k=4, threshold=0.4, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
)
WEIGHTS = {"one_to_one": (1.0, 5.0, 2.0), "one_to_many": (2.0, 5.0, 2.0)}


@dataclass(frozen=True)
class Scene:
    """A batch as the model predicts it, and its trace.

    Attributes:
        output: Of both branches.
        targets: Of the images.
        u: [N, B, Q].
        criterion: What supervises the batch.
        trace: Recorded image by image.
    """

    output: ModelOutput
    targets: Targets
    u: torch.Tensor
    criterion: Criterion
    trace: MatchTrace


MakeScene = Callable[..., Scene]


def make_scene(
    *,
    counts: Sequence[int] = (3, 0, 6),
    num_layers: int = 2,
    num_queries: int = 40,
    num_classes: int = 3,
    seed: int = 0,
    has_one_to_many: bool = True,
    copies: int = 1,
    **rule: Any,
) -> Scene:
    """Draw predictions near the targets; ``copies`` > 1 repeats every query, which makes ties."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    boxes = [torch.cat([0.3 + 0.4 * uniform(t, 2), 0.1 + 0.3 * uniform(t, 2)], 1) for t in counts]
    labels = [torch.randint(num_classes, (t,), generator=generator) for t in counts]
    targets = Targets.from_lists(boxes, labels, [10 * (i + 1) for i in range(len(counts))])

    def predict() -> Predictions:
        shape = (num_layers, len(counts), num_queries // copies)
        home = torch.randint(targets.labels.shape[1], shape, generator=generator)
        near = targets.boxes_cxcywh[torch.arange(len(counts))[:, None], home]
        found = (near + 0.15 * (uniform(*shape, 4) - 0.5)).clamp(0.01, 1)
        logits = 4 * uniform(*shape, num_classes) - 3
        repeated = (tensor.repeat(1, 1, copies, 1) for tensor in (logits, found))
        return Predictions(*repeated)

    output = ModelOutput(predict(), predict() if has_one_to_many else None)
    u = uniform(num_layers, len(counts), num_queries)
    criterion = build_criterion(replace(RULE, **rule))
    recorder = Recorder(criterion)
    images = tuple(
        TracedImage(
            image_id=10 * (index + 1),
            file_name=f"{index}.png",
            path=f"/nowhere/{index}.png",
            original_hw=(60, 80),
            boxes_cxcywh=boxes[index],
            labels=labels[index],
            annotation_ids=torch.arange(count) + 100 * index,
            areas_px=torch.linspace(500, 12000, count) if count else torch.zeros(0),
            **vars(recorder.record(output, targets, index, u[:, index])),
        )
        for index, count in enumerate(counts)
    )
    info = make_info(recorder.one_to_many, num_layers, num_queries, num_classes)
    info = replace(info, has_one_to_many=has_one_to_many)
    return Scene(output, targets, u, criterion, MatchTrace(info, images))


def build_criterion(rule: OneToManyAssigner) -> Criterion:
    """The criterion of a model with both branches."""
    rules = {
        name: BranchRule(assigner, LossWeights(*WEIGHTS[name]))
        for name, assigner in (("one_to_one", HUNGARIAN), ("one_to_many", rule))
    }
    return Criterion(Supervision(assign=assign_together, **rules))


def make_info(
    rule: OneToManyAssigner, num_layers: int, num_queries: int, num_classes: int
) -> TraceInfo:
    """What is said of a trace that no model made."""
    return TraceInfo(
        source="nothing",
        source_sha256=None,
        weights="untrained",
        recipe={"model": {"num_queries": num_queries}},
        annotations_file="none.json",
        annotations_sha256="0" * 64,
        category_names=tuple(f"class, {i}" for i in range(num_classes)),
        category_ids=tuple(range(1, num_classes + 1)),
        one_to_one=HUNGARIAN,
        one_to_many=rule,
        loss_weights=WEIGHTS,
        has_one_to_many=True,
        shares_class_head=True,
        num_layers=num_layers,
        num_queries=num_queries,
    )


@pytest.fixture(scope="session")
def scene() -> MakeScene:
    """Make a scene; see ``make_scene``."""
    return make_scene


@pytest.fixture(scope="session")
def pairs_of_batch() -> Callable[[Scene], dict[str, set[tuple[int, int, int, int]]]]:
    """Assign the whole batch at once, as training does: (image id, layer, target, query)."""

    def assign(scene: Scene) -> dict[str, set[tuple[int, int, int, int]]]:
        branches = scene.criterion.supervision.branches(
            replace(scene.output, one_to_many=scene.output.one_to_many or scene.output.one_to_one),
            scene.targets,
            scene.u,
        )
        found = {}
        for branch, rows in zip(branches, assign_together(branches), strict=True):
            ids = scene.targets.image_ids[rows.image]
            columns = torch.stack([ids, rows.layer, rows.target, rows.query], dim=1)[rows.valid]
            found[branch.name] = {tuple(row) for row in columns.tolist()}
        return found

    return assign
