"""What a source distribution and the wheel built of it hold, and that they work elsewhere.

They are built as ``python -m build`` does it, the wheel from the unpacked source distribution.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from msdetr.version import __version__

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *("msdetr", "cli", "recipes", "extensions"),
    *("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "constraints.txt"),
)
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
RUN = """
import json, runpy, sys
import msdetr, msdetr.recipes
assert sys.argv.pop(1) in msdetr.__file__
import msdetr.cli.main
for line in json.loads(sys.argv.pop(1)):
    code = msdetr.cli.main.main(line)
    if code:
        sys.exit(code)
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, a file."""
    # A copy, because building leaves files beside the sources.
    copy, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("sdist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    build = (sys.executable, "-c", BUILD_SDIST, str(target))
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (file,) = target.glob("msdetr-*.tar.gz")
    return file


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that the wheel of the source distribution was installed into."""
    target, wheels = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("wheels")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    offline = ("--no-deps", "--no-index")
    build = (*pip, "wheel", *offline, "--no-build-isolation", "-w", str(wheels), str(sdist))
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("msdetr-*.whl")
    subprocess.run((*pip, "install", *offline, "--target", str(target), str(wheel)), check=True)
    return target


def test_only_the_package_is_at_the_top(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names - {"bin"} == {"msdetr"}
    assert (installed / "bin" / "msdetr").is_file()


@pytest.mark.parametrize(
    ("source", "place", "patterns"),
    [
        ("msdetr", "msdetr", ("*.py", "py.typed", "*.js", "*.css", "*.j2")),
        ("cli", "msdetr/cli", ("*.py",)),
        ("recipes", "msdetr/recipes", ("*.py", "*.yaml")),
        ("extensions", "msdetr/extensions", ("*.py", "*.cpp", "*.cu", "*.h", "*.cuh")),
    ],
)
def test_every_source_is_inside(
    source: str, place: str, patterns: tuple[str, ...], installed: Path
) -> None:
    for pattern in patterns:
        files = [path.relative_to(ROOT / source) for path in (ROOT / source).rglob(pattern)]
        assert files or pattern in {"*.cu", "*.cuh"}
        assert not [file for file in files if not (installed / place / file).is_file()]


def test_source_distribution_holds_what_the_project_says_of_itself(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    assert {name for name in SOURCES if (ROOT / name).is_file()} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert released[0] == (__version__, citation["date-released"].isoformat())
    assert citation["license"] == "Apache-2.0"
    assert citation["preferred-citation"]["authors"][0]["family-names"] == "Zhao"


def test_installed_command_lists_trains_inspects_and_exports_outside_the_checkout(
    installed: Path, tmp_path: Path, tiny_fields: Callable[..., list[str]]
) -> None:
    fields = {
        "data.shapes": "{num_train: 4, num_val: 2}",
        "train.epochs": 1,
        # The published code knows no other network and norm as small as this.
        "model.backbone.name": "resnet18",
        "model.backbone.norm": "frozen_batch",
        "model.backbone.stem_width": "null",
    }
    tiny = [text for field in tiny_fields(fields) for text in ("--set", field)]
    lines = [
        ["recipes", "list", "--json"],
        ["train", "shapes_tiny", "--output", "run", "--device", "cpu", *tiny],
        ["inspect-matching", "--ckpt", "run", "--output", "matching", "--pictures", "1"],
        # The cheapest format; what a trace for ONNX needs is no matter of packaging.
        ["export", "--ckpt", "run", "--format", "official", "--output", "model.pth", "--json"],
    ]
    # -S keeps the editable install of the checkout out; the libraries' folder is named instead.
    libraries = Path(pytest.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", RUN, str(installed), json.dumps(lines)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{installed}{os.pathsep}{libraries}",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "MSDETR_CACHE": str(tmp_path / "cache"),
            # Without a compiler: kernels have tests of their own.
            "CXX": "none",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed / "msdetr/recipes/shapes_tiny.yaml") in done.stdout
    assert str(ROOT / "recipes") not in done.stdout
    assert json.loads(done.stdout[done.stdout.rindex("{") :])["file"] == "model.pth"
    for name in ("run/report.html", "matching/matching.html", "model.pth"):
        assert (tmp_path / name).is_file(), done.stderr
