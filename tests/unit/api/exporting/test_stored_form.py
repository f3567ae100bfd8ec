from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.exporting.inputs import StretchTransform
from msdetr.api.exporting.metadata import METADATA_VERSION, describe_export
from msdetr.api.exporting.stored_form import read_form
from msdetr.build import build_eval_transform, build_model
from msdetr.data.labels import Category, LabelSpace
from msdetr.errors import CheckpointError
from msdetr.export import ExportSettings
from msdetr.recipe import load_recipe

FILE = Path("model.onnx")
ANY_SIZE = {"pixels": (None, 3, None, None), "padding_mask": (None, None, None)}
CATEGORIES = [Category(3, "cat"), Category(7, "dog"), Category(90, "unused_90")]


@dataclass
class Program:
    """Stands for a file."""

    metadata: Mapping[str, Any]
    input_shapes: Mapping[str, tuple[int | None, ...]]

    def run(self, feeds: Mapping[str, Tensor]) -> list[Tensor]:
        raise NotImplementedError(feeds)


@pytest.fixture(params=["contiguous", "coco91"])
def loaded(request: pytest.FixtureRequest, tiny_fields: Callable[..., list[str]]) -> Any:
    fields = tiny_fields({"data.label_space": request.param, "data.pad_multiple": 48})
    recipe = load_recipe("shapes_tiny", fields)
    make = {"contiguous": LabelSpace.contiguous, "coco91": LabelSpace.coco91}[request.param]
    space = make(CATEGORIES[:2] if request.param == "coco91" else CATEGORIES)
    model = build_model(recipe.model, space.num_classes).eval()
    return LoadedCheckpoint(Path("none"), model, recipe, space, {})


def described(loaded: LoadedCheckpoint, settings: ExportSettings) -> dict[str, Any]:
    texts = describe_export(loaded, settings, 100)
    return {name: json.loads(text) for name, text in texts.items()}


def test_what_an_export_stores_is_what_the_checkpoint_has(loaded: LoadedCheckpoint) -> None:
    form = read_form(Program(described(loaded, ExportSettings()), ANY_SIZE), FILE)
    assert form.label_space == loaded.label_space
    assert form.collator == loaded.collator
    assert form.resize == build_eval_transform(loaded.recipe.data)
    assert (form.static_hw, form.detections) == (None, 100)
    assert form.outputs == ("scores", "labels", "boxes")


def test_fixed_size_and_raw_outputs(loaded: LoadedCheckpoint) -> None:
    settings = ExportSettings(static_hw=(64, 96), batch=4, raw=True)
    form = read_form(Program(described(loaded, settings), {"pixels": (4, 3, 64, 96)}), FILE)
    assert form.resize == StretchTransform((64, 96))
    assert (form.outputs, form.detections) == (("logits", "boxes"), None)
    assert form.collator.padded_hw((64, 96)) == (64, 96)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.pop(name)


def change(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(metadata: dict[str, Any]) -> None:
        *parents, last = name.split(".")
        for parent in parents:
            metadata = metadata[parent]
        metadata[last] = value

    return apply


@pytest.mark.parametrize("loaded", ["contiguous"], indirect=True)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("metadata_version"), "was not written by `msdetr export`"),
        (change("metadata_version", METADATA_VERSION + 1), "has metadata version 2, but this"),
        (change("metadata_version", "x"), "metadata.metadata_version"),
        (without("preprocessing"), "metadata.preprocessing: Field required"),
        (change("preprocessing.std", [0, 1, 1]), "metadata.preprocessing.std.0"),
        (change("preprocessing.channels", "BGR"), "metadata.preprocessing.channels"),
        (change("outputs", ["masks"]), "metadata.outputs"),
        (change("category_ids", [1]), "metadata.class_names: do not fit"),
        (change("category_ids", [3, 2, 1]), "metadata.class_names: do not fit"),
        (change("recipe", {}), "metadata.class_names: do not fit"),
        (
            change("preprocessing.resize", {"height": 64, "width": 96}),
            "inputs: the metadata speak of pixels any x 3 x 64 x 96, but the file has pixels any "
            "x 3 x any x any, padding_mask any x any x any",
        ),
    ],
)
def test_refused(
    spoil: Callable[[dict[str, Any]], None], message: str, loaded: LoadedCheckpoint
) -> None:
    metadata = described(loaded, ExportSettings())
    spoil(metadata)
    with pytest.raises(CheckpointError) as caught:
        read_form(Program(metadata, ANY_SIZE), FILE)
    assert message in str(caught.value)
    assert str(caught.value).startswith("model.onnx: ")
