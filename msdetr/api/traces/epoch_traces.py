"""A match trace after every epoch of a training run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from msdetr.api.datasets import EvaluationData
from msdetr.api.traces.make_trace import ProbeSet, TraceOrigin, trace_model
from msdetr.losses import Criterion
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe

TRACES = "traces"


def trace_folder(run: Path, num_epochs: int) -> Path:
    """Return where the trace after ``num_epochs`` finished epochs of a run is kept."""
    return run / TRACES / f"epoch_{num_epochs:03d}"


class EpochTracer:
    """Traces a model in training on the same validation images every time.

    Args:
        recipe: Of the run; says how many images.
        images: Validation images.
        run: The run's directory.
        criterion: Of the run.

    Raises:
        DataError: None of the images has a target.
    """

    def __init__(
        self, recipe: Recipe, images: EvaluationData, run: Path, criterion: Criterion
    ) -> None:
        self._recipe = recipe
        self._images = images
        self._run = run
        self._criterion = criterion
        self._probe = ProbeSet(recipe.inspection.num_images)
        # A probe set that cannot be traced is rejected before training starts.
        self._probe.positions(images.dataset.index)

    def __call__(self, model: nn.Module, num_epochs: int) -> Path:
        """Trace the model and keep the trace; an older one of this epoch is replaced.

        Args:
            model: In evaluation mode.
            num_epochs: Finished epochs.

        Returns:
            The trace's directory.
        """
        assert isinstance(model, DetectionModel)
        weights = "trained" if self._recipe.train.ema is None else "averaged"
        trace = trace_model(
            model,
            self._recipe,
            self._images,
            # As it trains: the file of an assigner may have changed meanwhile.
            criterion=self._criterion,
            probe=self._probe,
            origin=TraceOrigin(f"{self._run}, epoch {num_epochs}", None, weights),
            quiet=True,
        )
        folder = trace_folder(self._run, num_epochs)
        folder.parent.mkdir(exist_ok=True)
        trace.save(folder)
        return folder
