"""Recipes become the objects that they describe, and every field counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.api.train import train
from msdetr.assignment import HungarianAssigner, OneToManyAssigner, RepeatedHungarianAssigner
from msdetr.build import (
    build_collator,
    build_criterion,
    build_eval_transform,
    build_model,
    build_parameter_groups,
    build_schedule,
    build_train_transform,
)
from msdetr.data import shapes
from msdetr.interop.official import from_published, published_names, to_published
from msdetr.losses import FocalLoss, Normalizer
from msdetr.model import DecoderLayer, DetectionModel, LayerOrder, OneToManySource
from msdetr.recipe import Recipe, load_recipe
from msdetr.recipe.packaged import packaged_folder
from msdetr.recipe.section import Section
from msdetr.structures import LossTerm, ModelOutput, Predictions, Proposals, Targets

FILES = sorted(packaged_folder().rglob("*.yaml"))
# Our recipe by the name of the published model.
PUBLISHED = {
    "ms_ddetr_300q": "ddetr_300q",
    "ms_ddetr_pp_300q": "ddetr_pp_300q",
    "ms_ddetr_pp_900q": "ddetr_pp_900q",
    "ms_ddetr_300q_arch_a": "ddetr_300q_arch_a",
    "ddetr_300q": "baseline_ddetr_300q",
}
COCO_CLASSES = 91


def build_on_meta(recipe: Recipe, num_classes: int = COCO_CLASSES) -> DetectionModel:
    with torch.device("meta"):
        return build_model(recipe.model, num_classes)


def test_there_are_recipes() -> None:
    assert len(FILES) >= 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_builds(path: Path) -> None:
    recipe = load_recipe(path)
    model = build_on_meta(recipe)
    assert len(model.decoder.layers) == recipe.model.decoder_layers
    groups = build_parameter_groups(model, recipe.train)
    assert next(iter(groups)) == "base"
    assert sum(len(group.parameters) for group in groups.values()) == sum(
        p.requires_grad for p in model.parameters()
    )
    build_criterion(recipe.supervision, recipe.model.query_groups)
    build_schedule(recipe.train, steps_per_epoch=10)
    build_train_transform(recipe.data)
    build_eval_transform(recipe.data)
    build_collator(recipe, model)


@pytest.fixture(scope="module", params=PUBLISHED)
def published(golden_dir: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    manifest = json.loads((golden_dir / "official_manifest.json").read_text())
    assert set(manifest) == set(PUBLISHED)
    return {**manifest[request.param], "recipe": load_recipe(PUBLISHED[request.param])}


@pytest.fixture(scope="module")
def model(published: dict[str, Any]) -> DetectionModel:
    return build_on_meta(published["recipe"])


@pytest.mark.golden
class TestPublishedModels:
    def test_every_published_tensor_is_taken(
        self, published: dict[str, Any], model: DetectionModel
    ) -> None:
        shapes_of = published["state_dict"]
        ours = to_published(model.state_dict())
        assert {name: list(tensor.shape) for name, tensor in ours.items()} == shapes_of
        zeros = {name: torch.zeros(()).expand(shape) for name, shape in shapes_of.items()}
        taken = from_published(zeros, model.state_dict(), "manifest")
        assert set(taken) == set(model.state_dict())

    def test_parameter_counts(self, published: dict[str, Any], model: DetectionModel) -> None:
        parameters = list(model.parameters())
        assert sum(p.numel() for p in parameters) == published["total"]
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        assert trainable == published["trainable"]

    def test_parameter_groups_and_rates(
        self, published: dict[str, Any], model: DetectionModel
    ) -> None:
        groups = build_parameter_groups(model, published["recipe"].train)
        assert {name: group.lr for name, group in groups.items()} == pytest.approx(
            {"base": 2e-4, "backbone": 2e-5, "linear_projection": 2e-5}
        )
        group_of = {id(p): name for name, group in groups.items() for p in group.parameters}
        aliases = published_names(model.state_dict())
        found = {}
        for name, parameter in model.named_parameters():
            (alias,) = [a for a in aliases[name] if a in published["parameter_groups"]]
            found[alias] = group_of.get(id(parameter), "frozen")
        assert found == published["parameter_groups"]

    def test_loss_weights(self, published: dict[str, Any]) -> None:
        recipe = published["recipe"]
        terms = loss_terms(recipe)
        assert {published_name(t, recipe.model.decoder_layers): t.weight for t in terms} == (
            published["loss_weights"]
        )
        assert len(terms) == len(published["loss_weights"])


def loss_terms(recipe: Recipe) -> list[LossTerm]:
    """Loss terms of random predictions of a recipe's model."""
    generator = torch.Generator().manual_seed(0)
    layers = recipe.model.decoder_layers
    many = recipe.supervision.one_to_many is not None

    def boxes(*shape: int) -> Tensor:
        return torch.rand(*shape, 4, generator=generator) * 0.4 + 0.2

    def predictions(num_classes: int) -> Predictions:
        logits = torch.randn(layers, 1, 8, num_classes, generator=generator)
        return Predictions(logits, boxes(layers, 1, 8))

    output = ModelOutput(
        one_to_one=predictions(3),
        one_to_many=predictions(3) if many else None,
        proposals=Proposals(torch.randn(1, 30, 3, generator=generator), boxes(1, 30), boxes(1, 30))
        if recipe.model.two_stage
        else None,
    )
    targets = Targets.from_lists([boxes(2)], [torch.tensor([0, 2])])
    criterion = build_criterion(recipe.supervision)
    return criterion(output, targets, num_targets=2.0, u=torch.rand(layers, 1, 8))


def published_name(term: LossTerm, num_layers: int) -> str:
    stem = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}[term.name]
    if term.branch == "proposals":
        return f"{stem}_enc"
    layer = "" if term.layer == num_layers - 1 else f"_{term.layer}"
    return stem + layer + ("_o2m" if term.branch == "one_to_many" else "")


SELF, CROSS = LayerOrder.SELF_ATTENTION_FIRST, LayerOrder.CROSS_ATTENTION_FIRST


@pytest.mark.parametrize(
    ("recipe", "order", "source", "extra_ffn"),
    [
        ("baseline_ddetr_300q", SELF, OneToManySource.NONE, False),
        ("ddetr_300q_arch_a", SELF, OneToManySource.LAYER_OUTPUT, False),
        ("ddetr_300q_arch_b", CROSS, OneToManySource.LAYER_OUTPUT, False),
        ("ddetr_300q_arch_c", CROSS, OneToManySource.FIRST_ATTENTION, False),
        ("ddetr_300q_arch_d", SELF, OneToManySource.FIRST_ATTENTION, False),
        ("ddetr_300q", CROSS, OneToManySource.FIRST_ATTENTION, True),
    ],
)
def test_placement(
    recipe: str, order: LayerOrder, source: OneToManySource, extra_ffn: bool
) -> None:
    for layer in build_on_meta(load_recipe(recipe)).decoder.layers:
        assert isinstance(layer, DecoderLayer)
        assert (layer.order, layer.one_to_many) == (order, source)
        assert (layer.extra_ffn is not None) is extra_ffn


def test_supervision_gets_the_numbers_of_the_recipe() -> None:
    numbers = {
        "one_to_one": "{cost: {class_weight: 1.5, l1_weight: 2.5, giou_weight: 3.5}}",
        "one_to_many": "{k: 3, threshold: 0.35, iou_weight: 0.6, max_positive_fraction: 0.5}",
        "proposals": "{cost: {class_weight: 0.5, l1_weight: 4.5, giou_weight: 5.5}}",
        "focal": "{alpha: 0.3, gamma: 1.5}",
    }
    overrides = [f"supervision.{key}={value}" for key, value in numbers.items()]
    criterion = build_criterion(load_recipe("ddetr_300q", overrides).supervision)
    rules = criterion.supervision
    assert rules.one_to_many is not None
    assert rules.proposals is not None
    assert rules.one_to_one.assigner == HungarianAssigner(1.5, 2.5, 3.5, 0.3, 1.5)
    assert rules.one_to_many.assigner == OneToManyAssigner(
        k=3, threshold=0.35, iou_weight=0.6, class_weight=0.4, max_positive_fraction=0.5
    )
    assert rules.proposals.assigner == HungarianAssigner(0.5, 4.5, 5.5, 0.3, 1.5)
    assert criterion.class_loss == FocalLoss(0.3, 1.5)


ONE, MANY, HYBRID, DENOISING = (1, 5, 2), (2, 5, 2), (2, 5, 2), (1, 5, 2)
Weights = tuple[float, float, float]


def divided(weights: Weights, number: int) -> Weights:
    first, second, third = weights
    return first / number, second / number, third / number


def weights_of(recipe: Recipe) -> dict[str, Weights]:
    """Weights of all branches that a recipe supervises, one layer's."""
    supervision = build_criterion(recipe.supervision, recipe.model.query_groups).supervision
    parts = {"one_to_one": "", "one_to_many": "_one_to_many", "proposals": "_proposals"}
    rules = {part: getattr(supervision, part) for part in parts}
    for name, group in supervision.groups.items():
        rules |= {f"{name}{suffix}": getattr(group, part) for part, suffix in parts.items()}
    rules["denoising"] = supervision.denoising
    return {
        name: (rule.weights.class_weight, rule.weights.box_weight, rule.weights.giou_weight)
        for name, rule in rules.items()
        if rule is not None
    }


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("hybrid_ddetr_pp_300q", (), {"one_to_one": MANY, "hybrid": HYBRID}),
        (
            "ms_hybrid_ddetr_pp_300q",
            ("supervision.hybrid.scale=0.5",),
            {"one_to_one": ONE, "one_to_many": MANY, "hybrid": divided(HYBRID, 2)},
        ),
        (
            "group_ddetr_pp_300q",
            ("model.query_groups.group.groups=3",),
            {
                "one_to_one": divided(MANY, 3),
                "proposals": divided(MANY, 3),
                **{
                    f"group_{g}{kind}": divided(MANY, 3)
                    for g in (1, 2)
                    for kind in ("", "_proposals")
                },
            },
        ),
        (
            "ms_group_ddetr_pp_300q",
            ("model.query_groups.group.groups=3",),
            {
                "one_to_one": ONE,
                "one_to_many": MANY,
                **{f"group_{g}": divided(ONE, 2) for g in (1, 2)},
                **{f"group_{g}_proposals": divided(MANY, 2) for g in (1, 2)},
            },
        ),
        (
            "ms_group_ddetr_pp_300q",
            ("model.query_groups.group.groups=3", "supervision.group.one_to_many=matched"),
            {
                "one_to_one": divided(ONE, 3),
                "one_to_many": divided(MANY, 3),
                "proposals": divided(MANY, 3),
                **{f"group_{g}": divided(ONE, 3) for g in (1, 2)},
                **{f"group_{g}_one_to_many": divided(MANY, 3) for g in (1, 2)},
                **{f"group_{g}_proposals": divided(MANY, 3) for g in (1, 2)},
            },
        ),
        ("dn_ddetr_pp_300q", (), {"one_to_one": MANY, "denoising": DENOISING}),
        (
            "ms_cdn_ddetr_pp_900q",
            ("supervision.denoising.scale=0.5",),
            {"one_to_one": ONE, "one_to_many": MANY, "denoising": divided(DENOISING, 2)},
        ),
        (
            "ms_hybrid_cdn_ddetr_pp_300q",
            (),
            {"one_to_one": ONE, "one_to_many": MANY, "hybrid": HYBRID, "denoising": DENOISING},
        ),
    ],
)
def test_weights_of_query_groups(
    recipe: str, overrides: Sequence[str], expected: dict[str, Weights]
) -> None:
    whole = {"proposals": MANY, **expected}
    found = weights_of(load_recipe(recipe, overrides))
    assert found == {name: pytest.approx(weights) for name, weights in whole.items()}


def test_padding_and_normalizers_of_query_groups() -> None:
    for name, padding in {
        "ms_dn_ddetr_pp_300q": "ignore",
        "cdn_ddetr_pp_900q": "background",
    }.items():
        denoising = build_criterion(load_recipe(name).supervision).supervision.denoising
        assert denoising is not None
        assert denoising.padding == padding
    recipe = load_recipe("hybrid_ddetr_pp_300q", ["supervision.hybrid.copies=4"])
    supervision = build_criterion(recipe.supervision, recipe.model.query_groups).supervision
    hybrid = supervision.groups["hybrid"].one_to_one
    assert hybrid.normalizer == Normalizer(copies=4)
    assert isinstance(hybrid.assigner, RepeatedHungarianAssigner)
    assert (hybrid.assigner.copies, hybrid.assigner.class_weight) == (4, 2)
    assert supervision.proposals is not None
    assert supervision.proposals.match_on == "predictions"
    assert supervision.proposals.assigner.class_weight == 2  # type: ignore[attr-defined]


def test_other_weights_start_as_without_query_groups() -> None:
    def state(name: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        tiny = ("model.width=32", "model.heads=2", "model.backbone.stem_width=8")
        weights: dict[str, Tensor] = build_model(load_recipe(name, tiny).model, 3).state_dict()
        return weights

    variants = ("hybrid", "group", "dn", "cdn")
    for plain, prefix in {"shapes_tiny_baseline": "", "shapes_tiny": "ms_"}.items():
        alone = state(plain)
        for kind in variants:
            found = state(f"shapes_tiny_{prefix}{kind}")
            assert found.keys() > alone.keys()
            assert all(torch.equal(found[name], value) for name, value in alone.items())


class ReadFields:
    """Dotted keys of the recipe fields that were read; counts fields of known recipes only."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._key_of: dict[int, str] = {}
        self._recipes: list[Recipe] = []

    def watch(self, recipe: Recipe) -> None:
        """Count the fields of a recipe; it is kept alive, so that ids stay its own."""
        self._recipes.append(recipe)
        self._add(recipe, "")

    def note(self, section: Section, name: str) -> None:
        """Count an attribute if it is a field of a watched section."""
        prefix = self._key_of.get(id(section))
        if prefix is not None and name in type(section).model_fields:
            self.keys.add(prefix + name)

    def _add(self, section: Section, prefix: str) -> None:
        self._key_of[id(section)] = prefix
        for name, value in vars(section).items():
            if isinstance(value, Section):
                self._add(value, f"{prefix}{name}.")


@pytest.fixture
def read_fields(monkeypatch: pytest.MonkeyPatch) -> ReadFields:
    """Notes which fields are read."""
    found = ReadFields()
    look_up = Section.__getattribute__

    def noted(self: Section, name: str) -> Any:
        found.note(self, name)
        return look_up(self, name)

    monkeypatch.setattr(Section, "__getattribute__", noted)
    return found


def keys_of(section: Section, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all leaf fields that a section has."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name


SMALLER = {
    "model.num_queries": 10,
    "data.augmentation.train_sizes": [64],
    "data.augmentation.max_size": 96,
    "data.augmentation.crop_probability": 1,
    "data.eval_max_size": 96,
    "train.batch_size": 2,
    "train.images_per_forward": 1,
    "train.epochs": 1,
}
SMALL_SHAPES = "data.shapes={num_train: 2, num_val: 1}"
# Branches of the composition that no single recipe takes together.
VARIANTS: dict[str, tuple[str, Sequence[str]]] = {
    "shapes": (
        "shapes_tiny",
        (SMALL_SHAPES, "train.ema={decay: 0.9}", "inspection.trace_every_epoch=true"),
    ),
    "cosine": ("shapes_tiny_baseline", (SMALL_SHAPES, "train.schedule=cosine")),
    "coco": ("shapes_tiny", ("data.source=coco", "data.root=ROOT", "train.precision=bf16")),
    "repeated_hungarian": (
        "shapes_tiny",
        (SMALL_SHAPES, "supervision.one_to_many.assigner.type=repeated_hungarian"),
    ),
    "task_aligned": (
        "shapes_tiny",
        (SMALL_SHAPES, "supervision.one_to_many.assigner={type: task_aligned, k: 5}"),
    ),
    "one_stage": (
        "shapes_tiny",
        (
            SMALL_SHAPES,
            *("model.two_stage=false", "model.mixed_query_selection=false"),
            "supervision.proposals=null",
        ),
    ),
    "hybrid": ("shapes_tiny_ms_hybrid", (SMALL_SHAPES,)),
    "group": ("shapes_tiny_ms_group", (SMALL_SHAPES,)),
    "denoising": ("shapes_tiny_ms_cdn", (SMALL_SHAPES,)),
    "timm": (
        "shapes_tiny",
        (
            SMALL_SHAPES,
            "model.backbone={name: timm/mobilenetv3_small_050, weights: none, norm: batch,"
            " stem_width: null}",
        ),
    ),
    "suppressor": ("shapes_tiny_mds", (SMALL_SHAPES,)),
}


@pytest.mark.slow
def test_no_field_is_dead(
    read_fields: ReadFields,
    tiny_fields: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = shapes.ensure(tmp_path / "shapes", 2, 1)
    monkeypatch.setattr(shapes, "default_folder", lambda *_: root)
    every_key: set[str] = set()
    for name, (base, overrides) in VARIANTS.items():
        texts = [text.replace("ROOT", str(root)) for text in overrides]
        recipe = load_recipe(base, [*tiny_fields(SMALLER), *texts])
        every_key |= set(keys_of(recipe))
        read_fields.watch(recipe)
        train(recipe, output=tmp_path / "runs" / name, device="cpu")
    assert len(every_key) > 80
    assert sorted(every_key - read_fields.keys - {"description"}) == []


def test_dead_field_would_be_found(read_fields: ReadFields) -> None:
    recipe = load_recipe("ddetr_300q")
    read_fields.watch(recipe)
    build_criterion(recipe.supervision)
    assert "supervision.one_to_many.k" in read_fields.keys
    assert "supervision.one_to_one.loss.box_weight" in read_fields.keys
    assert not [key for key in read_fields.keys if key.startswith(("model", "train"))]
