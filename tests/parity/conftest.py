"""Models of the published implementations, rebuilt from the golden numbers' own description."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from msdetr.build import build_model
from msdetr.interop.official import from_published
from msdetr.model import DetectionModel, Neck
from msdetr.recipe import ModelRecipe
from msdetr.structures import ModelOutput, Targets

# Placement of every small case, from the table in the goldens' README.
_PLACEMENTS = {
    "ms_internal_aux_ffn": "c",
    "ms_internal_no_aux_ffn": "c",
    "ms_pp_aux_ffn": "c",
    "ms_arch_a": "a",
}
_NUM_CLASSES = 91


def recipe_of(flags: Collection[str], placement: str, **sizes: Any) -> ModelRecipe:
    """The published kind of model that command-line flags name."""
    return ModelRecipe.model_validate(
        {
            **sizes,
            "dropout": 0.0,
            "two_stage": "--two_stage" in flags,
            "iterative_refinement": "--with_box_refine" in flags,
            "mixed_query_selection": "--mixed_selection" in flags,
            "look_forward_twice": "--look_forward_twice" in flags,
            "extra_ffn": "--use_aux_ffn" in flags,
            "placement": placement,
        }
    )


def build_values(state: Mapping[str, Mapping[str, Any]], salt: str) -> dict[str, Tensor]:
    """Build a published state dict by the goldens' rule for weights."""
    return {
        name: _values(entry["values_of"], entry["shape"], salt) for name, entry in state.items()
    }


def _values(name: str, shape: list[int], salt: str) -> Tensor:
    seed = zlib.crc32((salt + name).encode())
    x = np.random.RandomState(seed).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        x = 1 + 0.1 * np.abs(x)
    elif last == "running_mean":
        x = 0.1 * x
    elif len(shape) <= 1:
        x = 1 + 0.1 * x if last == "weight" else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    if "bbox_embed" in name and ".layers.2." in name:
        x = 0.1 * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


class StoredMaps(torch.nn.Module):
    """Stands in for a backbone: the small cases start from backbone maps."""

    def __init__(self, maps: tuple[Tensor, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.maps = maps
        self.channels = tuple(m.shape[1] for m in maps)
        self.strides = strides

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        del pixels
        return self.maps


@dataclass(frozen=True)
class GoldenCase:
    """One small case: model with its weights, inputs and what is expected."""

    name: str
    model: DetectionModel
    tensors: dict[str, Tensor]
    expected: dict[str, Any]

    def predict(self) -> ModelOutput:
        """Run the model on the stored maps, with the one-to-many branch."""
        maps = tuple(
            self.tensors[f"in/feature{i}"] for i in range(len(self.model.backbone.channels))
        )
        levels = self.model.neck(maps, self.tensors["in/mask"])
        return self.model.forward_features(levels, with_one_to_many=True)

    @property
    def targets(self) -> Targets:
        """The targets of all images."""
        images = range(self.tensors["in/mask"].shape[0])
        return Targets.from_lists(
            [self.tensors[f"in/target{b}.boxes"] for b in images],
            [self.tensors[f"in/target{b}.labels"] for b in images],
        )


def load_case(folder: Path, name: str) -> GoldenCase:
    """Build the model of a small case and load its weights under the published names."""
    expected = json.loads((folder / "expected.json").read_text())[name]
    config = expected["config"]
    tensors = load_file(folder / f"{name}.safetensors")
    maps = tuple(tensors[f"in/feature{i}"] for i in range(len(config["backbone_channels"])))
    recipe = recipe_of(
        config["flags"],
        _PLACEMENTS.get(name, "baseline"),
        **{k: config[k] for k in ("encoder_layers", "decoder_layers", "width", "heads")},
        levels=config["levels"],
        points=config["points"],
        ffn_width=config["ffn"],
        num_queries=config["queries"],
    )
    model = build_model(recipe, config["classes"])
    stored = StoredMaps(maps, tuple(config["backbone_strides"]))
    model.backbone = stored  # type: ignore[assignment]
    model.neck = Neck(stored.channels, recipe.width, recipe.levels)
    published = build_values(expected["state"], config["salt"])
    model.load_state_dict(from_published(published, model.state_dict(), name))
    return GoldenCase(name, model, tensors, expected)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every whole model that the folder of query groups holds."""
    if "group_case_name" in metafunc.fixturenames:
        file = golden_folder() / "query_groups" / "expected.json"
        names = list(json.loads(file.read_text())) if file.is_file() else ["missing"]
        metafunc.parametrize("group_case_name", names)


def golden_folder() -> Path:
    """Where the golden numbers are to be, while tests are collected."""
    named = os.environ.get("MSDETR_GOLDEN")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "golden"


@pytest.fixture(scope="session")
def stored_maps() -> type[StoredMaps]:
    """What stands in for a backbone."""
    return StoredMaps


@pytest.fixture(scope="session")
def query_groups_dir(golden_dir: Path) -> Path:
    """Folder of the golden numbers for query groups."""
    return golden_dir / "query_groups"


@pytest.fixture(scope="session")
def golden_case(golden_dir: Path) -> Callable[[str], GoldenCase]:
    """Load a small case by name, once per session."""
    loaded: dict[str, GoldenCase] = {}

    def load(name: str) -> GoldenCase:
        if name not in loaded:
            loaded[name] = load_case(golden_dir, name)
        return loaded[name]

    return load


_PLUS_PLUS = ("--mixed_selection", "--look_forward_twice")
_MANIFEST: dict[str, tuple[int, tuple[str, ...], str]] = {
    "ms_ddetr_300q": (300, ("--use_aux_ffn",), "c"),
    "ms_ddetr_pp_300q": (300, ("--use_aux_ffn", *_PLUS_PLUS), "c"),
    "ms_ddetr_pp_900q": (900, ("--use_aux_ffn", *_PLUS_PLUS), "c"),
    "ms_ddetr_300q_arch_a": (300, (), "a"),
    "ddetr_300q": (300, (), "baseline"),
}


@pytest.fixture(scope="session")
def full_size_model() -> Callable[[str], DetectionModel]:
    """Compose a full-size published model by its name in the manifest."""

    def build(name: str) -> DetectionModel:
        queries, flags, placement = _MANIFEST[name]
        flags = ("--two_stage", "--with_box_refine", *flags)
        return build_model(recipe_of(flags, placement, num_queries=queries), _NUM_CLASSES)

    return build


@pytest.fixture(scope="session")
def published_values() -> Callable[..., dict[str, Tensor]]:
    """The rule that weights follow."""
    return build_values
