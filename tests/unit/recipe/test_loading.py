"""Loading: inheritance, overrides, and what a reader is told about mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from msdetr.errors import RecipeError
from msdetr.recipe import Recipe, load_recipe, recipe_from_dict, recipe_to_dict

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problems(recipe: str | Path, *overrides: str) -> list[tuple[str, str]]:
    """(place, message without column padding) of every problem."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    assert caught.value.exit_code == 2
    return [(p.where, " ".join(p.message.split())) for p in caught.value.problems]


def test_packaged_main_model_is_the_default_recipe() -> None:
    recipe = load_recipe("ddetr_300q")
    assert recipe.model_copy(update={"description": ""}) == Recipe()


@pytest.mark.parametrize("name", ["shapes_tiny", "shapes_tiny.yaml", "recipes/shapes_tiny.yaml"])
def test_packaged_recipe_is_found_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes_tiny").mkdir()  # such as an output directory of the same name
    assert load_recipe(name) == load_recipe("shapes_tiny")


def test_existing_file_wins_over_packaged_name(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("extends: ddetr_300q\nmodel: {num_queries: 77}\n", "shapes_tiny.yaml")
    monkeypatch.chdir(path.parent)
    assert load_recipe("shapes_tiny.yaml").model.num_queries == 77


@pytest.mark.parametrize("parent", ["parent.yaml", "./parent.yaml", "sub/../parent.yaml"])
def test_child_merges_over_its_parent_mapping_by_mapping(write: Write, parent: str) -> None:
    write("train: {lr: 3e-4, epochs: 7}\ndata: {mean: [1, 2, 3]}\n", "parent.yaml")
    (write("", "x").parent / "sub").mkdir()
    recipe = load_recipe(write(f"extends: {parent}\ntrain: {{epochs: 9}}\ndata: {{root: here}}\n"))
    assert (recipe.train.lr, recipe.train.epochs) == (3e-4, 9)
    assert (recipe.data.mean, recipe.data.root) == ((1.0, 2.0, 3.0), Path("here"))


@pytest.mark.parametrize("parent", ["_base/ms_detr.yaml", "ddetr_300q", "ddetr_300q.yaml"])
def test_recipe_anywhere_extends_a_packaged_one(write: Write, parent: str) -> None:
    assert load_recipe(write(f"extends: {parent}\n")) == Recipe()


def test_description_is_not_inherited(write: Write) -> None:
    assert load_recipe(write("extends: ddetr_300q\n")).description == ""


def test_null_replaces_a_section_and_overrides_come_last(write: Write) -> None:
    path = write(
        "extends: ddetr_300q\nmodel: {placement: baseline, extra_ffn: false}\n"
        "supervision: {one_to_many: null}\ntrain: {lr: 1}\n"
    )
    recipe = load_recipe(path, ["train.lr=2", "train.lr=1e-4", "train.ema={decay: 0.5}"])
    assert recipe.supervision.one_to_many is None
    assert recipe.train.lr == 1e-4
    assert recipe.train.ema is not None
    assert recipe.train.ema.decay == 0.5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.root=a=b", Path("a=b")),  # split at the first =
        ("data.root=no", Path("no")),  # text in YAML 1.2, false in 1.1
        ("data.root=2026-01-02", Path("2026-01-02")),  # a date in YAML 1.1
        ("data.root=1_000", Path("1_000")),  # an integer in YAML 1.1
        ("data.root=", None),
        ("data.root=null", None),
    ],
)
def test_override_value_is_yaml(override: str, expected: Path | None) -> None:
    assert load_recipe("ddetr_300q", [override]).data.root == expected


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", ".0001", "+1E-4", "1.e-4"])
def test_float_is_read_in_every_notation(text: str) -> None:
    assert load_recipe("ddetr_300q", [f"train.lr={text}"]).train.lr == 1e-4


def test_plain_values_load_back_equal_and_take_overrides() -> None:
    recipe = load_recipe("shapes_tiny")
    assert recipe_from_dict(recipe_to_dict(recipe), "checkpoint") == recipe
    changed = recipe_from_dict(recipe_to_dict(recipe), "checkpoint", ["train.seed=7"])
    assert changed.train.seed == 7
    with pytest.raises(RecipeError, match=r"checkpoint: train\.seed: must be an integer"):
        recipe_from_dict({"train": {"seed": "x"}}, "checkpoint")


def test_all_problems_are_reported_at_once_in_columns(write: Write) -> None:
    path = write(
        "extends: ddetr_300q\n"
        "supervision:\n"
        "  one_to_many:\n"
        "    treshold: 0.4\n"
        "model:\n"
        "  dropout: 1.5\n"
        "  backbone: {name: resnet18, dilation: true}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["model.decoder_layers=0", "epochs=3", "train.lr"])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 6 problems"
    text = [
        ("line 4", "supervision.one_to_many.treshold", "unknown key; did you mean 'threshold'?"),
        ("line 6", "model.dropout", "must be a number in [0, 1), got 1.5"),
        ("line 7", "model.backbone.dilation", "must be false for resnet18"),
        ("`overrides`", "", "must look like key=value with a dotted key, got 'train.lr'"),
        ("`overrides`", "model.decoder_layers", "must be an integer >= 1, got 0"),
        ("`overrides`", "epochs", "unknown key; did you mean 'train.epochs'?"),
    ]
    for line, (where, key, message) in zip(lines[1:], text, strict=True):
        assert line.startswith(f"  {where:<11}   {key:<32}   {message}")


def test_problem_in_a_parent_names_the_parent_and_its_line(write: Write) -> None:
    write("# first\ntrain:\n  epochs: many\n", "parent.yaml")
    child = write("extends: parent.yaml\ntrain: {lr: 2}\n")
    expected = "train.epochs: must be an integer >= 1, got 'many'"
    assert problems(child) == [("parent.yaml line 3", expected)]


def test_value_repaired_by_an_override_is_no_problem(write: Write) -> None:
    assert load_recipe(write("train: {epochs: many}\n"), ["train.epochs=2"]).train.epochs == 2


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "line 1", "must be a mapping of sections"),
        ("- a\n", "line 1", "must be a mapping of sections"),
        ("model:\n", "line 1", "model: must be a mapping, got null"),
        ("a: b\n  c: d\n", "line 2", "broken YAML: mapping values are not allowed here"),
        ("model: [1,\n", "line 2", "broken YAML"),
        ("a: 1\n---\nb: 2\n", "line 2", "broken YAML: expected a single document"),
        ("a: 1\nb: \x01\n", "line 2", "broken YAML: character #x01 is not allowed"),
        ("a: " + "[" * 5000, "", "broken YAML: nested too deeply"),
        (
            "train:\n  lr: 1\n  lr: 2\n",
            "line 3",
            "train.lr: the key occurs twice, first in line 2",
        ),
        ("train: &x {lr: 1}\n", "", ""),  # an anchor that nothing uses does no harm
        (
            "train: {lr: &x 1, clip_norm: *x}\n",
            "line 1",
            "train.clip_norm: anchors are not supported",
        ),
        ("train: &x {ema: *x}\n", "line 1", "train.ema: anchors are not supported"),
        ("train: {lr: !!python/object:os.system x}\n", "line 1", "train.lr: the YAML tag"),
        ("? [a]\n: b\n", "line 1", "a key must be text"),
        ("train: {seed: 1.0}\n", "line 1", "train.seed: must be an integer in [0, 4294967295]"),
        ("train: {seed: true}\n", "line 1", "train.seed: must be an integer"),
        ("train: {lr: .inf}\n", "line 1", "train.lr: must be a number > 0, got inf"),
        ("train: {lr: .nan}\n", "line 1", "train.lr: must be a number > 0, got nan"),
        ("train: {seed: " + "9" * 5000 + "}\n", "line 1", "train.seed: must be an integer"),
        ("train: {compile: yes}\n", "line 1", "train.compile: must be true or false, got 'yes'"),
        ("train: {precision: fp8}\n", "line 1", "train.precision: must be one of fp32, bf16, fp16"),
        ("train: {ema: 3}\n", "line 1", "train.ema: must be a mapping or null, got 3"),
        ("train.lr: 3\n", "line 1", "train.lr: unknown key; write 'lr' nested in its section"),
        (
            "model: {width: 48}\n",
            "line 1",
            "model.width: must be an integer in [32, 4096], a multiple",
        ),
        (
            "data: {mean: [1, 2]}\n",
            "line 1",
            "data.mean: must be a list of 3, each a number, got [1, 2]",
        ),
        ("data:\n  mean: [1,\n    a, 3]\n", "line 3", "data.mean.1: must be a number, got 'a'"),
        ("data: {std: [1, 0, 1]}\n", "line 1", "data.std.1: must be a number > 0, got 0"),
        ("data: {root: 5}\n", "line 1", "data.root: must be a path or null, got 5"),
        ("zzz: 5\n", "line 1", "zzz: unknown key; valid keys are description, model"),
        ("extends: [a, b]\n", "line 1", "extends: must be the path or name of one recipe"),
        ("extends: ddetr_300\n", "line 1", "nor a packaged recipe; did you mean 'ddetr_300q'?"),
        ("extends: ../_base/ddetr.yaml\n", "line 1", "neither a file beside this one"),
        (f"extends: {'a' * 5000}\n", "line 1", "neither a file beside this one"),
    ],
)
def test_mistake_in_a_file(write: Write, text: str, where: str, message: str) -> None:
    path = write(text)
    if not message:
        load_recipe(path)
        return
    [(found_where, found)] = problems(path)
    assert found_where == where
    assert message in found


@pytest.mark.parametrize("value", ["None", "no", "false", "null", "'null'", ""])
def test_look_alike_of_none_is_no_file_of_weights(value: str) -> None:
    place, message = problems("ddetr_300q", f"model.backbone.weights={value}")[0]
    assert place == "`overrides`"
    assert message.endswith("; did you mean 'none'?")


def test_name_of_a_backbone() -> None:
    expected = "must be one of resnet18, resnet34, resnet50, resnet101, resnet_tiny or timm/NAME"
    for value in ("resnet5", "timm/", "3"):
        [(_, message)] = problems("ddetr_300q", f"model.backbone.name={value}")
        shown = value if value == "3" else f"'{value}'"
        assert message == f"model.backbone.name: {expected}, got {shown}"


def test_package_of_weights_has_a_name() -> None:
    [(_, message)] = problems("ddetr_300q", "model.backbone.weights='package:'")
    assert message.endswith("must name a package, 'package:NAME', got 'package:'")


@pytest.mark.parametrize("override", ["lr", "=3", "train..lr=3", ".lr=3"])
def test_override_without_key_and_value(override: str) -> None:
    [(place, message)] = problems("ddetr_300q", override)
    assert place == "`overrides`"
    assert message.startswith("must look like key=value")


def test_broken_yaml_in_an_override_names_its_key() -> None:
    [(place, message)] = problems("ddetr_300q", "data.mean=[1, 2")
    assert place == "`overrides`"
    assert message.startswith("data.mean: broken YAML")


def test_extends_cycle_is_refused(write: Write) -> None:
    write("extends: mine.yaml\n", "other.yaml")
    [(place, message)] = problems(write("train: {}\nextends: other.yaml\n"))
    assert place == "other.yaml line 1"
    assert message.endswith("must not lead back to itself: mine.yaml -> other.yaml -> mine.yaml")
    [(_, message)] = problems(write("extends: self.yaml\n", "self.yaml"))
    assert message.endswith("must not lead back to itself: self.yaml -> self.yaml")


@pytest.mark.parametrize("name", ["ddetr_300k", "recipes/ddetr_300k.yaml"])
def test_unknown_name_gets_the_nearest_one(name: str) -> None:
    [(_, message)] = problems(name)
    assert "did you mean 'ddetr_300q'?" in message
    assert "`msdetr recipes list`" in message


def test_unreadable_files(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert problems(binary) == [("", "must be a text file in UTF-8")]
    assert "is a folder" in problems(tmp_path)[0][1]
    assert "no such file" in problems("a" * 5000)[0][1]


def test_very_many_problems_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("\n".join(f"k{number}: 1" for number in range(1000)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert len(caught.value.problems) == 101
    assert "and 900 more problems" in caught.value.problems[-1].message
