"""What an installed wheel holds, and that it works outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("msdetr", "cli", "recipes", "extensions", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that a wheel of the sources was installed into."""
    # A copy, because building leaves files beside the sources.
    copy, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("installed")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    offline = ("--no-deps", "--no-index")
    wheels = copy / "wheels"
    build = (*pip, "wheel", *offline, "--no-build-isolation", "-w", str(wheels), str(copy))
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


def test_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import runpy, sys, msdetr, msdetr.recipes; assert sys.argv.pop(1) in msdetr.__file__;"
        "runpy.run_module('msdetr.cli', run_name='__main__')"
    )
    # -S keeps the editable install of the checkout out; the libraries' folder is named instead.
    libraries = Path(pytest.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(installed), "recipes", "list", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{libraries}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed / "msdetr/recipes/shapes_tiny.yaml") in done.stdout
    assert str(ROOT / "recipes") not in done.stdout
