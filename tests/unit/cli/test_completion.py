"""What the shell completes, without a shell."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

from msdetr.recipe import packaged_recipes

completion = importlib.import_module("msdetr.cli.completion")


def test_recipes_complete_with_their_summaries() -> None:
    found = dict(completion.complete_recipe("shapes_tiny_b"))
    assert list(found) == ["shapes_tiny_baseline"]
    assert found["shapes_tiny_baseline"].startswith("The twin of shapes_tiny")
    assert len(completion.complete_recipe("")) == len(packaged_recipes())
    assert completion.complete_recipe("recipes/shapes") == []


def test_keys_complete_with_their_descriptions() -> None:
    found = dict(completion.complete_override("train.lr"))
    assert found["train.lr="] == "Learning rate."
    assert all(key.startswith("train.lr") and key.endswith("=") for key in found)
    assert {"train.lr_drop_factor=", "train.lr_drop_epochs="} <= set(found)
    assert "train=" not in dict(completion.complete_override("tr"))


def test_values_complete_where_they_are_listed() -> None:
    values = [value for value, _ in completion.complete_override("model.placement=")]
    assert values == [f"model.placement={name}" for name in ("baseline", "a", "b", "c", "d")]
    assert completion.complete_override("train.schedule=c") == [("train.schedule=cosine", "")]
    assert completion.complete_override("train.lr=1") == []
    assert completion.complete_override("no.such=") == []


def test_no_description_is_broken_into_lines() -> None:
    shown = [*completion.complete_override(""), *completion.complete_recipe("")]
    assert len(shown) > 100
    assert max(len(text) for _, text in shown) <= 72
    assert not [text for _, text in shown if "\n" in text]


@pytest.mark.parametrize(
    ("shell", "line", "expected"),
    [
        ("bash", "msdetr train shapes_tiny_ba", "shapes_tiny_baseline"),
        ("zsh", "msdetr train shapes_tiny --set train.weight_d", '"train.weight_decay="'),
        ("fish", "msdetr recipes diff ddetr_pp_9", "ddetr_pp_900q\tMS-DETR on"),
    ],
    ids=["bash", "zsh", "fish"],
)
def test_shells_complete_without_loading_torch(shell: str, line: str, expected: str) -> None:
    code = (
        "import sys, json, msdetr.cli.main as m; m.main([]);"
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})), file=sys.stderr)"
    )
    asked = {
        "_MSDETR_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected in done.stdout
    loaded = json.loads(done.stderr)
    assert "msdetr" in loaded
    assert not {"torch", "torchvision", "accelerate", "scipy", "numpy", "PIL"} & set(loaded)
