"""Models with query groups on the command line: inference knows nothing of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from msdetr import Detector
from msdetr.api.checkpoints.loaded import checkpoint_info, load_checkpoint
from msdetr.api.traces.make_trace import trace_checkpoint
from msdetr.build import build_model
from msdetr.data.labels import Category, LabelSpace
from msdetr.engine.checkpoint import read_weights, save_checkpoint
from msdetr.engine.weights import unique_state
from msdetr.errors import CheckpointError
from msdetr.inspection.query_groups import TracedGroups
from msdetr.interop.official import to_published
from msdetr.interop.published_file import read_published_file
from msdetr.recipe import load_recipe, recipe_from_dict, recipe_to_dict

Msdetr = Callable[..., Any]
Train = Callable[..., Any]

HYBRID = {
    "model.query_groups.hybrid": "{queries: 30}",
    "supervision.hybrid": "{copies: 2}",
}
DENOISING = {
    "model.query_groups.denoising": "{budget: 10}",
    "supervision.denoising": "{scale: 1}",
}
GROUPS = {
    "model.query_groups.group": "{groups: 3}",
    "supervision.group": "{one_to_many: matched}",
}
VARIANTS = {"hybrid and denoising": {**HYBRID, **DENOISING}, "groups": GROUPS}


def words(values: dict[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module", params=VARIANTS)
def variant_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, train: Train
) -> Path:
    """A finished training with query groups."""
    folder = tmp_path_factory.mktemp("runs") / "variant"
    more = {"train.epochs": 1, "inspection.trace_every_epoch": "true"}
    done = train(folder, *words({**VARIANTS[request.param], **more}))
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def plain(variant_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the model without the groups, with the same weights."""
    loaded = load_checkpoint(variant_run)
    values = recipe_to_dict(loaded.recipe)
    for section in (values["model"]["query_groups"], values["supervision"]):
        section.update(dict.fromkeys(("hybrid", "group", "denoising")))
    info = checkpoint_info(recipe_from_dict(values, "plain"), loaded.label_space)
    folder = tmp_path_factory.mktemp("plain") / "checkpoint"
    save_checkpoint(folder, info=info, model=unique_state(loaded.model))
    return folder


def test_training_keeps_the_weights_of_the_groups(variant_run: Path) -> None:
    last = read_weights(variant_run / "checkpoints/last")
    assert any(name.startswith("training_groups.") for name in last)


def test_terms_of_every_group_are_in_the_metrics(
    variant_run: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    groups = load_checkpoint(variant_run).recipe.model.query_groups
    expected = {"one_to_one", "one_to_many", "proposals"}
    if groups.hybrid is not None:
        expected |= {"hybrid", "denoising"}
    else:
        kinds = ("", "_one_to_many", "_proposals")
        expected |= {f"group_{number}{kind}" for number in (1, 2) for kind in kinds}
    for row in rows_of(variant_run):
        assert {name.split("/")[0] for name in row["terms"]} == expected


def test_eval_equals_that_of_the_plain_model(
    variant_run: Path, plain: Path, tmp_path: Path, msdetr: Msdetr
) -> None:
    found = {}
    for name, source in {"variant": variant_run, "plain": plain}.items():
        output = tmp_path / name
        done = msdetr("eval", "--ckpt", source, "--device", "cpu", "--output", output)
        assert done.code == 0, done.err
        found[name] = json.loads((output / "predictions.json").read_text())
    assert found["variant"] == found["plain"]
    assert len(found["plain"]) > 10


def test_predict_equals_that_of_the_plain_model(
    variant_run: Path, plain: Path, shapes_root: Path
) -> None:
    images = sorted((shapes_root / "val2017").iterdir())
    found = [
        Detector.from_checkpoint(path, device="cpu").predict(images, threshold=0.0)
        for path in (variant_run, plain)
    ]
    for ours, theirs in zip(*found, strict=True):
        assert len(ours.scores) > 5
        assert torch.equal(torch.as_tensor(ours.scores), torch.as_tensor(theirs.scores))
        boxes = (torch.as_tensor(each.boxes_xyxy_px) for each in (ours, theirs))
        assert torch.equal(*boxes)


def test_match_trace_equals_that_of_the_plain_model(variant_run: Path, plain: Path) -> None:
    assert (variant_run / "traces/epoch_001").is_dir()
    ours, theirs = (trace_checkpoint(path, device="cpu") for path in (variant_run, plain))
    assert len(ours.images) == len(theirs.images) == 4
    for image, twin in zip(ours.images, theirs.images, strict=True):
        assert image.groups.groups
        assert twin.groups == TracedGroups()
        assert_equal_fields(replace(image, groups=twin.groups), twin)
    assert ours.info.num_queries == theirs.info.num_queries == 20
    # Independent groups share the weight of one.
    ratios = {
        branch: {a / b for a, b in zip(weights, theirs.info.loss_weights[branch], strict=True)}
        for branch, weights in ours.info.loss_weights.items()
    }
    assert all(max(found) == pytest.approx(min(found)) for found in ratios.values())


def assert_equal_fields(ours: object, theirs: object) -> None:
    for field in fields(ours):  # type: ignore[arg-type]
        first, second = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(first, Tensor):
            assert torch.equal(first, second), field.name
        elif hasattr(first, "__dataclass_fields__"):
            assert_equal_fields(first, second)
        else:
            assert first == second, field.name


def test_inspect_matching_runs(variant_run: Path, tmp_path: Path, msdetr: Msdetr) -> None:
    done = msdetr(
        *("inspect-matching", "--ckpt", variant_run, "--output", tmp_path / "out"),
        *("--device", "cpu", "--num-images", "2"),
    )
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    names = {group["name"] for group in summary["query_groups"]}
    assert names
    table = (tmp_path / "out" / "groups.csv").read_text().splitlines()
    assert {line.split(",")[1] for line in table[1:]} == names
    pictures = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    has_noise = any(name.endswith("_denoising.png") for name in pictures)
    assert has_noise == ("denoising" in names) == (summary["noise"] is not None)
    assert "Query groups of training" in (tmp_path / "out" / "matching.html").read_text()


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_export_has_nothing_of_the_groups_and_verifies(
    form: str, variant_run: Path, tmp_path: Path, msdetr: Msdetr
) -> None:
    file = tmp_path / ("model.onnx" if form == "onnx" else "model.pt2")
    command = ("export", "--ckpt", variant_run, "--format", form, "--output", file)
    # Tracing for inputs of any size takes far longer, and sees the same model without groups.
    done = msdetr(*command, "--static", "64x96", "--verify", "2")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / f"{file.name}.report.json").read_text())["verification"]["passed"]
    weights = weights_in(file)
    assert "backbone.body.conv1.weight" in weights
    groups = ("training_groups", "hybrid", "independent", "denoising")
    assert not [name for name in weights if any(group in name for group in groups)]


def weights_in(file: Path) -> set[str]:
    if file.suffix == ".onnx":
        return {entry.name for entry in onnx.load(file).graph.initializer}
    return set(torch.export.load(file).state_dict)


# A small model of the kind that Hybrid DETR published.
SMALL = {
    "model.backbone.name": "resnet18",
    "model.width": 32,
    "model.heads": 4,
    "model.encoder_layers": 1,
    "model.decoder_layers": 2,
    "model.ffn_width": 16,
    "model.num_queries": 20,
    "model.query_groups.hybrid.queries": 50,
}
ARGUMENTS = {"num_queries_one2one": 20, "num_queries_one2many": 50, "k_one2many": 6, "nheads": 4}
RECIPE = "hybrid_ddetr_pp_300q"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Of such a model, under its published names."""
    torch.manual_seed(0)
    recipe = load_recipe(RECIPE, words(SMALL)[1::2])
    return to_published(build_model(recipe.model, 91).state_dict())


class TestPublishedHybrid:
    @pytest.fixture
    def file(self, state: dict[str, Tensor], tmp_path: Path) -> Path:
        path = tmp_path / "hybrid.pth"
        torch.save({"model": state, "args": argparse.Namespace(**ARGUMENTS)}, path)
        return path

    def test_there_and_back(
        self, state: dict[str, Tensor], file: Path, tmp_path: Path, msdetr: Msdetr
    ) -> None:
        assert list(state["query_embed.weight"].shape) == [70, 32]
        assert not [name for name in state if "group" in name or "hybrid" in name]
        checkpoint, back = tmp_path / "checkpoint", tmp_path / "back.pth"
        done = msdetr(
            *("import-official", file, "--recipe", RECIPE, "--output", checkpoint), *words(SMALL)
        )
        assert (done.code, done.err) == (0, "")
        weights = read_weights(checkpoint)
        rows = ("query_source.content.weight", "training_groups.hybrid.content.weight")
        joined = torch.cat([weights[name] for name in rows])
        assert torch.equal(joined, state["query_embed.weight"])
        command = ("export", "--format", "official", "--ckpt", checkpoint, "--output", back)
        done = msdetr(*command)
        assert (done.code, done.err) == (0, "")
        assert_same_state(read_published_file(back).state, state)

    def test_written_again_without_import(
        self, state: dict[str, Tensor], file: Path, tmp_path: Path, msdetr: Msdetr
    ) -> None:
        back = tmp_path / "back.pth"
        published = ("--ckpt", file, "--recipe", RECIPE, *words(SMALL))
        done = msdetr("export", "--format", "official", *published, "--output", back)
        assert (done.code, done.err) == (0, "")
        assert_same_state(read_published_file(back).state, state)

    def test_detector_lacks_what_the_file_would_need(self, file: Path, tmp_path: Path) -> None:
        overrides = words(SMALL)[1::2]
        detector = Detector.from_checkpoint(file, recipe=RECIPE, overrides=overrides, device="cpu")
        assert detector.model.training_groups is None
        assert detector.recipe.model.query_groups.hybrid is not None
        with pytest.raises(CheckpointError) as caught:
            detector.export_official(tmp_path / "out.pth")
        assert str(caught.value) == (
            f"{file}: model.query_groups: are in the published model, but not in one loaded for"
            " inference; open the checkpoint with all its query groups"
        )

    @pytest.mark.parametrize(
        ("option", "value", "key"),
        [
            ("num_queries_one2one", 10, "model.num_queries"),
            ("num_queries_one2many", 60, "model.query_groups.hybrid"),
            ("k_one2many", 5, "supervision.hybrid.copies"),
        ],
    )
    def test_command_line_of_the_training_must_fit(
        self,
        option: str,
        value: int,
        key: str,
        *,
        state: dict[str, Tensor],
        tmp_path: Path,
        refused: Callable[..., list[str]],
    ) -> None:
        file = tmp_path / "odd.pth"
        arguments = argparse.Namespace(**{**ARGUMENTS, option: value})
        torch.save({"model": state, "args": arguments}, file)
        lines = refused(
            *("import-official", file, "--recipe", RECIPE, *words(SMALL)),
            *("--output", tmp_path / "checkpoint"),
        )
        expected = f"args.{option} is {value} in the file; {key} of the recipe differs"
        assert " ".join(lines[-1].split()) == expected

    def test_plain_recipe_is_told_the_right_one(
        self, tmp_path: Path, refused: Callable[..., list[str]]
    ) -> None:
        with torch.device("meta"):
            shapes = to_published(build_model(load_recipe(RECIPE).model, 91).state_dict())
        hollow = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
        file = tmp_path / "full.pth"
        full = {**ARGUMENTS, "num_queries_one2one": 300, "num_queries_one2many": 1500, "nheads": 8}
        torch.save({"model": hollow, "args": argparse.Namespace(**full)}, file)
        lines = refused(
            "import-official", file, "--recipe", "ddetr_pp_300q", "--output", tmp_path / "out"
        )
        assert lines[1].strip() == (
            f"does not fit recipe ddetr_pp_300q, but {RECIPE}: use --recipe {RECIPE}"
        )


def assert_same_state(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("group_ddetr_pp_300q", "group", "is set, which the published code has not"),
        ("cdn_ddetr_pp_900q", "denoising", "is set, which the published code has not"),
        (
            "ms_hybrid_ddetr_pp_300q",
            "hybrid",
            "is set where model.placement is c, which no published code has",
        ),
    ],
)
def test_what_no_published_code_has_is_not_written(
    name: str, key: str, reason: str, tmp_path: Path, refused_line: Callable[..., str]
) -> None:
    small = {k: v for k, v in SMALL.items() if "hybrid" not in k}
    recipe = load_recipe(name, words(small)[1::2])
    model = build_model(recipe.model, 91)
    space = LabelSpace.coco91([Category(1, "person")])
    save_checkpoint(
        tmp_path / "checkpoint", info=checkpoint_info(recipe, space), model=unique_state(model)
    )
    line = refused_line(
        *("export", "--format", "official", "--ckpt", tmp_path / "checkpoint"),
        *("--output", tmp_path / "out.pth"),
    )
    assert line == f"error: {tmp_path / 'checkpoint'}: model.query_groups.{key}: {reason}"
