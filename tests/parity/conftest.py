"""Models of the published implementations, rebuilt from the golden numbers' own description."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from msdetr.build import build_model
from msdetr.interop.official import from_published
from msdetr.model import DetectionModel, Neck
from msdetr.recipe import ModelRecipe
from msdetr.structures import ModelOutput, Targets

_PLUS_PLUS = ("--mixed_selection", "--look_forward_twice")


def _small_cases(folder: Path) -> list[str]:
    return list(json.loads((folder / "expected.json").read_text()))


def _matching_cases(folder: Path) -> list[tuple[str, str]]:
    stored = json.loads((folder / "matching.json").read_text())
    return [(name, rule) for name, rules in stored.items() for rule in rules]


def _op_cases(folder: Path) -> list[str]:
    with safe_open(folder / "ms_deform_attn.safetensors", "pt") as file:
        return sorted({key.split("/")[0] for key in file.keys()})  # noqa: SIM118 (not a mapping)


def _full_cases(folder: Path) -> list[str]:
    return list(json.loads((folder / "expected_full.json").read_text()))


def _full_cases_with_learned_content(folder: Path) -> list[str]:
    cases = json.loads((folder / "expected_full.json").read_text())
    return [name for name, case in cases.items() if "--mixed_selection" not in case["flags"]]


def _manifest_names(folder: Path) -> list[str]:
    return list(json.loads((folder / "official_manifest.json").read_text()))


def _group_cases(folder: Path) -> list[str]:
    return list(json.loads((folder / "query_groups" / "expected.json").read_text()))


def _mds_case_names(file: str) -> Callable[[Path], list[str]]:
    return lambda folder: list(json.loads((folder / "mds" / file).read_text()))


# Argument of a test or fixture -> every case of that kind that the folder holds.
_STORED: dict[str, Callable[[Path], list[Any]]] = {
    "small_name": _small_cases,
    "matching_case": _matching_cases,
    "op_name": _op_cases,
    "full_name": _full_cases,
    "full_name_with_learned_content": _full_cases_with_learned_content,
    "manifest_name": _manifest_names,
    "group_case_name": _group_cases,
    "mds_name": _mds_case_names("expected.json"),
    "suppressor_name": _mds_case_names("suppressor.json"),
    "vfl_name": _mds_case_names("vfl.json"),
}


def golden_folder() -> Path:
    """Where the golden numbers are to be, while tests are collected."""
    named = os.environ.get("MSDETR_GOLDEN")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "golden"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on all that the golden folder holds, so that no list here can fall behind it."""
    folder = golden_folder()
    for argument in _STORED.keys() & set(metafunc.fixturenames):
        # Without a folder one case is left, which the fixture ``golden_dir`` skips with a reason.
        stored = _STORED[argument](folder) if folder.is_dir() else [None]
        assert stored, f"{folder} holds nothing for {argument}"
        metafunc.parametrize(argument, stored, ids=_identify, scope="session")


def _identify(case: str | tuple[str, ...] | None) -> str:
    return "-".join(case) if isinstance(case, tuple) else str(case)


def placement_of(name: str, *, mixed_supervision: bool) -> str:
    """The placement of a published model: the goldens tell it by the name alone."""
    if not mixed_supervision:
        return "baseline"
    return "a" if name.endswith("_arch_a") else "c"


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


def _placement_of_case(name: str, config: Mapping[str, Any]) -> str:
    if "suppressor_layers" in config:
        return "b"
    return placement_of(name, mixed_supervision="--use_ms_detr" in config["flags"])


def _suppressor_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    if "suppressor_layers" not in config:
        return None
    assert config["suppressor_layers"] == 1
    assert config["token_bias"] == config["relation"]
    return {
        "learned_keys": config["tokens"],
        "relation": config["relation"],
        "own_class_head": config["own_class_head"],
    }


def load_case(folder: Path, name: str) -> GoldenCase:
    """Build the model of a small case and load its weights under the published names."""
    expected = json.loads((folder / "expected.json").read_text())[name]
    config = expected["config"]
    tensors = load_file(folder / f"{name}.safetensors")
    maps = tuple(tensors[f"in/feature{i}"] for i in range(len(config["backbone_channels"])))
    recipe = recipe_of(
        config["flags"],
        _placement_of_case(name, config),
        suppressor=_suppressor_of(config),
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


@pytest.fixture(scope="session")
def stored_maps() -> type[StoredMaps]:
    """What stands in for a backbone."""
    return StoredMaps


@pytest.fixture(scope="session")
def query_groups_dir(golden_dir: Path) -> Path:
    """Folder of the golden numbers for query groups."""
    return golden_dir / "query_groups"


def _load_once(folder: Path) -> Callable[[str], GoldenCase]:
    loaded: dict[str, GoldenCase] = {}

    def load(name: str) -> GoldenCase:
        if name not in loaded:
            loaded[name] = load_case(folder, name)
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def golden_case(golden_dir: Path) -> Callable[[str], GoldenCase]:
    """Load a small case by name, once per session."""
    return _load_once(golden_dir)


@pytest.fixture(scope="session")
def mds_dir(golden_dir: Path) -> Path:
    """Folder of the golden numbers for MDS-DETR."""
    return golden_dir / "mds"


@pytest.fixture(scope="session")
def mds_case(mds_dir: Path) -> Callable[[str], GoldenCase]:
    """Load a small case of MDS-DETR by name, once per session."""
    return _load_once(mds_dir)


def compose_full_size(name: str, shapes: Mapping[str, list[int]]) -> DetectionModel:
    """Compose the full-size model that a name and the published tensors' shapes describe."""
    flags = ["--two_stage", "--with_box_refine"]
    if "pp" in name.split("_"):
        flags += _PLUS_PLUS
    if any(".linear3." in key for key in shapes):
        flags.append("--use_aux_ffn")
    # Placement c shares its heads, so that without an extra FFN only the name tells.
    mixed_supervision = name.startswith("ms_")
    queries = re.search(r"_(\d+)q", name)
    assert queries, f"the name {name} does not tell the number of queries"
    recipe = recipe_of(
        flags,
        placement_of(name, mixed_supervision=mixed_supervision),
        num_queries=int(queries[1]),
        ffn_width=shapes["transformer.encoder.layers.0.linear1.bias"][0],
    )
    (num_classes,) = shapes["class_embed.0.bias"]
    return build_model(recipe, num_classes)


@pytest.fixture(scope="session")
def full_size_model(golden_dir: Path) -> Callable[[str], DetectionModel]:
    """Compose a full-size published model by its name in the manifest."""
    manifest = json.loads((golden_dir / "official_manifest.json").read_text())
    return lambda name: compose_full_size(name, manifest[name]["state_dict"])


@pytest.fixture(scope="session")
def published_values() -> Callable[..., dict[str, Tensor]]:
    """The rule that weights follow."""
    return build_values
