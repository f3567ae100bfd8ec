"""A model of timm from training to export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.checkpoints.official import export_official
from msdetr.errors import CheckpointError
from msdetr.model import TimmBackbone

NAMES = ["convnext_atto", "tf_efficientnet_lite0"]
# The padding of tf_efficientnet_lite0 depends on the size of its input: it must be free to vary.
FORMS = {
    "convnext_atto": (("--static", "64x96"), "input of 1 x 3 x 64 x 96"),
    "tf_efficientnet_lite0": ((), "input of any size, with a padding mask"),
}


@pytest.fixture(scope="module", params=NAMES)
def timm_run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    msdetr: Callable[..., Any],
    tiny: list[str],
) -> Path:
    """A training run of one epoch."""
    folder = tmp_path_factory.mktemp("timm") / request.param
    backbone = f"{{name: timm/{request.param}, weights: none, norm: batch, stem_width: null}}"
    fields = ["--set", f"model.backbone={backbone}", "--set", "train.epochs=1"]
    done = msdetr("train", "shapes_tiny", *tiny, *fields, "--device", "cpu", "--output", folder)
    assert done.code == 0, done.err
    return folder


def test_checkpoint_suffices(timm_run: Path, msdetr: Callable[..., Any]) -> None:
    loaded = load_checkpoint(timm_run)
    assert isinstance(loaded.model.backbone, TimmBackbone)
    assert loaded.recipe.model.backbone.name == f"timm/{timm_run.name}"
    done = msdetr("eval", "--ckpt", timm_run, "--device", "cpu")
    assert done.code == 0, done.err
    assert "AP" in done.out


def test_published_code_has_no_such_backbone(timm_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is 'timm/.*which the published code has not"):
        export_official(load_checkpoint(timm_run), tmp_path / "out.pth")


@pytest.mark.slow
def test_onnx_file_is_verified(timm_run: Path, tmp_path: Path, msdetr: Callable[..., Any]) -> None:
    options, form = FORMS[timm_run.name]
    done = msdetr("export", "--ckpt", timm_run, "--output", tmp_path / "model.onnx", *options)
    assert done.code == 0, done.err
    assert form in done.out
    assert "verified on 4 images" in done.out
