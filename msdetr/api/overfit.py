"""Overfit a few images: the quickest check that a recipe can learn at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from msdetr.api.datasets import load_training_data
from msdetr.api.training.session import TrainingSession
from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.build import build_accelerator, build_repeating_plan
from msdetr.data.batching import Batch
from msdetr.engine.environment import collect_environment
from msdetr.engine.processes import Processes
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_lock import holding_run
from msdetr.engine.run_state import RunState
from msdetr.errors import DataError, InterruptedRunError, MsdetrError
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe, recipe_to_yaml
from msdetr.structures import ModelOutput

OVERFIT_STEPS = 500
OVERFIT_AP = 0.9


@dataclass(frozen=True)
class StageShares:
    """How many targets each stage of the model gets right, as shares in 0..1.

    Attributes:
        proposals: Targets that a selected proposal overlaps at IoU 0.5; None for one-stage models.
        boxes: Targets that a predicted box overlaps at IoU 0.75.
        classes: Targets of those for which such a box has the right class above 0.5.
    """

    proposals: float | None
    boxes: float
    classes: float

    def failing(self) -> str:
        """Name the first stage that falls short, with its share."""
        stages = {
            "the proposals (no selected proposal at IoU 0.5)": self.proposals,
            "the boxes (no predicted box at IoU 0.75)": self.boxes,
            "the classes (no such box with the right class above 0.5)": self.classes,
        }
        for name, share in stages.items():
            if share is not None and share < OVERFIT_AP:
                return f"{name}: {share:.0%} of the targets are right"
        return "the ranking: boxes and classes are right, but duplicates score as high"


def overfit(recipe: Recipe, num_images: int, *, output: Path, device: str = "auto") -> float:
    """Train on a few images, without augmentation, and evaluate on the same.

    All other settings are the recipe's; the images repeat until the recipe's epochs have about
    500 optimizer steps together.

    Args:
        recipe: What to train and how.
        num_images: Images to learn, the first of the training split.
        output: Directory of the run; must be new or empty.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The AP reached.

    Raises:
        InvalidInputError: Recipe, data or directory cannot be used.
        MsdetrError: The AP stayed below 0.9; the message names the stage that failed.
        InterruptedRunError: A signal stopped the run.
    """
    directory = RunDirectory(output)
    accelerator = build_accelerator(recipe.train, device=device)
    with holding_run(directory, Processes(accelerator)):
        session, state = _train(recipe, num_images, accelerator, directory)
    ap = state.best_score or 0.0
    if ap <= OVERFIT_AP:
        failing = measure_stages(session.model, session.batches(0, 0)).failing()
        raise MsdetrError(
            f"AP {ap:.3f} on {num_images} training images, expected more than {OVERFIT_AP}; "
            f"what fails first is {failing}"
        )
    return ap


@torch.inference_mode()
def measure_stages(model: DetectionModel, batches: Iterable[Batch]) -> StageShares:
    """Count the targets that proposals, boxes and classes get right.

    Args:
        model: On any device; left in evaluation mode.
        batches: Batches to measure on.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = [_stages_of(model, batch.to(device)) for batch in batches]
    counts = torch.stack(rows).sum(0).tolist()
    total, proposals, boxes, classes = counts
    return StageShares(
        proposals=None if proposals < 0 else proposals / total,
        boxes=boxes / total,
        classes=classes / total,
    )


def _train(
    recipe: Recipe, num_images: int, accelerator: Accelerator, directory: RunDirectory
) -> tuple[TrainingSession, RunState]:
    directory.check_free()
    data = load_training_data(recipe, overfit=num_images)
    if data.train.index.num_targets == 0:
        raise DataError(
            str(data.train.index.annotations_file),
            f"the first {num_images} images have no targets; give a larger `overfit`",
        )
    plan = build_repeating_plan(recipe.train, len(data.train), OVERFIT_STEPS)
    session = TrainingSession(recipe, data, accelerator, directory, plan=plan)
    session.load_pretrained()
    trainer = session.trainer()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        directory.create(recipe_text=recipe_to_yaml(recipe), environment=collect_environment())
    accelerator.wait_for_everyone()
    try:
        state = trainer.fit()
    except InterruptedRunError as error:
        number = error.exit_code - 128
        message = "stopped; what `overfit` began is not resumed, give another `output`"
        raise InterruptedRunError(number, message) from error
    return session, state


def _stages_of(model: DetectionModel, batch: Batch) -> Tensor:
    """Return [4] counts: targets, those with a proposal (negative for none), a box, a class."""
    output: ModelOutput = model(batch.images)
    logits, boxes = output.one_to_one.logits[-1], output.one_to_one.boxes_cxcywh[-1]
    valid, targets = batch.targets.valid, batch.targets.boxes_cxcywh
    overlap = _overlaps(targets, boxes)
    probability = logits.sigmoid().gather(
        2, batch.targets.labels[:, None].expand(-1, logits.shape[1], -1)
    )
    right = (overlap >= 0.75) & (probability.transpose(1, 2) > 0.5)
    found = [
        valid,
        _covered_by_proposals(output, targets, boxes.shape[1], valid),
        valid & (overlap >= 0.75).any(-1),
        valid & right.any(-1),
    ]
    return torch.stack([entry.sum() for entry in found])


def _covered_by_proposals(
    output: ModelOutput, targets: Tensor, num_queries: int, valid: Tensor
) -> Tensor:
    if output.proposals is None:
        return -valid.long()
    cells = output.proposals.logits[..., 0].topk(num_queries, dim=1).indices
    selected = output.proposals.boxes_cxcywh.gather(1, cells[..., None].expand(-1, -1, 4))
    return valid & (_overlaps(targets, selected) >= 0.5).any(-1)


def _overlaps(targets: Tensor, boxes: Tensor) -> Tensor:
    """Compute the IoU [B, T, Q] of boxes [B, T, 4] and [B, Q, 4] (cx, cy, w, h)."""
    return iou_and_giou(cxcywh_to_xyxy(targets)[:, :, None], cxcywh_to_xyxy(boxes)[:, None])[0]
