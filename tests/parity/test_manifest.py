"""Names, sizes and parameter groups of the published models at full size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.interop.official import from_published, published_names, to_published
from msdetr.model import DetectionModel, parameter_group

pytestmark = pytest.mark.golden


class Published:
    """A published model's description beside our model of its kind, without storage."""

    def __init__(self, manifest: dict[str, Any], model: DetectionModel) -> None:
        self.shapes: dict[str, list[int]] = manifest["state_dict"]
        self.groups: dict[str, str] = manifest["parameter_groups"]
        self.trainable: int = manifest["trainable"]
        self.total: int = manifest["total"]
        self.model = model


@pytest.fixture(scope="module")
def published(
    golden_dir: Path,
    full_size_model: Callable[[str], DetectionModel],
    manifest_name: str,
) -> Published:
    manifest = json.loads((golden_dir / "official_manifest.json").read_text())
    with torch.device("meta"):
        model = full_size_model(manifest_name)
    return Published(manifest[manifest_name], model)


def test_names_and_shapes_are_the_published_ones(published: Published) -> None:
    ours = to_published(published.model.state_dict())
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == published.shapes


def test_every_published_tensor_is_taken(published: Published) -> None:
    # One storage for all aliases of a shape keeps this cheap; values do not matter here.
    zeros = {name: torch.zeros(()).expand(shape) for name, shape in published.shapes.items()}
    state = from_published(zeros, published.model.state_dict(), "manifest")
    published.model.load_state_dict(state, assign=True)


def test_parameter_counts(published: Published) -> None:
    parameters = list(published.model.parameters())
    assert sum(p.numel() for p in parameters) == published.total
    assert sum(p.numel() for p in parameters if p.requires_grad) == published.trainable


def test_parameter_groups(published: Published) -> None:
    names = published_names(published.model.state_dict())
    groups: dict[str, str] = {}
    for name, parameter in published.model.named_parameters():
        listed = [alias for alias in names[name] if alias in published.groups]
        assert len(listed) == 1, name
        groups[listed[0]] = parameter_group(name) if parameter.requires_grad else "frozen"
    assert groups == published.groups
