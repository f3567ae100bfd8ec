"""Published checkpoints of MDS-DETR: imported and written again; Q is the recipe's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.checkpoints.official import export_official
from msdetr.engine.checkpoint import read_weights
from msdetr.interop.official import published_names
from msdetr.interop.published_file import read_published_file

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def shapes(golden_dir: Path) -> dict[str, list[int]]:
    manifest = json.loads((golden_dir / "mds" / "mds_manifest.json").read_text())
    (entry,) = manifest.values()
    found: dict[str, list[int]] = entry["state_dict"]
    return found


def base_name(name: str) -> str:
    """The name that a tensor's aliases have in common."""
    inner = name.removeprefix("transformer.decoder.")
    shared = inner if inner.startswith(("class_embed.", "bbox_embed.")) else name
    return shared.replace("masked_att.attn.", "self_attn.")


def save(path: Path, state: dict[str, Tensor], **arguments: Any) -> Path:
    torch.save({"model": state, "args": argparse.Namespace(**arguments), "epoch": 11}, path)
    return path


def test_there_and_back_at_full_size(
    shapes: dict[str, list[int]], tmp_path: Path, msdetr: Callable[..., Any]
) -> None:
    generator = torch.Generator().manual_seed(1)
    values = {
        name: torch.rand(shape, generator=generator) - 0.5
        for name, shape in shapes.items()
        if base_name(name) == name
    }
    state = {name: values[base_name(name)] for name in shapes}
    arguments = {"num_queries": 900, "num_token": 10, "use_ms_detr": False}
    file = save(tmp_path / "published.pth", state, **arguments)
    output, back = tmp_path / "checkpoint", tmp_path / "back.pth"
    command = ("import-official", file, "--recipe", "mds_ddetr_900q", "--output", output)
    done = msdetr(*command)
    assert (done.code, done.err) == (0, ""), done.err
    weights = read_weights(output)
    for ours, aliases in published_names(weights).items():
        assert torch.equal(weights[ours], state[aliases[0]]), ours
    export_official(load_checkpoint(output), back)
    written = read_published_file(back).state
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    for path in (file, back, *tmp_path.rglob("*.safetensors")):
        path.unlink()


def test_another_number_of_queries_is_told(
    shapes: dict[str, list[int]], tmp_path: Path, refused: Callable[..., list[str]]
) -> None:
    """No tensor depends on it, so that only the command line in the file tells."""
    hollow = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    file = save(tmp_path / "published.pth", hollow, num_queries=900)
    lines = refused(
        "import-official", file, "--recipe", "mds_ddetr_300q", "--output", tmp_path / "out"
    )
    assert any(
        "args.num_queries" in line and "is 900 in the file; model.num_queries" in line
        for line in lines
    )
    assert any("mds_ddetr_900q" in line for line in lines)
