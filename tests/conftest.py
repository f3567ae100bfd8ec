"""Fixtures shared by all tests."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

# Workers share the cores: threads of their own would only wait for each other. Before torch is
# imported, and inherited by the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests: at the end all workers have work that can be shared."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def msdetr() -> Iterator[Callable[..., Done]]:
    """Run a command line in this process; paths may be given as such."""
    typer = importlib.import_module("typer.main")
    cli = importlib.import_module("msdetr.cli.main")

    def run(*arguments: str | Path) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([str(argument) for argument in arguments])
        return Done(code, out.getvalue(), err.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        # Assembling the commands anew would take longer than many of them.
        patch.setattr(typer, "get_command", cache(typer.get_command))
        yield run


def _shared(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    folder = Path(named) if named else ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"no {name} folder: set {variable} or provide ../shared/{name}")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the golden numbers; skips where there is none."""
    return _shared("MSDETR_GOLDEN", "golden")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets; skips where there is none."""
    return _shared("MSDETR_DATA", "data")


@pytest.fixture(scope="session")
def tiny_fields() -> Callable[..., list[str]]:
    """Overrides ``key=value`` that make shapes_tiny tiny, with fields that change or join them."""
    shared = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())

    def override(fields: Mapping[str, Any] | None = None) -> list[str]:
        return [f"{key}={value}" for key, value in {**shared, **(fields or {})}.items()]

    return override


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; skips where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("MSDETR_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium: install Debian's package `chromium` or set MSDETR_CHROMIUM")
    # Chromium's sandbox does not work for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def find_violations(chromium: Any) -> Callable[..., list[str]]:
    """What axe finds on a page, given as HTML or open already, and what asks for the network."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is missing"
    ).Axe()

    def find(page: Any, width: int = 1400, *, rules: Sequence[str] = ()) -> list[str]:
        if not isinstance(page, str):
            found = violations(page, rules)
            return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]
        opened = chromium.new_page(viewport={"width": width, "height": 900}, offline=True)
        requests: list[str] = []
        opened.on("request", lambda request: requests.append(request.url))
        opened.set_content(page)
        found = find(opened)
        wide = opened.evaluate("document.documentElement.scrollWidth > innerWidth")
        opened.close()
        return [*found, *(["scrolls sideways"] if wide else []), *without_data(requests)]

    def violations(page: Any, rules: Sequence[str]) -> list[Any]:
        # Browsers forbid pages on disk to read style sheets a second time, which preloading does;
        # of what passes, long pages would list every node.
        options: dict[str, Any] = {"preload": False, "resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = list(rules)
        return list(axe.run(page, options=options).response["violations"])

    def without_data(requests: list[str]) -> list[str]:
        return [url for url in requests if not url.startswith(("data:", "about:"))]

    return find


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a file system of a given size, which only the returned path leads to.

    It lives in a mount namespace of its own, held by a process; skips where that is not allowed.
    """
    holders: list[subprocess.Popen[str]] = []

    def mount(num_bytes: int, options: str = "rw") -> Path:
        point = tmp_path / f"disk{len(holders)}"
        point.mkdir()
        script = 'mount -t tmpfs -o "size=$1,$2" tmpfs "$3" && echo ready && exec sleep 3600'
        command = ["unshare", "-rm", "sh", "-c", script, "sh", str(num_bytes), options, str(point)]
        try:
            holder = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except OSError as error:
            pytest.skip(f"cannot mount a small file system: {error}")
        holders.append(holder)
        assert holder.stdout is not None
        said = holder.stdout.readline()
        if said != "ready\n":
            pytest.skip(f"cannot mount a small file system: {said.strip()}")
        return Path(f"/proc/{holder.pid}/root{point}")

    yield mount
    for holder in holders:
        holder.kill()
        holder.wait()
