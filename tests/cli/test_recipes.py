"""The command line itself, and `msdetr recipes`."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from msdetr.errors import DivergedError
from msdetr.recipe import load_recipe, packaged_recipes

cli = importlib.import_module("msdetr.cli.main")  # mypy does not see the mapped package
COMMAND = Path(sys.executable).with_name("msdetr")


def run_msdetr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_installed_command_lists_and_refuses(tmp_path: Path) -> None:
    listed = run_msdetr("recipes", "list", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "shapes_tiny" in [row["name"] for row in json.loads(listed.stdout)]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train:\n  epoch: 3\n", encoding="utf-8")
    refused = run_msdetr("recipes", "show", str(recipe))
    assert (refused.returncode, refused.stdout) == (2, "")
    message = "line 2: train.epoch: unknown key; did you mean 'epochs'?"
    assert refused.stderr == f"error: {recipe}: {message}\n"


def test_torch_is_not_imported_with_the_command_line() -> None:
    code = (
        "import sys, msdetr.cli.main as m; code = m.main(['recipes', 'list']);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["recipes", "list"], ["recipes", "copy"]])
def test_help_has_three_examples(
    command: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, flag]) == 0
    _, _, examples = capsys.readouterr().out.partition("Examples:\n")
    assert sum(line.strip().startswith("msdetr ") for line in examples.splitlines()) == 3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("msdetr ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["recipes", "show"], ["recipes", "list", "-x"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_traceback_is_shown_on_demand(debug: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "show", "nonsense", *debug]) == 2
    shown = capsys.readouterr().err
    assert "no packaged recipe of that name" in shown
    assert ("Traceback" in shown) is bool(debug)


@pytest.mark.parametrize(("error", "code"), [(DivergedError("nan"), 3), (KeyboardInterrupt(), 130)])
def test_exit_code_follows_the_error(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("msdetr.cli.recipes.load_recipe", fail)
    assert cli.main(["recipes", "show", "shapes_tiny"]) == code


def test_list_names_every_recipe_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "list"]) == 0
    shown = capsys.readouterr().out
    for info in packaged_recipes():
        assert info.name in shown
        assert info.summary.split()[0] in shown


def test_show_prints_the_resolved_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["recipes", "show", "shapes_tiny", "--set", "train.seed=5"]) == 0
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_recipe(path) == load_recipe("shapes_tiny", ["train.seed=5"])


def test_copy_writes_a_complete_recipe_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    assert cli.main(["recipes", "copy", "ddetr_300q", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    recipe = load_recipe("ddetr_300q")
    assert text.startswith(f"# {recipe.description}\n")
    assert load_recipe(path) == recipe
    assert cli.main(["recipes", "copy", "shapes_tiny", str(path)]) == 2
    assert path.read_text(encoding="utf-8") == text
    assert f"{path}: exists already" in capsys.readouterr().err
    assert cli.main(["recipes", "copy", "shapes_tiny", str(tmp_path / "no" / "x.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_validate_reports_every_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, worse = tmp_path / "bad.yaml", tmp_path / "worse.yaml"
    bad.write_text("model: {widht: 3}\n", encoding="utf-8")
    worse.write_text("model: {width: 3}\ntrain:\n  lr: fast\n", encoding="utf-8")
    assert cli.main(["recipes", "validate", str(bad), "shapes_tiny", str(worse)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "shapes_tiny: valid\n"
    assert f"{bad}: line 1: model.widht: unknown key; did you mean 'width'?" in shown.err
    assert f"{worse}: 2 problems\n" in shown.err
    assert cli.main(["recipes", "validate", "shapes_tiny", "ddetr_300q"]) == 0
