"""What the training loop trains: a detection model with its criterion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msdetr.data.batching import Batch
from msdetr.engine.task import MicroBatchPlace, StepLoss
from msdetr.losses import Criterion, total_loss
from msdetr.structures import ModelOutput


class DetectionTask:
    """Computes the losses of detection batches; a ``TrainingTask`` of the engine.

    Args:
        criterion: Supervision branches and losses.
    """

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion

    def count_targets(self, batch: Batch) -> int:
        """Targets of all images of the batch."""
        return int(batch.targets.counts.sum())

    def image_ids(self, batch: Batch) -> Sequence[int]:
        """Ids of the batch's images in the data set."""
        ids: list[int] = batch.targets.image_ids.tolist()
        return ids

    def skipped(self, batch: Batch) -> Sequence[str]:
        """What was wrong with images in whose place others are."""
        return batch.skipped

    def loss(
        self, model: nn.Module, batch: Batch, *, normalizer: float, place: MicroBatchPlace
    ) -> StepLoss:
        """Predict, match and compute the losses; see ``TrainingTask.loss``."""
        output: ModelOutput = model(batch.images)
        u = _draw_uniform(output, place.derive_seed("one_to_many_cap"))
        terms = self._criterion(output, batch.targets, normalizer=normalizer, u=u)
        return StepLoss(
            total=total_loss(terms),
            terms={term.key: term.value for term in terms},
            weights={term.key: term.weight for term in terms},
        )


def _draw_uniform(output: ModelOutput, seed: int) -> Tensor:
    """Draw u [N, B, Q] in [0, 1), the same on every device."""
    logits = output.one_to_one.logits
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(logits.shape[:3], generator=generator).to(logits.device, non_blocking=True)
