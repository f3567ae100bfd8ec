"""How stored files and directories get their names, and what they are known by afterwards.

Names: whatever is written is written aside, flushed to disk and renamed, so that a name always
stands for something whole. Known by: SHA-256 digests, ``SHA256SUMS``, format versions.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from stat import S_IMODE
from typing import Any
from uuid import uuid4

from msdetr.errors import InvalidInputError, MsdetrError

SUMS_FILE = "SHA256SUMS"
"""File beside those that it lists, as ``sha256sum -c`` reads it."""
UNFINISHED = ".unfinished"
"""Folder of what :func:`filling_directory` has not finished."""


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Write a file aside; at the end of the ``with`` block it takes its name, flushed to disk.

    However the block ends, nothing else remains: an exception leaves the older file as it was.
    A process that is killed leaves ``NAME.new``, which the next attempt removes. The permission
    bits are those that a plain ``open`` would leave. One process at a time may write a file.

    Args:
        path: The file; its directory must exist.

    Yields:
        An empty file to write to, or to replace.

    Raises:
        OSError: The file cannot be written.
    """
    aside = _aside(path)
    aside.unlink(missing_ok=True)
    try:
        aside.touch()
        yield aside
        _copy_mode(path, aside)
        _flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _flush(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 as :func:`replacing_file` does.

    Raises:
        OSError: The file cannot be written; an older one is left as it was.
    """
    with replacing_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Fill a directory aside; at the end of the ``with`` block it takes its name, flushed to disk.

    However the block ends, nothing else remains: an exception leaves the older directory as it
    was. A process that is killed leaves ``NAME.new`` or, between two renames,
    :func:`older_of`; the next attempt removes them. One process at a time may write a directory.

    Args:
        path: The directory, of which nothing is kept; its parents are created if need be.

    Yields:
        An empty directory to fill.

    Raises:
        OSError: The directory cannot be written.
    """
    older = older_of(path)
    with _new_directory(_aside(path)) as aside:
        yield aside
        _flush_tree(aside)
        try:
            if path.exists():
                # Only now is an older leftover dispensable: until here it may be all there is.
                shutil.rmtree(older, ignore_errors=True)
                path.rename(older)
            aside.rename(path)
        except BaseException:
            if older.exists() and not path.exists():
                older.rename(path)
            raise
    _flush(path.parent)
    shutil.rmtree(older, ignore_errors=True)


def replace_with_sums(directory: Path, files: Mapping[str, bytes]) -> None:
    """Replace a directory by files and their ``SHA256SUMS``, as :func:`replacing_directory` does.

    Args:
        directory: The directory.
        files: Contents by name.

    Raises:
        OSError: The directory cannot be written; an older one is left as it was.
    """
    with replacing_directory(directory) as aside:
        for name, content in {**files, SUMS_FILE: list_sums(files)}.items():
            (aside / name).write_bytes(content)


@contextmanager
def filling_directory(path: Path) -> Iterator[Path]:
    """Write files aside; at the end of the ``with`` block each takes its name in a directory.

    What the directory holds besides stays. However the block ends, nothing else remains: an
    exception leaves everything as it was. A process that is killed leaves ``.unfinished`` in the
    directory, which the next attempt removes. One process at a time may fill a directory.

    Args:
        path: The directory; it and its parents are made if need be.

    Yields:
        An empty directory to fill; folders in it join those of their names.

    Raises:
        OSError: The directory cannot be written.
    """
    with making_directory(path), _new_directory(path / UNFINISHED) as aside:
        yield aside
        _flush_tree(aside)
        _move_content(aside, path)
        _flush(path)


@contextmanager
def making_directory(path: Path) -> Iterator[None]:
    """Make a directory and its parents; what was made is removed at the end if it is empty.

    Raises:
        OSError: It cannot be made.
    """
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


@contextmanager
def providing_directory(path: Path) -> Iterator[Path]:
    """Fill a directory aside; it takes its name, flushed to disk, unless the name is taken.

    Several processes may provide the same directory at the same time: the first to finish does,
    and what the others wrote is dropped. However the block ends, nothing else remains.

    Args:
        path: The directory; its parents are created if need be.

    Yields:
        An empty directory to fill.

    Raises:
        OSError: The directory cannot be written.
    """
    with _new_directory(path.with_name(f".{path.name}.{uuid4().hex}")) as aside:
        yield aside
        _flush_tree(aside)
        try:
            aside.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    _flush(path.parent)


def older_of(path: Path) -> Path:
    """Name of the older directory between two renames; a crash just then leaves it there, whole."""
    named = path if path.name not in {"", ".."} else path.resolve()
    return named.parent / f"{named.name}.old"


def cache_folder() -> Path:
    """Return the folder of what is made once: ``MSDETR_CACHE``, else the user's cache folder.

    Raises:
        MsdetrError: The user has no home, so that nothing tells.
    """
    named, base = os.environ.get("MSDETR_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named)
    try:
        return (Path(base) if base else Path.home() / ".cache") / "msdetr"
    except RuntimeError as error:
        raise MsdetrError(
            "the user has no home directory; set MSDETR_CACHE to a folder for what is kept"
        ) from error


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def list_sums(files: Mapping[str, bytes]) -> bytes:
    """Content of a ``SHA256SUMS`` for files of these names and contents, in this order."""
    return b"".join(
        line_of_sums(sha256(content).hexdigest(), name) for name, content in files.items()
    )


def line_of_sums(digest: str, name: str) -> bytes:
    """Line of a ``SHA256SUMS`` for a file of this digest and name."""
    return f"{digest}  {name}\n".encode()


def refuse_unlisted(path: Path, digest: str, error: type[InvalidInputError]) -> None:
    """Compare a file's digest with what the ``SHA256SUMS`` beside it says.

    Args:
        path: The file.
        digest: Of the bytes that were read of it.
        error: What to raise.

    Raises:
        InvalidInputError: ``error``, if the digest is not listed for the file.
        OSError: There is no ``SHA256SUMS``, or it cannot be read.
    """
    sums = path.with_name(SUMS_FILE).read_bytes()
    if line_of_sums(digest, path.name) not in sums.splitlines(keepends=True):
        raise error(
            str(path), f"is damaged: it is not what {SUMS_FILE} says (truncated or changed?)"
        )


def finite_json(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """Return JSON values with None for every number that is not finite: JSON has none of those."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(entry) for entry in value]
    return value


def parse_json(content: str | bytes) -> Any:  # noqa: ANN401 - JSON values
    """Parse a JSON document of any origin.

    Raises:
        ValueError: It is no JSON, or nested so deeply that Python gives up.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def require_version(
    document: object, file: Path, newest: int, error: type[InvalidInputError]
) -> dict[str, Any]:
    """Check the ``format_version`` of a stored JSON document.

    Args:
        document: The parsed JSON.
        file: Where it stands; its folder is what has the version.
        newest: Newest version that can be read; the oldest is 1.
        error: What to raise.

    Returns:
        The document.

    Raises:
        InvalidInputError: ``error``, if there is no such version, or a newer one.
    """
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(version, int) or version < 1:
        raise error(str(file), "has no valid format_version")
    if version > newest:
        raise error(
            str(file.parent),
            f"has format version {version}, but this release reads up to {newest}; "
            "update the package",
        )
    return document


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


@contextmanager
def _new_directory(path: Path) -> Iterator[Path]:
    """Make an empty directory that is gone at the end, unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir()
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _move_content(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir() and not place.is_symlink():
            _move_content(entry, place)
        else:
            entry.replace(place)


def _copy_mode(source: Path, target: Path) -> None:
    if source.exists():
        mode = S_IMODE(source.stat().st_mode)
        # Some file systems have no bits to change.
        if mode != S_IMODE(target.stat().st_mode):
            target.chmod(mode)


def _flush_tree(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            _flush(Path(folder, name))
        _flush(Path(folder))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no flushing of directories.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
