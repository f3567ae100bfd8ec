"""What the query groups beside the primary one are paired with, in a second forward pass.

The primary group's trace comes from a pass without them, so that it is the one of a model that
never had any, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from msdetr.api.detection.dataset_detector import autocast
from msdetr.build import build_noise
from msdetr.data.batching import Batch
from msdetr.data.labels import LabelSpace
from msdetr.inspection.query_groups import TracedGroups, trace_groups
from msdetr.losses import Criterion
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe
from msdetr.seeding import seeded_generator
from msdetr.structures import ModelOutput


class GroupTracer:
    """Runs a model with all its query groups, and assigns as training does.

    Args:
        model: On the device to work on; without extra groups there is nothing to trace.
        recipe: Of the model.
        label_space: Classes of the model.
        criterion: With the rules of the groups.
    """

    def __init__(
        self, model: DetectionModel, recipe: Recipe, label_space: LabelSpace, criterion: Criterion
    ) -> None:
        self._model = model
        self._recipe = recipe
        self._noise = build_noise(recipe, label_space.labels)
        mixed = recipe.supervision.one_to_many is not None
        supervision = criterion.supervision
        self._criterion = Criterion(
            supervision if mixed else replace(supervision, one_to_many=None),
            criterion.class_loss,
        )

    def trace(self, batch: Batch, image_ids: Sequence[int]) -> list[TracedGroups]:
        """Trace the groups of a batch's images.

        Args:
            batch: On the model's device.
            image_ids: Ids of its images.
        """
        if self._model.training_groups is None:
            return [TracedGroups()] * len(image_ids)
        device = batch.images.pixels.device
        noised = None
        if self._noise is not None:
            # The noise of the first epoch.
            noised = self._noise(batch.targets.to("cpu"), [0] * len(image_ids)).to(device)
        with autocast(device, self._recipe.train.precision):
            output: ModelOutput = self._model(
                batch.images, with_one_to_many=True, with_extra_groups=True, noised=noised
            )
        u = self._draw(output, image_ids).to(device)
        return trace_groups(self._criterion, output, batch.targets, u)

    def _draw(self, output: ModelOutput, image_ids: Sequence[int]) -> torch.Tensor:
        num_layers = output.one_to_one.logits.shape[0]
        num_queries = sum(group.one_to_one.logits.shape[2] for group in output.groups)
        seed = self._recipe.train.seed
        drawn = [
            torch.rand(
                num_layers, num_queries, generator=seeded_generator("trace_groups", seed, image_id)
            )
            for image_id in image_ids
        ]
        return torch.stack(drawn, dim=1)
