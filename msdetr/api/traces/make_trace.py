"""Make match traces: of a checkpoint, of an untrained model, of a model in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from msdetr.api.checkpoints.assigner_file import check_same_assigner
from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.checkpoints.official import open_checkpoint
from msdetr.api.datasets import EvaluationData, find_index, load_evaluation_data
from msdetr.api.detection.dataset_detector import autocast
from msdetr.api.progress import show_progress
from msdetr.api.traces.group_traces import GroupTracer
from msdetr.api.traces.suppression_traces import SuppressionTracer
from msdetr.assignment import HungarianAssigner, OneToManyAssigner
from msdetr.build import (
    build_collator,
    build_criterion,
    build_initial_model,
    build_label_space,
    build_loader,
)
from msdetr.data.batching import Batch
from msdetr.data.coco_index import CocoIndex
from msdetr.data.sampling import eval_batches
from msdetr.engine.checkpoint import EMA_FILE, MODEL_FILE, has_averaged_weights
from msdetr.engine.device import resolve_device
from msdetr.errors import AssignerError, DataError, Problem, UsageError
from msdetr.files import digest_file
from msdetr.inspection.recording import RecordedImage, Recorder
from msdetr.inspection.rematch import check_assigner
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import BRANCHES, MatchTrace, TracedImage, TraceInfo
from msdetr.losses import BranchRule, Criterion
from msdetr.model import DetectionModel
from msdetr.recipe import OneToManyRecipe, Recipe, load_recipe, recipe_to_dict
from msdetr.seeding import seeded_generator
from msdetr.structures import Assigner, ModelOutput

DEFAULT_NUM_IMAGES = 200


@dataclass(frozen=True)
class ProbeSet:
    """Which images are traced.

    Attributes:
        num_images: The first so many by id.
        image_ids: These instead, if not empty.
    """

    num_images: int = DEFAULT_NUM_IMAGES
    image_ids: tuple[int, ...] = ()

    def positions(self, index: CocoIndex) -> list[int]:
        """Return the positions of the images in an index, ascending.

        Raises:
            UsageError: An id is not in the index.
            DataError: None of the images has a target.
        """
        known = {image_id: i for i, image_id in enumerate(index.image_ids.tolist())}
        missing = [str(image_id) for image_id in self.image_ids if image_id not in known]
        if missing:
            raise UsageError(
                "`image_ids`",
                f"{', '.join(missing[:5])}: not among the {len(index)} images of "
                f"{index.annotations_file}",
            )
        chosen = sorted({known[i] for i in self.image_ids}) or list(range(len(index)))
        chosen = chosen if self.image_ids else chosen[: self.num_images]
        if all(index.first_target[i] == index.first_target[i + 1] for i in chosen):
            raise DataError(
                str(index.annotations_file),
                f"none of the {len(chosen)} images to trace has a target; there is nothing to "
                "assign",
            )
        return chosen


@dataclass(frozen=True)
class TraceOrigin:
    """Where the weights of a traced model come from; see ``TraceInfo``."""

    source: str
    source_sha256: str | None
    weights: str


def trace_checkpoint(
    checkpoint: Path,
    *,
    recipe: str | None = None,
    data: str | None = None,
    probe: ProbeSet = ProbeSet(),
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> MatchTrace:
    """Trace a checkpoint on the validation images, in evaluation mode.

    Args:
        checkpoint: Checkpoint or run directory; averaged weights where the run kept them. Or a
            published ``.pth`` file.
        recipe: Name or path of a published file's recipe.
        data: A root in COCO's layout, or "IMAGES,ANNOTATIONS.json"; the recipe's validation
            split by default.
        probe: Which images.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overrides: Recipe fields to change, ``key=value``.

    Raises:
        InvalidInputError: Checkpoint, data or images cannot be used as asked.
    """
    loaded = open_checkpoint(checkpoint, recipe=recipe, overrides=overrides, with_extra_groups=True)
    images = load_evaluation_data(loaded.recipe, loaded.label_space, data)
    criterion = build_criterion(loaded.recipe.supervision, loaded.recipe.model.query_groups)
    check_same_assigner(loaded.info, criterion, str(loaded.path))
    model = loaded.model.to(resolve_device(device))
    return trace_model(
        model,
        loaded.recipe,
        images,
        probe=probe,
        origin=origin_of(loaded),
        criterion=criterion,
    )


def origin_of(loaded: LoadedCheckpoint) -> TraceOrigin:
    """Say where the weights of a loaded checkpoint come from."""
    if loaded.path.is_file():
        return TraceOrigin(str(loaded.path), digest_file(loaded.path), "trained")
    averaged = has_averaged_weights(loaded.path)
    weights = loaded.path / (EMA_FILE if averaged else MODEL_FILE)
    return TraceOrigin(
        str(loaded.path), digest_file(weights), "averaged" if averaged else "trained"
    )


def trace_untrained(
    recipe_name: str,
    *,
    data: str | None = None,
    probe: ProbeSet = ProbeSet(),
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> MatchTrace:
    """Trace a model with random weights, of the recipe's seed; nothing is downloaded.

    Args:
        recipe_name: Path of a recipe, or name of a packaged one.
        data: As for :func:`trace_checkpoint`.
        probe: Which images.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overrides: Recipe fields to change, ``key=value``.

    Raises:
        InvalidInputError: Recipe, data or images cannot be used as asked.
    """
    recipe = load_recipe(recipe_name, overrides)
    # A model that has not been trained knows the classes of the images to trace.
    label_space = build_label_space(recipe.data, find_index(recipe.data, data))
    images = load_evaluation_data(recipe, label_space, data)
    with torch.random.fork_rng(devices=[]):
        model = build_initial_model(recipe, label_space.num_classes).eval()
    origin = TraceOrigin(f"from scratch: {recipe_name}", None, "untrained")
    model.to(resolve_device(device))
    return trace_model(model, recipe, images, probe=probe, origin=origin)


def trace_model(
    model: DetectionModel,
    recipe: Recipe,
    images: EvaluationData,
    *,
    probe: ProbeSet = ProbeSet(),
    origin: TraceOrigin,
    criterion: Criterion | None = None,
    quiet: bool = False,
) -> MatchTrace:
    """Trace a model in evaluation mode; draws nothing from global random generators.

    Args:
        model: On the device to work on.
        recipe: Of the model.
        images: With the model's label space.
        probe: Which of the images.
        origin: Where the weights come from.
        criterion: Of the model; made from the recipe by default.
        quiet: Show no progress.

    Raises:
        InvalidInputError: The images cannot be used as asked, or k exceeds the queries.
    """
    complete = _both_branches(recipe, criterion)
    recorder = Recorder(complete)
    if isinstance(recorder.one_to_many, OneToManyAssigner):
        check_assigner(recorder.one_to_many, recipe.model.num_queries)
    groups = GroupTracer(model, recipe, images.dataset.label_space, complete)
    tracer = _Tracer(model, recipe, images, recorder, groups)
    positions = probe.positions(images.dataset.index)
    traced = tuple(tracer.trace(positions, quiet=quiet))
    rule = _stored(recipe, recorder.one_to_many, traced)
    return MatchTrace(_info(recipe, images, complete, rule, origin), traced)


class _Tracer:
    """Runs a model over images of a data set and records what is assigned."""

    def __init__(
        self,
        model: DetectionModel,
        recipe: Recipe,
        images: EvaluationData,
        recorder: Recorder,
        groups: GroupTracer,
    ) -> None:
        self._model = model
        self._recipe = recipe
        self._index = images.dataset.index
        self._recorder = recorder
        self._groups = groups
        self._suppressor = SuppressionTracer(model)
        collator = build_collator(recipe, model)
        self._loader = build_loader(recipe.data, images.dataset, collator)
        self._areas = {a["id"]: a["area"] for a in images.ground_truth["annotations"]}

    @torch.inference_mode()
    def trace(self, positions: Sequence[int], *, quiet: bool) -> Iterator[TracedImage]:
        device = next(self._model.parameters()).device
        batches = list(eval_batches(positions, self._recipe.evaluation.batch_size))
        loaded = show_progress(self._loader.load(batches), len(batches), "tracing", quiet=quiet)
        for keys, on_host in zip(batches, loaded, strict=True):
            batch = on_host.to(device)
            with autocast(device, self._recipe.train.precision), self._suppressor.listening():
                output: ModelOutput = self._model(batch.images, with_one_to_many=True)
            groups = self._groups.trace(batch, on_host.targets.image_ids.tolist())
            for row, (_, position) in enumerate(keys):
                recorded = self._record(output, batch, row)
                traced = self._traced(position, on_host, row, recorded)
                found = self._suppressor.find(row, recorded, traced.boxes_cxcywh)
                yield replace(traced, groups=groups[row], suppressions=found)

    def _record(self, output: ModelOutput, batch: Batch, row: int) -> RecordedImage:
        num_queries = output.one_to_one.logits.shape[2]
        image_id = int(batch.targets.image_ids[row])
        generator = seeded_generator("trace_cap", self._recipe.train.seed, image_id)
        u = torch.rand(output.num_layers, num_queries, generator=generator)
        return self._recorder.record(
            output, batch.targets, row, u.to(output.one_to_one.logits.device)
        )

    def _traced(
        self, position: int, batch: Batch, row: int, recorded: RecordedImage
    ) -> TracedImage:
        targets, index = batch.targets, self._index
        num_targets = int(targets.counts[row])
        annotation_ids = index.annotation_ids[index.targets_of(position)].tolist()
        height, width = batch.original_hw[row].tolist()
        return TracedImage(
            image_id=int(index.image_ids[position]),
            file_name=str(index.file_names[position]),
            path=str(index.path_of(position).absolute()),
            original_hw=(height, width),
            boxes_cxcywh=targets.boxes_cxcywh[row, :num_targets].clone(),
            labels=targets.labels[row, :num_targets].clone(),
            annotation_ids=torch.tensor(annotation_ids, dtype=torch.int64),
            areas_px=torch.tensor([self._areas[i] for i in annotation_ids], dtype=torch.float32),
            **vars(recorded),
        )


def _both_branches(recipe: Recipe, criterion: Criterion | None) -> Criterion:
    """Return the criterion; a baseline gets the default one-to-many rule beside its own."""
    supervision = recipe.supervision
    if supervision.one_to_many is None:
        supervision = supervision.model_copy(update={"one_to_many": OneToManyRecipe()})
        return build_criterion(supervision, recipe.model.query_groups)
    return criterion or build_criterion(supervision, recipe.model.query_groups)


def _stored(
    recipe: Recipe, assigner: Assigner, images: Sequence[TracedImage]
) -> OneToManyAssigner | StoredScheme:
    """Return what the trace keeps of the one-to-many assigner."""
    if isinstance(assigner, OneToManyAssigner):
        return assigner
    section = recipe_to_dict(recipe)["supervision"]["one_to_many"]["assigner"]
    schemes = [
        StoredScheme.of(section, assigner.describe(), image.explanation)
        for image in images
        if image.explanation is not None
    ]
    if any(scheme != schemes[0] for scheme in schemes):
        problem = "gives images other columns, causes or reasons than the first one"
        raise AssignerError(assigner.describe(), [Problem("explain", problem)])
    return schemes[0]


def _info(
    recipe: Recipe,
    images: EvaluationData,
    criterion: Criterion,
    one_to_many: OneToManyAssigner | StoredScheme,
    origin: TraceOrigin,
) -> TraceInfo:
    labels, file = images.dataset.label_space, images.dataset.index.annotations_file
    supervision = criterion.supervision
    one_to_one = supervision.one_to_one.assigner
    assert isinstance(one_to_one, HungarianAssigner)
    return TraceInfo(
        source=origin.source,
        source_sha256=origin.source_sha256,
        weights=origin.weights,
        recipe=recipe_to_dict(recipe),
        annotations_file=str(file.absolute()),
        annotations_sha256=digest_file(file),
        category_names=labels.names_by_label,
        category_ids=labels.category_id_by_label,
        one_to_one=one_to_one,
        one_to_many=one_to_many,
        loss_weights={name: _loss_weights(getattr(supervision, name)) for name in BRANCHES},
        has_one_to_many=recipe.supervision.one_to_many is not None,
        shares_class_head=recipe.model.placement in {"c", "d"},
        num_layers=recipe.model.decoder_layers,
        num_queries=recipe.model.num_queries,
    )


def _loss_weights(rule: BranchRule) -> tuple[float, float, float]:
    weights = rule.weights
    return weights.class_weight, weights.box_weight, weights.giou_weight
