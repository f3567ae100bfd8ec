"""Detections of a loaded checkpoint on a data set, by all processes together."""

from __future__ import annotations

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.datasets import EvaluationData
from msdetr.api.detection.dataset_detector import (
    BranchResults,
    DatasetDetector,
    Results,
    merge_layers,
)
from msdetr.build import build_loader
from msdetr.engine.processes import Processes, create_accelerator


def detect_layers(
    loaded: LoadedCheckpoint, images: EvaluationData, *, device: str, every_layer: bool = False
) -> list[Results] | None:
    """Detect with the last decoder layer, or with every one.

    Args:
        loaded: The model; moved to the device.
        images: What to look at.
        device: "auto", "cpu", "cuda" or "cuda:N".
        every_layer: Detect with every layer, from the first to the last.

    Returns:
        COCO results by layer; None on all processes but the main one.
    """
    processes, detector = _prepare(loaded, images, device)
    shares = processes.gather(detector.detect(loaded.model, every_layer=every_layer))
    return merge_layers(shares) if processes.is_main else None


def detect_branches(
    loaded: LoadedCheckpoint, images: EvaluationData, *, device: str
) -> BranchResults | None:
    """Detect with every decoder layer of both branches.

    Args:
        loaded: The model; moved to the device.
        images: What to look at.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        COCO results by layer, of "one_to_one" and, if the model has the branch, of
        "one_to_many"; None on all processes but the main one.
    """
    processes, detector = _prepare(loaded, images, device)
    shares = processes.gather(detector.detect_branches(loaded.model))
    if not processes.is_main:
        return None
    # The main process has images where any has.
    return {name: merge_layers([share.get(name, []) for share in shares]) for name in shares[0]}


def _prepare(
    loaded: LoadedCheckpoint, images: EvaluationData, device: str
) -> tuple[Processes, DatasetDetector]:
    accelerator = create_accelerator(device=device)
    processes = Processes(accelerator)
    detector = DatasetDetector(
        images.dataset,
        build_loader(loaded.recipe.data, images.dataset, loaded.collator),
        loaded.detection_settings,
        rank=processes.rank,
        num_processes=processes.num_processes,
    )
    loaded.model.to(accelerator.device)
    return processes, detector
