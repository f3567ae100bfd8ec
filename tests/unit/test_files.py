"""Digests, ``SHA256SUMS`` and format versions of what is stored."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from msdetr.errors import CheckpointError, TraceError
from msdetr.files import SUMS_FILE, digest_file, list_sums, refuse_unlisted, require_version

FILES = {"a.json": b"{}\n", "weights": bytes(range(256))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {**FILES, SUMS_FILE: list_sums(FILES)}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_digest_of_a_file_is_that_of_its_bytes(folder: Path) -> None:
    for name, content in FILES.items():
        assert digest_file(folder / name) == sha256(content).hexdigest()


def test_sums_are_read_by_sha256sum(folder: Path) -> None:
    command = ["sha256sum", "--check", "--strict", SUMS_FILE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name}: OK" for name in FILES]


def test_what_is_listed_passes(folder: Path) -> None:
    for name in FILES:
        refuse_unlisted(folder / name, digest_file(folder / name), TraceError)


@pytest.mark.parametrize("error", [CheckpointError, TraceError])
def test_a_changed_file_is_refused(folder: Path, error: type[CheckpointError | TraceError]) -> None:
    path = folder / "weights"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(error) as caught:
        refuse_unlisted(path, digest_file(path), error)
    assert str(caught.value) == (
        f"{path}: is damaged: it is not what SHA256SUMS says (truncated or changed?)"
    )


@pytest.mark.parametrize(
    "sums",
    [
        b"",  # lists nothing
        list_sums({"other": FILES["weights"]}),  # the digest of another name
        list_sums({"weights": FILES["weights"]})[:-1],  # cut short
        b"0" + list_sums({"weights": FILES["weights"]}),  # something before the digest
        b"\xff\xfe\n",  # no text
    ],
)
def test_sums_that_do_not_list_the_file_refuse_it(folder: Path, sums: bytes) -> None:
    (folder / SUMS_FILE).write_bytes(sums)
    with pytest.raises(TraceError, match="weights: is damaged"):
        refuse_unlisted(folder / "weights", digest_file(folder / "weights"), TraceError)


def test_missing_files_are_left_to_the_caller(folder: Path) -> None:
    (folder / SUMS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=SUMS_FILE):
        refuse_unlisted(folder / "weights", "0" * 64, TraceError)
    with pytest.raises(FileNotFoundError):
        digest_file(folder / "nothing")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_known_version_passes(tmp_path: Path, version: int) -> None:
    document = {"format_version": version, "more": []}
    assert require_version(document, tmp_path / "a.json", 3, TraceError) is document


@pytest.mark.parametrize(
    "document", [None, [], [1], "1", {}, *({"format_version": v} for v in ("1", 0, -1, 1.0, None))]
)
def test_a_document_without_a_version_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_version(document, tmp_path / "a.json", 3, CheckpointError)
    assert str(caught.value) == f"{tmp_path / 'a.json'}: has no valid format_version"


def test_a_newer_version_names_the_folder_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(TraceError) as caught:
        require_version({"format_version": 4}, tmp_path / "a.json", 3, TraceError)
    assert str(caught.value) == (
        f"{tmp_path}: has format version 4, but this release reads up to 3; update the package"
    )
