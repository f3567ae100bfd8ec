"""Detections of a whole data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from msdetr.api.progress import show_progress
from msdetr.data.batching import Batch
from msdetr.data.dataset import DetectionDataset
from msdetr.data.loading import BatchLoader
from msdetr.data.sampling import eval_batches
from msdetr.errors import MsdetrError
from msdetr.evaluation.results import detections_to_results
from msdetr.evaluation.settings import DetectionSettings
from msdetr.model.detections import select_detections, suppress_duplicates
from msdetr.structures import Detections, ModelOutput, Predictions

Results = list[dict[str, Any]]
BranchResults = dict[str, list[Results]]
"""Results by decoder layer, by name of the branch."""


def merge_shares(shares: Iterable[Results]) -> Results:
    """Put the results of several processes in the order of a single process."""
    together = (result for share in shares for result in share)
    return sorted(together, key=lambda result: int(result["image_id"]))


def merge_layers(shares: Sequence[list[Results]]) -> list[Results]:
    """Merge the results of several processes layer by layer."""
    # A process without images knows of no layers.
    num_layers = max(len(share) for share in shares)
    return [
        merge_shares(share[layer] for share in shares if layer < len(share))
        for layer in range(num_layers)
    ]


class DatasetDetector:
    """Runs a model over the images of a data set; draws no random numbers.

    Args:
        dataset: Images, with the evaluation resize.
        loader: Makes batches of the data set.
        settings: How detections are made.
        rank: This process.
        num_processes: Number of processes; batches are dealt among them.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        loader: BatchLoader,
        settings: DetectionSettings,
        *,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.settings = settings
        self._dataset = dataset
        self._loader = loader
        self._rank = rank
        self._num_processes = num_processes

    @torch.inference_mode()
    def detect(self, model: nn.Module, *, every_layer: bool = False) -> list[Results]:
        """Detect the objects in this process's share of the images.

        Args:
            model: In evaluation mode.
            every_layer: Also detect with every decoder layer's predictions.

        Returns:
            COCO results of the last decoder layer; with ``every_layer`` those of all layers,
            from the first to the last. A suppressor is the last layer; those before it detect
            with their one-to-many predictions.
        """
        results: list[Results] = []
        before_suppressor = every_layer and self.settings.has_suppressor
        for output, batch in self._outputs(model, with_one_to_many=before_suppressor):
            predictions = output.one_to_one
            if before_suppressor:
                assert output.one_to_many is not None
                predictions = _stack(output.one_to_many, predictions)
            found = self._to_results(predictions, batch, every_layer=every_layer)
            results = _joined(results, found)
        return results or [[]]

    @torch.inference_mode()
    def detect_branches(self, model: nn.Module) -> BranchResults:
        """Detect with every decoder layer of both branches in this process's share of the images.

        Args:
            model: In evaluation mode.

        Returns:
            COCO results of all N layers, from the first to the last, of "one_to_one" and of
            "one_to_many"; without the latter if the model has no such branch.
        """
        branches: BranchResults = {}
        for output, batch in self._outputs(model, with_one_to_many=True):
            present = {"one_to_one": output.one_to_one, "one_to_many": output.one_to_many}
            for name, predictions in present.items():
                if predictions is not None:
                    found = self._to_results(predictions, batch, every_layer=True)
                    branches[name] = _joined(branches.get(name, []), found)
        return branches

    def _outputs(
        self, model: nn.Module, *, with_one_to_many: bool
    ) -> Iterator[tuple[ModelOutput, Batch]]:
        device = next(model.parameters()).device
        batches = list(
            eval_batches(
                range(len(self._dataset)), self.settings.batch_size, self._rank, self._num_processes
            )
        )
        loaded = show_progress(
            self._loader.load(batches), len(batches), "evaluating", quiet=self._rank > 0
        )
        for batch in loaded:
            with autocast(device, self.settings.precision):
                output = model(batch.images.to(device), with_one_to_many=with_one_to_many)
            yield output, batch

    def _to_results(
        self, predictions: Predictions, batch: Batch, *, every_layer: bool
    ) -> list[Results]:
        layers = range(predictions.logits.shape[0]) if every_layer else [-1]
        return [self._layer_results(predictions, layer, batch) for layer in layers]

    def _layer_results(self, predictions: Predictions, layer: int, batch: Batch) -> Results:
        detections = make_detections(predictions, layer, batch.original_hw, self.settings)
        results = detections_to_results(
            detections, batch.targets.image_ids.tolist(), self.settings.category_id_of_label
        )
        if self.settings.nms_threshold is None:
            return results
        # What was suppressed has score 0; as a detection it would still count as a false one.
        return [result for result in results if result["score"] > 0]


def _joined(first: list[Results], second: list[Results]) -> list[Results]:
    if not first:
        return second
    for ours, more in zip(first, second, strict=True):
        ours.extend(more)
    return first


def make_detections(
    predictions: Predictions, layer: int, original_hw: Tensor, settings: DetectionSettings
) -> Detections:
    """Turn the predictions of a decoder layer into detections.

    Args:
        predictions: Of decoder layers.
        layer: Which of them, counted from 0; -1 for the last.
        original_hw: [B, 2] height and width of the images before resizing, in pixels.
        settings: How detections are made.

    Raises:
        MsdetrError: Scores or boxes are not finite.
    """
    detections = select_detections(
        predictions.logits[layer].float(),
        predictions.boxes_cxcywh[layer].float(),
        original_hw.to(predictions.logits.device),
        settings.limit,
    )
    return finish_detections(detections, settings.nms_threshold)


def finish_detections(detections: Detections, nms_threshold: float | None) -> Detections:
    """Check that detections are numbers, and suppress duplicates where that is asked for.

    Args:
        detections: Of a batch.
        nms_threshold: IoU of the class-wise suppression; None for none.

    Raises:
        MsdetrError: Scores or boxes are not finite.
    """
    _require_finite(detections)
    if nms_threshold is None:
        return detections
    return suppress_duplicates(detections, nms_threshold)


def _require_finite(detections: Detections) -> None:
    for name, values in (("scores", detections.scores), ("boxes", detections.boxes_xyxy_px)):
        wrong = values.numel() - int(torch.isfinite(values).sum())
        if wrong:
            raise MsdetrError(
                f"the detections are not finite: {wrong} of {values.numel()} numbers of their "
                f"{name} are NaN or infinite; the weights are damaged or diverged, or the model "
                "needs train.precision=fp32"
            )


def _stack(first: Predictions, second: Predictions) -> Predictions:
    return Predictions(
        torch.cat([first.logits, second.logits]),
        torch.cat([first.boxes_cxcywh, second.boxes_cxcywh]),
    )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Run layers in "fp32", "bf16" or "fp16" within the context."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)
