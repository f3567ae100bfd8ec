"""The recipes that come with the package, and problem a recipe by name or path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from msdetr.errors import RecipeError
from msdetr.recipe.yaml_source import read_file


@dataclass(frozen=True)
class RecipeInfo:
    """A packaged recipe.

    Attributes:
        name: What ``msdetr train NAME`` takes.
        path: The YAML file.
        summary: First line of its description.
    """

    name: str
    path: Path
    summary: str


def packaged_folder() -> Path:
    """Return the folder of the packaged recipes; its ``_base/`` holds what they extend."""
    return Path(str(resources.files("msdetr.recipes")))


def packaged_names() -> list[str]:
    """List the names of all packaged recipes, sorted."""
    return sorted(path.stem for path in packaged_folder().glob("*.yaml"))


def packaged_recipes(prefix: str = "") -> list[RecipeInfo]:
    """List the packaged recipes with their summaries, sorted by name.

    Args:
        prefix: What their names start with.
    """
    folder, names = packaged_folder(), packaged_names()
    return [_info(folder / f"{name}.yaml") for name in names if name.startswith(prefix)]


def find_recipe(name_or_path: str | Path) -> Path:
    """Find a recipe file: an existing file, else the packaged recipe of that name.

    Raises:
        RecipeError: Neither exists.
    """
    path = Path(name_or_path)
    if _holds(path.is_file):
        return path
    packaged = _packaged_file(path)
    if packaged is not None:
        return packaged
    if _holds(path.is_dir):
        raise RecipeError(str(name_or_path), "is a folder; a recipe is a YAML file or a name")
    message = f"no such file and no packaged recipe of that name{nearest(path)}"
    raise RecipeError(str(name_or_path), f"{message}; `msdetr recipes list` shows all")


def nearest(path: Path) -> str:
    """Suggest the packaged name closest to a path, ``; did you mean '...'?``, or nothing."""
    close = get_close_matches(path.stem, packaged_names(), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def find_parent(extends: str, child: Path) -> Path | None:
    """Find what a recipe extends: beside the recipe, else packaged (``_base/`` included)."""
    beside = child.parent / extends
    if _holds(beside.is_file):
        return beside
    fragment = packaged_folder() / extends
    if Path(extends).parts[:-1] == ("_base",) and _holds(fragment.is_file):
        return fragment
    return _packaged_file(Path(extends))


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a name that no file can have, such as a very long one
        return False


def _packaged_file(path: Path) -> Path | None:
    name = path.name.removesuffix(".yaml")
    known = name in packaged_names() and path.parts[:-1] in ((), ("recipes",))
    return packaged_folder() / f"{name}.yaml" if known else None


def _info(path: Path) -> RecipeInfo:
    tree, _ = read_file(path, path.name)
    entry = tree.child("description") if tree else None
    text = entry.value if entry and isinstance(entry.value, str) else ""
    return RecipeInfo(path.stem, path, text.strip().partition("\n")[0])
