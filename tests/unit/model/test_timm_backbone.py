"""Models of timm as backbones, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from msdetr.errors import CheckpointError, MsdetrError, RecipeError
from msdetr.model.backbone import Backbone
from msdetr.model.timm_backbone import TimmBackbone, download_timm_weights, rename_in_order

CHANNELS = {
    "resnet50": (512, 1024, 2048),
    "tf_efficientnet_lite0": (40, 112, 320),
    "convnext_atto": (80, 160, 320),
    "swin_tiny_patch4_window7_224": (192, 384, 768),
    "mobilenetv3_large_100": (40, 112, 960),
}
SWIN = "swin_tiny_patch4_window7_224"


def pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(CHANNELS))
def test_maps(name: str) -> None:
    backbone = TimmBackbone(name=name).eval()
    assert (backbone.channels, backbone.strides) == (CHANNELS[name], (8, 16, 32))
    with torch.no_grad():
        maps = backbone(pixels(2, 3, 100, 130))
    assert [tuple(m.shape[2:]) for m in maps] == [(13, 17), (7, 9), (4, 5)]
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    assert all(m.isfinite().all() and m.std() > 0 for m in maps)


@pytest.mark.parametrize("name", ["convnext_atto", SWIN, "tf_efficientnet_lite0"])
def test_maps_are_those_of_timm(name: str) -> None:
    backbone = TimmBackbone(name=name, norm="batch").eval()
    theirs = timm.create_model(name, features_only=True).eval()
    theirs.load_state_dict(backbone.body.state_dict())
    images = pixels(1, 3, 224, 224)
    with torch.no_grad():
        for own, expected in zip(backbone(images), theirs(images)[-3:], strict=True):
            channels_first = expected.permute(0, 3, 1, 2) if name == SWIN else expected
            torch.testing.assert_close(own, channels_first, rtol=0, atol=1e-5)


def test_resnet_is_ours() -> None:
    state = timm.create_model("resnet50").state_dict()
    for name, value in state.items():
        if "bn" in name and value.ndim == 1:  # none stays zero, as some start
            value.copy_(0.5 + torch.rand(value.shape))
    ours, theirs = Backbone(name="resnet50").eval(), TimmBackbone(name="resnet50").eval()
    for backbone in (ours, theirs):
        backbone.load_weights(state, "weights")
    images = pixels(1, 3, 75, 90)
    with torch.no_grad():
        for first, second in zip(ours(images), theirs(images), strict=True):
            assert first.std() > 0
            torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
    frozen = [{n for n, p in b.named_parameters() if not p.requires_grad} for b in (ours, theirs)]
    assert frozen[0]
    assert frozen[0] == frozen[1]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto", SWIN])
def test_whole_state_dicts_load(name: str) -> None:
    whole = timm.create_model(name)
    backbone = TimmBackbone(name=name, norm="batch").eval()
    backbone.load_weights(whole.state_dict(), "weights")
    own = sorted(p.double().sum().item() for p in backbone.parameters())
    theirs = {p.double().sum().item() for p in whole.parameters()}
    assert set(own) <= theirs
    assert len(set(own)) > 20


def test_weights_that_do_not_fit_are_named_and_not_loaded() -> None:
    state = timm.create_model("convnext_atto").state_dict()
    del state["stages.1.blocks.0.norm.weight"]
    state["stem.0.weight"] = torch.zeros(40, 3, 2, 2)
    state["stray"] = torch.zeros(1)
    backbone = TimmBackbone(name="convnext_atto")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        backbone.load_weights(state, "mine.pth")
    text = str(caught.value)
    assert text.startswith("mine.pth: 3 problems")
    for part in ("stages_1.blocks.0.norm.weight", "missing", "[40, 3, 4, 4], got [40, 3, 2, 2]"):
        assert part in text
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("stages", range(6))
@pytest.mark.parametrize(
    ("name", "groups"),
    [
        (
            "mobilenetv3_large_100",
            [
                {"conv_stem", "bn1", "blocks.0"},
                {"blocks.1"},
                {"blocks.2"},
                {"blocks.3", "blocks.4"},
                {"blocks.5", "blocks.6"},
            ],
        ),
        (
            "convnext_atto",
            [{"stem_0", "stem_1"}, {"stages_0"}, {"stages_1"}, {"stages_2"}, {"stages_3"}],
        ),
        (SWIN, [{"patch_embed"}, {"layers_0"}, {"layers_1"}, {"layers_2"}, {"layers_3"}]),
    ],
)
def test_frozen_stages(name: str, groups: list[set[str]], stages: int) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(name=name, norm="batch", frozen_stages=stages)
    trained = {
        ".".join(n.split(".")[1 : 3 if n.startswith("body.blocks") else 2])
        for n, p in backbone.named_parameters()
        if p.requires_grad
    }
    assert trained == set().union(*groups[stages:])


def test_frozen_stages_keep_their_statistics_in_training() -> None:
    backbone = TimmBackbone(name="mobilenetv3_large_100", norm="batch", frozen_stages=3).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running_mean" in k}
    backbone(pixels(2, 3, 64, 64))
    moved = {k for k, v in backbone.state_dict().items() if k in before and (v != before[k]).any()}
    assert {k.split(".")[2] for k in moved} == {"3", "4", "5", "6"}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet50"])
def test_frozen_batch_norm_has_no_parameters(name: str) -> None:
    backbone = TimmBackbone(name=name, frozen_stages=0).train()
    assert not [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(pixels(2, 3, 64, 64))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert not [n for n, _ in backbone.named_parameters() if ".bn" in n]


def test_frozen_batch_norm_computes_what_timm_computes() -> None:
    frozen = TimmBackbone(name="tf_efficientnet_lite0", norm="frozen_batch").eval()
    state = frozen.body.state_dict()
    for value in state.values():
        if value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=torch.Generator().manual_seed(1)))
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    theirs.load_state_dict(state, strict=False)  # frozen norms count no batches
    images = pixels(2, 3, 64, 96)
    with torch.no_grad():
        for own, expected in zip(frozen(images), theirs(images)[-3:], strict=True):
            assert expected.std() > 0
            tolerance = 1e-4 * float(expected.std())
            torch.testing.assert_close(own, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", list(CHANNELS))
def test_every_trained_weight_has_a_gradient(name: str) -> None:
    backbone = TimmBackbone(name=name, norm="batch", frozen_stages=1).train()
    sum(m.square().mean() for m in backbone(pixels(2, 3, 64, 96))).backward()
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_drop_path_acts_in_training_only() -> None:
    backbone = TimmBackbone(name="convnext_atto", frozen_stages=0, drop_path=0.9)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    images = pixels(1, 3, 64, 64)
    with torch.no_grad():
        first, second = (backbone.train()(images)[2] for _ in range(2))
        assert not torch.equal(first, second)
        assert torch.equal(*(backbone.eval()(images)[2] for _ in range(2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "vit_tiny_patch16_224"},
            "name: timm/vit_tiny_patch16_224 has maps at strides 16, 16, 16; 8, 16 and 32 are",
        ),
        ({"name": "maxvit_tiny_rw_224"}, "maxvit_tiny_rw_224 does not take images of 160x96 px"),
        ({"name": "convnext_ato"}, "has no model 'convnext_ato'; did you mean 'timm/convnext_"),
        ({"name": "resnet50.nope"}, "has no model 'resnet50.nope'"),
        (
            {"name": "vgg11", "drop_path": 0.1},
            "drop_path: must be 0 for timm/vgg11, which has no stochastic depth, got 0.1",
        ),
        ({"name": "hrnet_w18_small"}, "frozen_stages: must be 0 for timm/hrnet_w18_small"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught, torch.device("meta"):
        TimmBackbone(**options)
    assert str(caught.value).startswith("model.backbone.")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_network_names_the_weights_and_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, pretrained: bool, **_kwargs: object) -> None:
        assert pretrained
        raise OSError("no route to host\nretry")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError) as caught:
        download_timm_weights("convnext_atto")
    text = str(caught.value)
    assert "\n" not in text
    for part in ("no route to host", "timm/convnext_atto.d2_in1k", "model.backbone.weights"):
        assert part in text


def test_names_by_order() -> None:
    whole = timm.create_model("mobilenetv3_small_050").state_dict()
    other = {f"tensor{i}": value for i, value in enumerate(whole.values())}
    renamed = rename_in_order("mobilenetv3_small_050", other, "weights")
    assert list(renamed) == list(whole)
    assert all(torch.equal(renamed[name], value) for name, value in whole.items())
    with pytest.raises(CheckpointError, match=r"weights: expected \d+ tensors, got 3"):
        rename_in_order("mobilenetv3_small_050", dict(list(other.items())[:3]), "weights")
    other["tensor0"] = torch.zeros(1)
    with pytest.raises(MsdetrError, match=r"tensor0: expected the shape of conv_stem\.weight"):
        rename_in_order("mobilenetv3_small_050", other, "weights")
