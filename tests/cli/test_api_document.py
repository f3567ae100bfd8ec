"""docs/api.md, run as it stands there; and what `import msdetr` costs."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import msdetr

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/api.md"


@pytest.fixture
def folder(
    tmp_path: Path, tiny: list[str], shapes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What the page says that the folder holds."""
    recipe: dict[str, object] = {"extends": "shapes_tiny"}
    for text in tiny[1::2]:
        key, _, value = text.partition("=")
        section = recipe
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})  # type: ignore[assignment]
        section[last] = yaml.safe_load(value)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    photos = sorted((shapes_root / "val2017").iterdir())
    for name, photo in zip(("photo.png", "other.png"), photos, strict=False):
        shutil.copy(photo, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_of_the_page(folder: Path) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(DOCUMENT), module_relative=False, optionflags=flags)
    assert result.attempted > 20
    assert result.failed == 0
    assert (folder / "drawing.png").is_file()


def test_every_public_name_is_typed_and_on_the_page() -> None:
    page = DOCUMENT.read_text()
    names = set(msdetr.__all__) - {"__version__"}
    assert names == {"Detector", "ImageDetections", "evaluate", "load_recipe", "train"}
    for name in names - {"ImageDetections"}:
        assert name in page
        assert getattr(msdetr, name).__doc__
    assert (Path(msdetr.__file__).parent / "py.typed").is_file()


def test_import_loads_nothing_heavy_until_a_name_is_used() -> None:
    code = (
        "import sys, json, msdetr;"
        "heavy = ('torch', 'torchvision', 'numpy', 'PIL', 'pydantic', 'rich');"
        "before = [n for n in heavy if n in sys.modules];"
        "from msdetr import load_recipe; recipe = [n for n in heavy if n in sys.modules];"
        "from msdetr import Detector; after = [n for n in heavy if n in sys.modules];"
        "print(json.dumps([before, recipe, after]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, recipe, after = json.loads(done.stdout)
    assert before == []
    assert "torch" not in recipe
    assert "torch" in after


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Detektor'"):
        msdetr.Detektor  # noqa: B018
    assert "Detector" in dir(msdetr)
