"""Published checkpoints: imported, evaluated directly, and written again."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from msdetr import Detector
from msdetr.api.checkpoints.loaded import load_checkpoint
from msdetr.api.checkpoints.official import export_official, load_official
from msdetr.build import build_model
from msdetr.engine.checkpoint import read_info, read_weights
from msdetr.errors import CheckpointError, RecipeError, UsageError
from msdetr.interop.official import published_names, to_published
from msdetr.interop.published_file import read_published_file, write_published_file
from msdetr.recipe import load_recipe

# Name in the manifest -> recipe.
MODELS = {
    "ms_ddetr_300q": "ddetr_300q",
    "ms_ddetr_pp_300q": "ddetr_pp_300q",
    "ms_ddetr_pp_900q": "ddetr_pp_900q",
    "ms_ddetr_300q_arch_a": "ddetr_300q_arch_a",
    "ddetr_300q": "baseline_ddetr_300q",
}
# A small model of the published kind.
SMALL = {
    "model.backbone.name": "resnet18",
    "model.width": 32,
    "model.heads": 4,
    "model.encoder_layers": 1,
    "model.decoder_layers": 2,
    "model.ffn_width": 16,
    "model.num_queries": 20,
    "data.eval_size": 64,
    "data.eval_max_size": 96,
    "data.num_workers": 0,
}
SMALL_OVERRIDES = [f"{key}={value}" for key, value in SMALL.items()]
SMALL_OPTIONS = [part for text in SMALL_OVERRIDES for part in ("--set", text)]


def base_name(name: str) -> str:
    """The name that a tensor's aliases have in common, as the goldens' README tells."""
    inner = name.removeprefix("transformer.decoder.")
    shared = inner if inner.startswith(("class_embed.", "bbox_embed.")) else name
    return shared.replace("bbox_embed_o2m.", "bbox_embed.")


@pytest.fixture(scope="module")
def manifest(golden_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden_dir / "official_manifest.json").read_text())
    assert sorted(content) == sorted(MODELS)
    return content


def random_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    values: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        base = base_name(name)
        if base not in values:
            values[base] = torch.rand(shape, generator=generator) - 0.5
    return {name: values[base_name(name)] for name in shapes}


def hollow_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Every tensor of its full shape on one number: a file of a few kilobytes."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def save(path: Path, state: dict[str, Tensor], **arguments: Any) -> Path:
    content = {"model": state, "args": argparse.Namespace(**arguments), "epoch": 11}
    torch.save(content, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose big files do not outlive the test."""
    yield tmp_path
    for path in [*tmp_path.rglob("*.pth"), *tmp_path.rglob("*.safetensors")]:
        path.unlink()


@pytest.mark.golden
@pytest.mark.parametrize("name", MODELS)
def test_every_published_model_at_full_size_there_and_back(
    name: str, manifest: dict[str, Any], folder: Path, msdetr: Callable[..., Any]
) -> None:
    state = random_state(manifest[name]["state_dict"])
    file = save(
        folder / "published.pth", state, lr=2e-4, num_queries=int("900" in name) * 600 + 300
    )
    output, back = folder / "checkpoint", folder / "back.pth"
    command = ("import-official", file, "--recipe", MODELS[name], "--output", output)
    done = msdetr(*command)
    assert (done.code, done.err) == (0, ""), done.err

    info, weights = read_info(output), read_weights(output)
    origin = info["imported_from"]
    assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin["arguments"]["lr"] == 2e-4
    assert len(info["classes"]["names"]) == 80
    for ours, aliases in published_names(weights).items():
        assert torch.equal(weights[ours], state[aliases[0]]), ours

    export_official(load_checkpoint(output), back)
    written = read_published_file(back).state
    assert {k: list(v.shape) for k, v in written.items()} == manifest[name]["state_dict"]
    assert all(torch.equal(written[key], state[key]) for key in state)


def test_backbone_has_torchvisions_names() -> None:
    prefix = "backbone.0.body."
    with torch.device("meta"):
        theirs = resnet50().state_dict()
    expected = {
        name: list(value.shape)
        for name, value in theirs.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    model = build_model(load_recipe("ddetr_300q").model, 91)
    ours = to_published(model.state_dict())
    found = {k.removeprefix(prefix): list(v.shape) for k, v in ours.items() if prefix in k}
    assert found == expected


@pytest.mark.golden
@pytest.mark.parametrize("name", MODELS)
def test_wrong_recipe_is_told_the_right_one(
    name: str, manifest: dict[str, Any], tmp_path: Path, refused: Callable[..., list[str]]
) -> None:
    shapes = manifest[name]["state_dict"]
    file = save(tmp_path / "published.pth", hollow_state(shapes))
    wrong = "ddetr_pp_300q" if name == "ms_ddetr_pp_900q" else "ddetr_pp_900q"
    lines = refused("import-official", file, "--recipe", wrong, "--output", tmp_path / "checkpoint")
    reason = lines[1].strip()
    fitting = re.match(rf"does not fit recipe {wrong}, but ([\w, ]+)[,:]", reason)
    assert fitting is not None
    assert fitting[1].split(", ")[0] == MODELS[name]
    assert wrong not in fitting[1].split(", ")
    # Everything that differs is there by name.
    with torch.device("meta"):
        model = build_model(load_recipe(wrong).model, 91)
    expected = {k: list(v.shape) for k, v in to_published(model.state_dict()).items()}
    listed = {line.split()[0] for line in lines[2:]}
    differing = {n for n in shapes if expected.get(n) != shapes[n]}
    assert differing <= listed
    assert {base_name(n) for n in listed} == {
        base_name(n) for n in differing | (expected.keys() - shapes.keys())
    }


@pytest.mark.golden
def test_recipe_is_suggested_where_none_was_named(
    manifest: dict[str, Any], tmp_path: Path, refused_line: Callable[..., str]
) -> None:
    shapes = manifest["ms_ddetr_pp_900q"]["state_dict"]
    file = save(tmp_path / "published.pth", hollow_state(shapes))
    assert refused_line("eval", "--ckpt", file) == (
        f"error: {file}: is a file; expected a checkpoint directory or a run directory; for a "
        "published .pth file name its recipe, too: --recipe NAME (it fits ddetr_pp_900q)"
    )


@pytest.mark.golden
@pytest.mark.dataset
def test_evaluated_directly_and_after_import(
    data_dir: Path, tmp_path: Path, msdetr: Callable[..., Any], small_file: Path
) -> None:
    data = ("--set", f"data.root={data_dir / 'coco-tiny'}", "--set", "data.val.limit=2")
    output = tmp_path / "checkpoint"
    published = (small_file, "--recipe", "ddetr_300q", *SMALL_OPTIONS)
    assert msdetr("import-official", *published, "--output", output).code == 0
    results = {}
    for name, source in {"direct": published, "imported": (output,)}.items():
        folder = tmp_path / name
        done = msdetr(
            *("eval", "--ckpt", *source, *data, "--device", "cpu", "--output", folder, "--json")
        )
        assert done.code == 0, done.err
        assert json.loads(done.out)["setting"]["imported_from"]["file"] == "small.pth"
        results[name] = json.loads((folder / "predictions.json").read_text())
    assert len(results["direct"]) == 200
    assert results["direct"] == results["imported"]


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = build_model(load_recipe("ddetr_300q", SMALL_OVERRIDES).model, 91)
    return to_published(model.state_dict())


@pytest.fixture
def small_file(tmp_path: Path, small_state: dict[str, Tensor]) -> Path:
    return save(tmp_path / "small.pth", small_state, num_queries=20, nheads=4, use_ms_detr=True)


@pytest.fixture
def refused_import(tmp_path: Path, refused: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def run(file: Path, *options: str | Path) -> list[str]:
        output = tmp_path / "checkpoint"
        command = ("import-official", file, "--recipe", "ddetr_300q", "--output", output)
        return refused(*command, *SMALL_OPTIONS, *options)

    return run


def test_everything_wrong_is_listed_by_name(
    tmp_path: Path, small_state: dict[str, Tensor], refused_import: Callable[..., list[str]]
) -> None:
    state = dict(small_state)
    del state["transformer.level_embed"]
    state["input_proj.0.0.bias"] = torch.zeros(7)
    state["stray.weight"] = torch.zeros(1)
    lines = refused_import(save(tmp_path / "odd.pth", state))
    assert lines[0] == f"error: {tmp_path / 'odd.pth'}: 4 problems"
    assert "state the differences with --set model.KEY=VALUE; else it is damaged" in lines[1]
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "stray.weight unexpected: the model has no such tensor",
        "input_proj.0.0.bias expected shape [32], got [7]",
        "transformer.level_embed missing from the file",
    ]


def test_aliases_must_agree(
    tmp_path: Path, small_state: dict[str, Tensor], refused_import: Callable[..., list[str]]
) -> None:
    alias = "transformer.decoder.class_embed.0.bias"
    state = {**small_state, alias: small_state[alias] + 1}
    (line,) = refused_import(save(tmp_path / "odd.pth", state))
    assert line.endswith(f"{alias}: differs from class_embed.0.bias, though both name one tensor")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_queries": 900}, "args.num_queries is 900 in the file; model.num_queries of"),
        ({"nheads": 8}, "args.nheads is 8 in the file; model.heads of the recipe differs"),
        ({"use_ms_detr": False}, "args.use_ms_detr is False in the file; model.placement of"),
    ],
)
def test_what_tensors_do_not_tell_is_taken_from_the_command_line(
    arguments: dict[str, Any],
    expected: str,
    tmp_path: Path,
    small_state: dict[str, Tensor],
    refused_import: Callable[..., list[str]],
) -> None:
    lines = refused_import(save(tmp_path / "odd.pth", small_state, **arguments))
    assert len(lines) == 3
    assert expected in " ".join(lines[2].split())


def test_something_else_is_called_so(
    tmp_path: Path, refused_import: Callable[..., list[str]]
) -> None:
    lines = refused_import(save(tmp_path / "other.pth", {"fc.weight": torch.zeros(1)}))
    assert "it is no published checkpoint of MS-DETR, MDS-DETR or Deformable-DETR" in lines[1]


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("command", ["import-official", "eval", "predict", "train"])
def test_hostile_file_is_refused_and_not_run(
    command: str,
    *,
    tmp_path: Path,
    small_state: dict[str, Tensor],
    refused_line: Callable[..., str],
    tiny: list[str],
    shapes_root: Path,
) -> None:
    file, marker = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"model": small_state, "args": _RunsCode(marker)}, file)
    commands = {
        "import-official": (file, "--recipe", "ddetr_300q", "--output", tmp_path / "out"),
        "eval": ("--ckpt", file, "--recipe", "ddetr_300q"),
        "predict": ("--ckpt", file, "--recipe", "ddetr_300q", shapes_root / "val2017"),
        "train": ("shapes_tiny", *tiny, "--init-from", file, "--output", tmp_path / "out"),
    }
    line = refused_line(command, *commands[command])
    assert line == (
        f"error: {file}: refused: damaged, or a pickle that holds more than tensors and plain "
        "values; nothing in it was run"
    )
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()


def test_missing_and_truncated_file(
    tmp_path: Path, small_file: Path, refused_import: Callable[..., list[str]]
) -> None:
    gone = tmp_path / "gone.pth"
    assert refused_import(gone) == [f"error: {gone}: no such file"]
    small_file.write_bytes(small_file.read_bytes()[:-100])
    (line,) = refused_import(small_file)
    assert line.startswith(f"error: {small_file}: refused: damaged")


def test_output_is_replaced_only_by_force_and_only_if_a_checkpoint(
    small_file: Path,
    tmp_path: Path,
    msdetr: Callable[..., Any],
    refused_line: Callable[..., str],
) -> None:
    output = tmp_path / "out"
    command = ("import-official", small_file, "--recipe", "ddetr_300q", *SMALL_OPTIONS)
    assert msdetr(*command, "--output", output).code == 0
    assert refused_line(*command, "--output", output) == (
        f"error: {output}: exists already; give another --output, or --force"
    )
    assert msdetr(*command, "--output", output, "--force").code == 0
    read_info(output)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("text")
    assert refused_line(*command, "--output", mine, "--force") == (
        f"error: {mine}: exists and is no checkpoint; give another --output"
    )


def test_recipe_beside_a_checkpoint_of_ours(
    run_dir: Path, refused_line: Callable[..., str]
) -> None:
    line = refused_line("eval", "--ckpt", run_dir, "--recipe", "ddetr_300q")
    assert line == f"error: --recipe: is for published .pth files; {run_dir} has its own recipe"


def test_file_of_a_checkpoint_of_ours(run_dir: Path, refused_line: Callable[..., str]) -> None:
    file = run_dir / "checkpoints/last/model.safetensors"
    assert f"run directory, such as {file.parent}" in refused_line("eval", "--ckpt", file)


class TestClasses:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        model = build_model(load_recipe("ddetr_300q", SMALL_OVERRIDES).model, 7)
        return save(tmp_path / "mine.pth", to_published(model.state_dict()))

    def test_must_be_named(self, file: Path, refused_import: Callable[..., list[str]]) -> None:
        (line,) = refused_import(file)
        assert line == (
            f"error: {file}: has 7 classes, not COCO's 91; name them with "
            "--classes ANNOTATIONS.json"
        )

    def test_come_from_an_annotation_file(self, file: Path, shapes_root: Path) -> None:
        annotations = shapes_root / "annotations/instances_val2017.json"
        loaded = load_official(file, "ddetr_300q", overrides=SMALL_OVERRIDES, classes=annotations)
        names = [c["name"] for c in json.loads(annotations.read_text())["categories"]]
        assert list(loaded.label_space.names_by_label) == names

    def test_must_be_as_many(
        self, file: Path, tmp_path: Path, refused_import: Callable[..., list[str]]
    ) -> None:
        categories = [{"id": i, "name": f"c{i}"} for i in range(1, 9)]
        path = tmp_path / "classes.json"
        images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]
        content = {"images": images, "annotations": [], "categories": categories}
        path.write_text(json.dumps(content))
        (line,) = refused_import(file, "--classes", path)
        assert f"has 7 classes, which {path} does not fit" in line


class TestExport:
    def test_names_coco_classes_by_their_ids(self, small_file: Path) -> None:
        space = load_official(small_file, "ddetr_300q", overrides=SMALL_OVERRIDES).label_space
        assert (len(space.names), space.category_ids[-1], space.num_classes) == (80, 90, 91)
        assert (space.names_by_label[1], space.names_by_label[90]) == ("person", "toothbrush")

    def test_what_the_published_code_has_not(self, run_dir: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError) as caught:
            export_official(load_checkpoint(run_dir), tmp_path / "out.pth")
        assert "model.backbone.name" in str(caught.value)
        assert "is 'resnet_tiny', which the published code has not" in str(caught.value)
        assert not (tmp_path / "out.pth").exists()

    def test_backbone_that_the_published_code_has_not(self, small_file: Path) -> None:
        backbone = "model.backbone={name: timm/convnext_atto, weights: none}"
        with pytest.raises(RecipeError) as caught:
            load_official(small_file, "ddetr_300q", overrides=[*SMALL_OVERRIDES, backbone])
        assert str(caught.value) == (
            "ddetr_300q: model.backbone.name: is 'timm/convnext_atto', which the published code "
            "has not: it knows torchvision's ResNets only"
        )

    def test_file_is_not_overwritten(self, run_dir: Path, tmp_path: Path) -> None:
        (tmp_path / "out.pth").write_text("mine")
        with pytest.raises(Exception, match="another `output`, or `force=True`"):
            export_official(load_checkpoint(run_dir), tmp_path / "out.pth")
        with pytest.raises(Exception, match="is a folder"):
            export_official(load_checkpoint(run_dir), tmp_path)
        assert (tmp_path / "out.pth").read_text() == "mine"

    def test_on_the_command_line(
        self,
        small_file: Path,
        tmp_path: Path,
        msdetr: Callable[..., Any],
        refused_line: Callable[..., str],
    ) -> None:
        out = tmp_path / "out.pth"
        published = ("--ckpt", small_file, "--recipe", "ddetr_300q", *SMALL_OPTIONS)
        command = ("export", "--format", "official", *published, "--output", out)
        line = refused_line(*command, "--precision", "fp16")
        assert line == (
            "error: --precision: does not go with --format official, which keeps all weights"
        )
        done = msdetr(*command)
        assert (done.code, done.err) == (0, "")
        state, written = (read_published_file(path).state for path in (small_file, out))
        assert written.keys() == state.keys()
        assert all(torch.equal(written[key], state[key]) for key in state)
        assert "exists already; give another --output, or --force" in refused_line(*command)

    def test_from_python(self, small_file: Path, tmp_path: Path) -> None:
        detector = Detector.from_checkpoint(
            small_file, recipe="ddetr_300q", overrides=SMALL_OVERRIDES, device="cpu"
        )
        assert detector.class_names[1] == "person"
        detector.export_official(tmp_path / "out.pth")
        state, written = (
            read_published_file(path).state for path in (small_file, tmp_path / "out.pth")
        )
        assert all(torch.equal(written[key], state[key]) for key in state)
        with pytest.raises(UsageError, match="exists already"):
            detector.export_official(tmp_path / "out.pth")

    def test_written_twice_with_force(
        self, small_file: Path, tmp_path: Path, msdetr: Callable[..., Any]
    ) -> None:
        checkpoint, out = tmp_path / "checkpoint", tmp_path / "out.pth"
        command = ("import-official", small_file, "--recipe", "ddetr_300q", *SMALL_OPTIONS)
        assert msdetr(*command, "--output", checkpoint).code == 0
        write_published_file(out, {"old": torch.zeros(1)})
        export_official(load_checkpoint(checkpoint), out, force=True)
        state = read_published_file(small_file).state
        written = read_published_file(out).state
        assert all(torch.equal(written[key], state[key]) for key in state)
        assert written.keys() == state.keys()
