"""Names of image files: kept compactly, found as tools spell them, held within the data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

_ENCODING, _ERRORS = "utf-8", "surrogateescape"


class FileNames:
    """A sequence of names in two arrays.

    Worker processes share arrays without copying. Unlike an array of texts, whose entries are
    all as wide as the longest, it needs no more than the names are long.

    Args:
        names: The names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode(_ENCODING, _ERRORS) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._ends) - 1

    def __getitem__(self, position: int) -> str:
        """Return a name.

        Raises:
            IndexError: There is none at the position.
        """
        if not 0 <= position < len(self):
            raise IndexError(position)
        encoded = self._bytes[self._ends[position] : self._ends[position + 1]].tobytes()
        return encoded.decode(_ENCODING, _ERRORS)

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return (self[position] for position in range(len(self)))

    def tolist(self) -> list[str]:
        """Return the names as a list."""
        return list(self)

    def first(self, count: int) -> FileNames:
        """Return the first names."""
        return FileNames(self[position] for position in range(min(count, len(self))))


def find_meant_name(name: str, folder: Path) -> str:
    r"""Return the name of the file that is meant.

    That is the name itself, unless there is no such file, but one of the name with slashes for
    backslashes (``images\a.png``) or without percent codes (``a%20b.png``).
    """
    if "\\" not in name and "%" not in name:
        return name
    slashed = name.replace("\\", "/")
    spellings = [name, slashed, *(unquote(each, errors=_ERRORS) for each in (name, slashed))]
    return next((each for each in spellings if _exists(folder / each)), name)


def find_outside(names: Iterable[str], folders: Sequence[Path]) -> list[str]:
    """List the names that lead out of a data set, by ``..`` or as absolute paths.

    Links below its folders lead where they do: who made the data set put them there.

    Args:
        names: Relative to the first folder.
        folders: Folders of the data set.
    """
    inside = [folder.resolve() for folder in folders]
    suspect = [name for name in names if ".." in name or Path(name).is_absolute()]
    places = [(name, (folders[0] / name).resolve()) for name in suspect]
    return [
        name for name, place in places if not any(place.is_relative_to(each) for each in inside)
    ]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # of a name that no file can have
        return False
