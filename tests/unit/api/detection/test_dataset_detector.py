"""Detections of both branches, with suppression and without, and shares of several processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from msdetr.api.detection.dataset_detector import (
    DatasetDetector,
    Results,
    make_detections,
    merge_layers,
)
from msdetr.build import (
    build_collator,
    build_detection_settings,
    build_eval_dataset,
    build_loader,
    build_model,
)
from msdetr.data import shapes
from msdetr.data.coco_index import read_coco
from msdetr.data.labels import LabelSpace
from msdetr.evaluation.nms_sweep import suppress_results
from msdetr.evaluation.results import detections_to_results
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe

Load = Callable[..., Recipe]
Scene = Callable[..., tuple[DatasetDetector, DetectionModel]]
SIZES = ("data.eval_size=64", "data.eval_max_size=96", "evaluation.batch_size=2")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, small_recipe: Load) -> Scene:
    """Make a detector of five images, and a model with random weights, of a recipe."""
    root = shapes.ensure(tmp_path_factory.mktemp("shapes") / "root", 1, 5)
    index = read_coco(root / "val2017", root / "annotations/instances_val2017.json")
    space = LabelSpace.contiguous(index.categories)

    def make(*overrides: str, rank: int = 0, of: int = 1) -> tuple[DatasetDetector, DetectionModel]:
        recipe = small_recipe("shapes_tiny", *SIZES, *overrides)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_model(recipe.model, space.num_classes).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        dataset = build_eval_dataset(recipe, index, space)
        detector = DatasetDetector(
            dataset,
            build_loader(recipe.data, dataset, build_collator(recipe, model)),
            build_detection_settings(recipe, space),
            rank=rank,
            num_processes=of,
        )
        return detector, model

    return make


def of_last_layer(detector: DatasetDetector, model: DetectionModel) -> Results:
    """What the one-to-many branch's last layer detects, from the model's output itself."""
    found: Results = []
    for start in (0, 2, 4):
        positions = [(0, position) for position in range(start, min(start + 2, 5))]
        (batch,) = detector._loader.load([positions])
        with torch.inference_mode():
            output = model(batch.images, with_one_to_many=True)
        assert output.one_to_many is not None
        made = make_detections(output.one_to_many, -1, batch.original_hw, detector.settings)
        ids = batch.targets.image_ids.tolist()
        found += detections_to_results(made, ids, detector.settings.category_id_of_label)
    return found


@pytest.mark.parametrize("placement", ["a", "b", "c", "d"])
def test_both_branches_in_one_pass(scene: Scene, placement: str) -> None:
    extra = f"model.extra_ffn={str(placement in 'cd').lower()}"
    detector, model = scene(f"model.placement={placement}", extra)
    branches = detector.detect_branches(model)
    assert list(branches) == ["one_to_one", "one_to_many"]
    assert branches["one_to_one"] == detector.detect(model, every_layer=True)
    assert branches["one_to_one"][-1:] == detector.detect(model)
    assert branches["one_to_many"][-1] == of_last_layer(detector, model)
    assert branches["one_to_many"][-1] != branches["one_to_one"][-1]
    assert [len(layer) for layer in branches["one_to_many"]] == [25, 25]


def test_model_without_the_branch_has_one(scene: Scene) -> None:
    fields = ("supervision.one_to_many=null", "model.placement=baseline", "model.extra_ffn=false")
    detector, model = scene(*fields)
    assert list(detector.detect_branches(model)) == ["one_to_one"]


def test_what_is_suppressed_is_gone(scene: Scene) -> None:
    detector, model = scene("model.num_queries=40", "evaluation.detections_per_image=90")
    (everything,) = detector.detect(model)
    detector.settings = replace(detector.settings, nms_threshold=0.01)
    (kept,) = detector.detect(model)
    assert kept == suppress_results(everything, 0.01)
    assert 0 < len(kept) < len(everything)


def test_shares_are_merged_layer_by_layer(scene: Scene) -> None:
    detector, model = scene()
    whole = detector.detect_branches(model)
    # The fourth process of four has no images.
    shares = [scene(rank=rank, of=4)[0].detect_branches(model) for rank in range(4)]
    assert shares[-1] == {}
    for name, layers in whole.items():
        assert merge_layers([share.get(name, []) for share in shares]) == layers
