"""Everything that one training run needs, composed from a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable

from accelerate import Accelerator
from torch import nn

from msdetr.api.checkpoints.assigner_file import assigner_info
from msdetr.api.checkpoints.loaded import checkpoint_info
from msdetr.api.datasets import TrainingData
from msdetr.api.detection.dataset_detector import DatasetDetector, merge_shares
from msdetr.api.detection.operations import OperationCounts
from msdetr.api.traces.epoch_traces import EpochTracer
from msdetr.api.training.detection_task import DetectionTask
from msdetr.build import (
    build_collator,
    build_criterion,
    build_detection_settings,
    build_epoch_plan,
    build_initial_model,
    build_loader,
    build_optimizer,
    build_schedule,
    build_train_collator,
    build_trainer_settings,
    build_weight_average,
    load_pretrained_backbone,
)
from msdetr.data.batching import Batch
from msdetr.data.sampling import EpochPlan
from msdetr.engine.costs import RunCosts
from msdetr.engine.environment import peak_memory_mib
from msdetr.engine.loop import Trainer
from msdetr.engine.processes import Processes
from msdetr.engine.reporting import logger
from msdetr.engine.run_directory import RunDirectory
from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.matching import describe_library
from msdetr.evaluation.results import write_results
from msdetr.files import replace_text
from msdetr.recipe import Recipe


class TrainingSession:
    """A recipe's model, data and plan, on one process of a run.

    Args:
        recipe: What to train and how.
        data: What it reads.
        accelerator: Device, precision and processes.
        directory: Where the run is kept.
        plan: Which images go together; made of the recipe by default.

    Raises:
        AssignerError: The file of the recipe's assigner cannot be used.
        CheckpointError: The backbone's weights cannot be had.
        DataError: Epochs are to be traced, but no image to trace has a target.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        accelerator: Accelerator,
        directory: RunDirectory,
        *,
        plan: EpochPlan | None = None,
    ) -> None:
        self.recipe = recipe
        self.data = data
        self._accelerator = accelerator
        self._processes = Processes(accelerator)
        self._directory = directory
        self.plan = plan or build_epoch_plan(recipe.train, len(data.train))
        self.model = build_initial_model(recipe, data.label_space.num_classes)
        self.criterion = build_criterion(recipe.supervision, recipe.model.query_groups)
        self.task = DetectionTask(self.criterion)
        self._collator = build_collator(recipe, self.model)
        # Copies the model before anything wraps it.
        self._operations = OperationCounts(self.model)
        on_gpu = accelerator.device.type == "cuda"
        collator = build_train_collator(recipe, self.model, data.label_space)
        self._train_loader = build_loader(recipe.data, data.train, collator, pin_memory=on_gpu)
        self._detector = self._build_detector()
        self._tracer = (
            EpochTracer(recipe, data.val, directory.path, self.criterion)
            if recipe.inspection.trace_every_epoch
            else None
        )

    def load_pretrained(self) -> None:
        """Load the backbone weights that the recipe names.

        Raises:
            CheckpointError: They cannot be had, or do not fit.
        """
        load_pretrained_backbone(self.model, self.recipe.model.backbone)

    def trainer(self) -> Trainer[Batch]:
        """Compose the training loop."""
        recipe = self.recipe.train
        trainer = Trainer(
            accelerator=self._accelerator,
            model=self.model,
            optimizer=build_optimizer(self.model, recipe),
            schedule=build_schedule(recipe, self.plan.num_steps),
            task=self.task,
            loader_for_epoch=self.batches,
            settings=build_trainer_settings(self.recipe, self.plan),
            run_directory=self._directory,
            info={
                **checkpoint_info(self.recipe, self.data.label_space),
                "data": self.data.describe(),
                **assigner_info(self.criterion),
                "overfit": self.data.overfit,
                "repeats": self.plan.repeats,
            },
            evaluate=self.evaluate,
            ema=build_weight_average(self.model, recipe),
        )
        trainer.count_flops(self._operations.of_batch)
        if self._tracer is not None:
            trainer.inspect_epochs(self._tracer)
        return trainer

    def batches(self, epoch: int, first_step: int) -> Iterable[Batch]:
        """Return this process's micro-batches of an epoch, from an optimizer step on."""
        shares = self.plan.batches(
            epoch, self._processes.rank, self._processes.num_processes, first_step=first_step
        )
        return self._train_loader.load(shares)

    def evaluate(self, model: nn.Module, costs: RunCosts) -> dict[str, float | None]:
        """Evaluate on the validation images and keep the result in the run's directory.

        Args:
            model: In evaluation mode.
            costs: Of the run so far; gets those of the evaluation.

        Returns:
            The twelve COCO numbers on the main process, nothing on others.
        """
        with costs.evaluating():
            shares = self._processes.gather(self._detector.detect(model)[0])
            if not self._processes.is_main:
                return {}
            results = merge_shares(shares)
            val = self.data.val
            logger.info("metrics computed by %s", describe_library())
            metrics = evaluate_boxes(val.ground_truth, results, image_ids=val.image_ids)
        costs.note_memory(peak_memory_mib(self._accelerator.device))
        costs.image_flops = self._operations.of_images(val.dataset, self._collator)
        folder = self._directory.evaluation
        folder.mkdir(exist_ok=True)
        content = {**metrics.to_dict(), "cost": costs.to_dict()}
        replace_text(folder / "metrics.json", json.dumps(content, indent=2) + "\n")
        write_results(folder / "predictions.json", results)
        return metrics.summary()

    def _build_detector(self) -> DatasetDetector:
        dataset = self.data.val.dataset
        return DatasetDetector(
            dataset,
            build_loader(self.recipe.data, dataset, self._collator),
            # Accelerate has wrapped the model's forward in the run's precision.
            build_detection_settings(self.recipe, self.data.label_space, is_wrapped=True),
            rank=self._processes.rank,
            num_processes=self._processes.num_processes,
        )
