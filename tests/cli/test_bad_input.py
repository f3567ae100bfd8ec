"""Invalid input: one line per problem, exit code 2, no traceback, nothing overwritten."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from msdetr.process_lock import hold

Refuse = Callable[..., list[str]]


class TestRecipe:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("train:\n  epoch: 3\n", ("line 2", "train.epoch", "did you mean 'epochs'?")),
            ("train:\n  epochs: many\n", ("line 2", "train.epochs", "integer", "got 'many'")),
            ("model:\n  dropout: 1.5\n", ("line 2", "model.dropout", "[0, 1)", "got 1.5")),
            ("train:\n  lr: [1\n", ("line 3", "YAML")),
            (
                "extends: ddetr_300q\nmodel:\n  backbone: {name: resnet18, dilation: true}\n",
                ("line 3", "model.backbone.dilation", "must be false for resnet18"),
            ),
        ],
        ids=["misspelt", "type", "range", "yaml", "dilation"],
    )
    def test_line_and_key_are_named(
        self, text: str, parts: tuple[str, ...], tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(text)
        line = refused_line("train", recipe, "--output", tmp_path / "run")
        for part in (str(recipe), *parts):
            assert part in line

    def test_every_problem_has_its_line(self, tmp_path: Path, refused: Refuse) -> None:
        recipe = tmp_path / "mine.yaml"
        recipe.write_text("model:\n  widht: 64\ntrain:\n  lr: -1\n")
        lines = refused("train", recipe, "--set", "train.epochs=0", "--output", tmp_path / "run")
        assert lines[0] == f"error: {recipe}: 3 problems"
        assert len(lines) == 4
        for place, key in (("line 2", "widht"), ("line 4", "lr"), ("--set", "epochs")):
            assert any(place in line and key in line for line in lines[1:])

    def test_circle_of_extends(self, tmp_path: Path, refused_line: Callable[..., str]) -> None:
        (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
        (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
        line = refused_line("train", tmp_path / "a.yaml", "--output", tmp_path / "run")
        assert "must not lead back to itself: a.yaml -> b.yaml -> a.yaml" in line

    def test_unknown_name(self, refused_line: Callable[..., str]) -> None:
        line = refused_line("train", "shapes_tinny")
        assert "no packaged recipe of that name" in line
        assert "shapes_tiny" in line.split("shapes_tinny", 1)[1]


class TestData:
    def test_missing_root(self, tmp_path: Path, refused_training: Callable[..., str]) -> None:
        root = tmp_path / "nothing"
        line = refused_training("--set", "data.source=coco", "--set", f"data.root={root}")
        assert f"{root}: the data root does not exist" in line

    def test_no_root_at_all(self, refused_training: Callable[..., str]) -> None:
        assert "set data.root" in refused_training("--set", "data.source=coco")

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (None, "the annotation file does not exist"),
            ("{\n  nonsense", "line 2: not JSON"),
            ("[]", "not a COCO annotation file"),
        ],
    )
    def test_annotation_file(
        self,
        content: str | None,
        part: str,
        tmp_path: Path,
        shapes_root: Path,
        refused_training: Callable[..., str],
    ) -> None:
        file = tmp_path / "annotations.json"
        if content is not None:
            file.write_text(content)
        line = refused_training(
            *("--set", "data.source=coco", "--set", f"data.root={shapes_root}"),
            *("--set", f"data.train.annotations={file}"),
        )
        assert str(file) in line
        assert part in line

    def test_missing_keys_have_a_line_each(
        self, tmp_path: Path, shapes_root: Path, tiny: list[str], refused: Refuse
    ) -> None:
        file = tmp_path / "annotations.json"
        file.write_text('{"labels": []}')
        lines = refused(
            *("train", "shapes_tiny", "--output", tmp_path / "run", *tiny),
            *("--set", "data.source=coco", "--set", f"data.root={shapes_root}"),
            *("--set", f"data.train.annotations={file}"),
        )
        assert lines[0] == f"error: {file}: 3 problems"
        assert [line.split()[0] for line in lines[1:]] == ["images", "annotations", "categories"]

    def test_category_ids_beyond_coco91(
        self, tmp_path: Path, shapes_root: Path, refused_training: Callable[..., str]
    ) -> None:
        content = json.loads((shapes_root / "annotations/instances_train2017.json").read_text())
        content["categories"].append({"id": 91, "name": "beyond"})
        file = tmp_path / "annotations.json"
        file.write_text(json.dumps(content))
        line = refused_training(
            *("--set", "data.source=coco", "--set", f"data.root={shapes_root}"),
            *("--set", f"data.train.annotations={file}", "--set", "data.label_space=coco91"),
        )
        assert f"{file}: category 'beyond': id 91 lies outside 1..90" in line
        assert "set data.label_space: contiguous" in line

    @pytest.mark.parametrize(
        ("data", "part"),
        [
            ("{root}/nothing", "the data root does not exist"),
            ("{root},", "image folder and annotation file separated by a comma"),
            (",{root}/annotations/instances_val2017.json", "separated by a comma"),
            ("{root}/annotations/instances_val2017.json", "separated by a comma"),
            ("{root}/val2017,{root}/nothing.json", "nothing.json: the annotation file does not"),
            ("{root}/nothing,{root}/annotations/instances_val2017.json", "image folder does not"),
        ],
    )
    def test_evaluation_data(
        self,
        data: str,
        part: str,
        run_dir: Path,
        shapes_root: Path,
        refused_line: Callable[..., str],
    ) -> None:
        given = data.format(root=shapes_root)
        assert part in refused_line("eval", "--ckpt", run_dir, "--data", given)

    def test_classes_that_the_model_does_not_know(
        self,
        run_dir: Path,
        shapes_root: Path,
        few_classes: list[str],
        tmp_path: Path,
        refused_line: Callable[..., str],
    ) -> None:
        (named,) = [text for text in few_classes if text.startswith("data.val.annotations=")]
        data = f"{shapes_root / 'val2017'},{named.split('=')[1]}"
        line = refused_line("eval", "--ckpt", run_dir, "--data", data)
        assert "category ids 10, 30, 70 are not among the model's 7 classes" in line
        content = json.loads((shapes_root / "annotations/instances_val2017.json").read_text())
        content["categories"][0]["name"] = "dog"
        file = tmp_path / "renamed.json"
        file.write_text(json.dumps(content))
        data = f"{shapes_root / 'val2017'},{file}"
        line = refused_line("eval", "--ckpt", run_dir, "--data", data)
        assert f"{file}: category 1: is 'dog' here, but " in line

    def test_layers_of_a_results_file(
        self, run_dir: Path, refused_line: Callable[..., str]
    ) -> None:
        options = ("--from-predictions", run_dir / "evaluation/predictions.json", "--per-layer")
        assert "--per-layer: needs the model" in refused_line("eval", "--ckpt", run_dir, *options)


class TestOutput:
    @pytest.mark.parametrize("options", [(), ("--overfit", "8")], ids=["train", "overfit"])
    def test_directory_with_something_in_it(
        self,
        options: tuple[str, ...],
        tmp_path: Path,
        tiny: list[str],
        refused_line: Callable[..., str],
    ) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/notes.txt").write_text("mine")
        line = refused_line("train", "shapes_tiny", "--output", tmp_path / "run", *tiny, *options)
        assert "is not empty; continue the run in it with --resume, or give another" in line

    @pytest.mark.parametrize("options", [(), ("--resume",), ("--overfit", "8")], ids=str)
    def test_run_under_way(
        self,
        options: tuple[str, ...],
        run_dir: Path,
        tmp_path: Path,
        tiny: list[str],
        refused_line: Callable[..., str],
    ) -> None:
        output = Path(shutil.copytree(run_dir, tmp_path / "run"))
        with hold(output / "run.lock"):
            line = refused_line("train", "shapes_tiny", "--output", output, *tiny, *options)
        assert line == (
            f"error: {output}: is being trained by process {os.getpid()} on "
            f"{socket.gethostname()}; wait for it to end, or give another --output"
        )

    def test_run_of_another_recipe(
        self, run_dir: Path, tmp_path: Path, tiny: list[str], refused_line: Callable[..., str]
    ) -> None:
        shutil.copytree(run_dir, tmp_path / "run")
        options = ("--output", tmp_path / "run", "--resume", "--set", "train.epochs=1")
        line = refused_line("train", "shapes_tiny", *tiny, *options)
        assert "train.epochs: was 2 in the run, is 1 now; 2 epochs are finished" in line

    @pytest.mark.parametrize(
        ("words", "where"),
        [
            (("eval", "--ckpt", ""), "--ckpt"),
            (("train", "shapes_tiny", "--output", ""), "--output"),
            (("predict", "", "--ckpt", "x"), "argument 2"),
            (("replay", ""), "argument 2"),
        ],
    )
    def test_empty_arguments(
        self, words: tuple[str, ...], where: str, refused_line: Callable[..., str]
    ) -> None:
        assert (
            refused_line(*words) == f"error: {where}: is empty; is a variable of the shell not set?"
        )

    @pytest.mark.parametrize("place", [".", "..", "/"])
    def test_folders_without_a_name(
        self,
        place: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        refused_line: Callable[..., str],
    ) -> None:
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        assert "holds no checkpoint" in refused_line("eval", "--ckpt", place)

    def test_evaluation_results_are_not_overwritten(
        self, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        (tmp_path / "metrics.json").write_text("{}")
        line = refused_line("eval", "--ckpt", run_dir, "--output", tmp_path)
        assert f"{tmp_path}: holds metrics.json already; give another --output, or --force" in line

    def test_a_file_is_no_directory(
        self, run_dir: Path, tmp_path: Path, tiny: list[str], refused_line: Callable[..., str]
    ) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        options = ("--output", file)
        assert f"{file}: is a file" in refused_line("train", "shapes_tiny", *tiny, *options)
        assert f"{file}: is a file" in refused_line("eval", "--ckpt", run_dir, *options)


class TestMachine:
    @pytest.mark.parametrize(
        ("device", "part"),
        [
            ("cuda:99", "'cuda:99' is not available: torch sees"),
            ("gpu", "expected auto, cpu, cuda or cuda:N, got 'gpu'"),
            ("meta", "expected auto, cpu, cuda or cuda:N, got 'meta'"),
        ],
    )
    def test_device(
        self,
        device: str,
        part: str,
        run_dir: Path,
        refused_line: Callable[..., str],
        refused_training: Callable[..., str],
    ) -> None:
        assert part in refused_training("--device", device)
        assert part in refused_line("eval", "--ckpt", run_dir, "--device", device)

    def test_fp16_on_a_cpu(self, refused_training: Callable[..., str]) -> None:
        line = refused_training("--device", "cpu", "--set", "train.precision=fp16")
        assert "set train.precision to fp32 or bf16" in line

    def test_imagenet_weights_without_network(
        self,
        tmp_path: Path,
        refused_training: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise URLError("no network")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr("torch.hub.download_url_to_file", fail)
        backbone = "{name: resnet18, norm: frozen_batch, weights: imagenet, stem_width: null}"
        line = refused_training("--device", "cpu", "--set", f"model.backbone={backbone}")
        assert "no network" in line
        assert str(tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth") in line
        assert "set model.backbone.weights to the path of a file or to none" in line

    @pytest.mark.parametrize("content", [None, b"nonsense"])
    def test_backbone_file(
        self, content: bytes | None, tmp_path: Path, refused_training: Callable[..., str]
    ) -> None:
        file = tmp_path / "backbone.pth"
        if content is not None:
            file.write_bytes(content)
        line = refused_training("--device", "cpu", "--set", f"model.backbone.weights={file}")
        assert str(file) in line

    @pytest.mark.parametrize("content", [None, "{}", '[{"image_id": 5}]'])
    def test_predictions_file(
        self, content: str | None, run_dir: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        file = tmp_path / "predictions.json"
        if content is not None:
            file.write_text(content)
        line = refused_line("eval", "--ckpt", run_dir, "--from-predictions", file)
        assert str(file) in line
