"""What stored folders and files are known by: SHA-256 digests, ``SHA256SUMS``, format versions."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from msdetr.errors import InvalidInputError

SUMS_FILE = "SHA256SUMS"
"""File beside those that it lists, as ``sha256sum -c`` reads it."""


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def list_sums(files: Mapping[str, bytes]) -> bytes:
    """Content of a ``SHA256SUMS`` for files of these names and contents, in this order."""
    return b"".join(_line(sha256(content).hexdigest(), name) for name, content in files.items())


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
    if _line(digest, path.name) not in sums.splitlines(keepends=True):
        raise error(
            str(path), f"is damaged: it is not what {SUMS_FILE} says (truncated or changed?)"
        )


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


def _line(digest: str, name: str) -> bytes:
    return f"{digest}  {name}\n".encode()
