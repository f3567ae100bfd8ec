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
        """Count the targets of all images of the batch."""
        return int(batch.targets.counts.sum())

    def image_ids(self, batch: Batch) -> Sequence[int]:
        """Return the ids of the batch's images in the data set."""
        ids: list[int] = batch.targets.image_ids.tolist()
        return ids

    def skipped(self, batch: Batch) -> Sequence[str]:
        """Say what was wrong with images that others replace."""
        return batch.skipped

    def loss(
        self, model: nn.Module, batch: Batch, *, num_targets: float, place: MicroBatchPlace
    ) -> StepLoss:
        """Predict, match and compute the losses; see ``TrainingTask.loss``."""
        noised = {} if batch.noised is None else {"noised": batch.noised}
        output: ModelOutput = model(batch.images, **noised)
        u = _draw_uniform(output, place)
        terms = self._criterion(output, batch.targets, num_targets=num_targets, u=u)
        return StepLoss(
            total=total_loss(terms),
            terms={term.key: term.value for term in terms},
            weights={term.key: term.weight for term in terms},
        )


def _draw_uniform(output: ModelOutput, place: MicroBatchPlace) -> Tensor:
    """Draw u [N, B, Q] in [0, 1), the same on every device; Q over all groups that may need it.

    Every group has a generator of its own, so that the primary group's numbers are those of a
    model without other groups.
    """
    shape = (output.num_layers, *output.one_to_one.logits.shape[1:3])
    drawn = [_draw(shape, place.derive_seed("one_to_many_cap"))]
    for group in output.extra_groups:
        if group.one_to_many is None:
            break  # no group after the first such one draws
        seed = place.derive_seed(f"one_to_many_cap/{group.name}")
        drawn.append(_draw(tuple(group.one_to_one.logits.shape[:3]), seed))
    device = output.one_to_one.logits.device
    u = drawn[0] if len(drawn) == 1 else torch.cat(drawn, dim=2)
    return u.to(device, non_blocking=True)


def _draw(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator)
