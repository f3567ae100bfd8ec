"""Writing aside and renaming; digests, ``SHA256SUMS`` and format versions of what is stored."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from msdetr.errors import CheckpointError, TraceError
from msdetr.files import (
    SUMS_FILE,
    UNFINISHED,
    digest_file,
    filling_directory,
    list_sums,
    older_of,
    providing_directory,
    refuse_unlisted,
    replace_text,
    replace_with_sums,
    replacing_directory,
    replacing_file,
    require_version,
)

FILES = {"a.json": b"{}\n", "weights": bytes(range(256))}
Writing = Callable[[Path], AbstractContextManager[Path]]


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def contents_of(directory: Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in directory.iterdir()}


@contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def refuse(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int, *, call: int = 1) -> None:
    """Let the operating system refuse one call of a function, counted from 1."""
    original, calls = getattr(owner, name), [0]

    def refusing(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **named)

    patch.setattr(owner, name, refusing)


def interrupt(
    writing: AbstractContextManager[Path],
    interruption: type[BaseException],
    file_of: Callable[[Path], Path],
) -> None:
    """Interrupt the writing of a file."""
    with writing as aside:
        file_of(aside).write_text("half of the n")
        raise interruption


class TestReplacingFile:
    def test_the_name_stands_for_the_older_file_until_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with replacing_file(path) as aside:
            aside.write_text("new")
            assert path.read_text() == "old"
        assert contents_of(tmp_path) == {"a.txt": "new"}

    @pytest.mark.parametrize("older", ["old", None])
    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, SystemExit])
    def test_an_interruption_leaves_the_older_file_and_nothing_else(
        self, tmp_path: Path, older: str | None, interruption: type[BaseException]
    ) -> None:
        path = tmp_path / "a.txt"
        if older is not None:
            path.write_text(older)
        with pytest.raises(interruption):
            interrupt(replacing_file(path), interruption, lambda aside: aside)
        assert contents_of(tmp_path) == ({} if older is None else {"a.txt": older})

    @pytest.mark.parametrize(
        ("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "touch"), (os, "open")]
    )
    def test_a_disk_that_refuses_leaves_the_older_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        (tmp_path / "a.txt").write_text("old")
        refuse(monkeypatch, owner, name, errno.ENOSPC)
        with pytest.raises(OSError, match="No space left on device"):
            replace_text(tmp_path / "a.txt", "new")
        assert contents_of(tmp_path) == {"a.txt": "old"}

    def test_it_is_flushed_before_it_is_renamed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []
        flush, replace = os.fsync, Path.replace

        def flushing(descriptor: int) -> None:
            events.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
            flush(descriptor)

        def replacing(source: Path, target: Path) -> Path:
            events.append(f"rename to {target.name}")
            return replace(source, target)

        monkeypatch.setattr(os, "fsync", flushing)
        monkeypatch.setattr(Path, "replace", replacing)
        replace_text(tmp_path / "a.txt", "new")
        assert events == ["flush a.txt.new", "rename to a.txt", f"flush {tmp_path.name}"]

    @pytest.mark.parametrize("bits", [0o022, 0o077, 0o002])
    def test_permission_bits_are_those_of_a_plain_open(self, tmp_path: Path, bits: int) -> None:
        with umask(bits):
            (tmp_path / "plain").open("w").close()
            replace_text(tmp_path / "ours", "new")
        assert mode_of(tmp_path / "ours") == mode_of(tmp_path / "plain")

    def test_permission_bits_of_an_older_file_stay(self, tmp_path: Path) -> None:
        replace_text(tmp_path / "ours", "old")
        (tmp_path / "ours").chmod(0o640)
        replace_text(tmp_path / "ours", "new")
        assert mode_of(tmp_path / "ours") == 0o640

    def test_what_a_killed_process_left_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.new").write_text("half, and longer than what comes now")
        replace_text(tmp_path / "a.txt", "new")
        assert contents_of(tmp_path) == {"a.txt": "new"}

    def test_a_missing_directory_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            replace_text(tmp_path / "nowhere" / "a.txt", "new")
        assert names_in(tmp_path) == []

    def test_a_file_system_without_flushing_of_directories_will_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuse(monkeypatch, os, "fsync", errno.EINVAL, call=2)
        replace_text(tmp_path / "a.txt", "new")
        assert contents_of(tmp_path) == {"a.txt": "new"}


class TestReplacingDirectory:
    @pytest.fixture
    def older(self, tmp_path: Path) -> Path:
        directory = tmp_path / "set"
        directory.mkdir()
        (directory / "old.txt").write_text("old")
        return directory

    def test_it_is_replaced_as_a_whole(self, older: Path) -> None:
        with replacing_directory(older) as aside:
            (aside / "inner").mkdir()
            (aside / "inner" / "new.txt").write_text("new")
            assert names_in(older) == ["old.txt"]
        assert names_in(older) == ["inner"]
        assert contents_of(older / "inner") == {"new.txt": "new"}
        assert names_in(older.parent) == ["set"]

    def test_parents_are_made(self, tmp_path: Path) -> None:
        replace_with_sums(tmp_path / "a" / "b", FILES)
        assert names_in(tmp_path / "a") == ["b"]

    @pytest.mark.parametrize("writing", [replacing_directory, providing_directory])
    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, SystemExit])
    def test_an_interruption_leaves_the_older_one_and_nothing_else(
        self, older: Path, writing: Writing, interruption: type[BaseException]
    ) -> None:
        with pytest.raises(interruption):
            interrupt(writing(older), interruption, lambda aside: aside / "new.txt")
        assert names_in(older.parent) == ["set"]
        assert contents_of(older) == {"old.txt": "old"}

    @pytest.mark.parametrize(
        ("owner", "name", "call"),
        [
            (os, "fsync", 1),  # of a file
            (os, "fsync", 2),  # of the directory
            (Path, "mkdir", 2),  # the directory, after its parent
            (Path, "rename", 1),  # the older one out of the way
            (Path, "rename", 2),  # the newer one to its name
        ],
    )
    def test_a_disk_that_refuses_leaves_the_older_one(
        self, older: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int
    ) -> None:
        refuse(monkeypatch, owner, name, errno.ENOSPC, call=call)
        with pytest.raises(OSError, match="No space left on device"):
            replace_with_sums(older, {})
        assert names_in(older.parent) == ["set"]
        assert contents_of(older) == {"old.txt": "old"}

    def test_what_a_crash_between_the_renames_left_is_kept_until_it_is_replaced(
        self, older: Path
    ) -> None:
        older.rename(older_of(older))
        with pytest.raises(KeyboardInterrupt), replacing_directory(older):
            raise KeyboardInterrupt
        assert contents_of(older_of(older)) == {"old.txt": "old"}
        replace_with_sums(older, {})
        assert names_in(older.parent) == ["set"]
        assert names_in(older) == [SUMS_FILE]

    def test_permission_bits_are_those_of_plain_calls(self, tmp_path: Path) -> None:
        with umask(0o027):
            (tmp_path / "plain").mkdir()
            (tmp_path / "plain" / SUMS_FILE).open("w").close()
            replace_with_sums(tmp_path / "ours", {})
            with providing_directory(tmp_path / "provided"):
                pass
        for name in ("ours", "provided"):
            assert mode_of(tmp_path / name) == mode_of(tmp_path / "plain")
        assert mode_of(tmp_path / "ours" / SUMS_FILE) == mode_of(tmp_path / "plain" / SUMS_FILE)

    def test_sums_cover_the_files(self, tmp_path: Path) -> None:
        replace_with_sums(tmp_path / "ours", FILES)
        assert names_in(tmp_path / "ours") == sorted([*FILES, SUMS_FILE])
        for name in FILES:
            path = tmp_path / "ours" / name
            refuse_unlisted(path, digest_file(path), TraceError)


class TestFillingDirectory:
    def test_everything_takes_its_name_at_the_end_beside_what_is_there(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "set" / "pictures").mkdir(parents=True)
        for name in ("old.txt", "notes.txt", "pictures/mine.txt"):
            (tmp_path / "set" / name).write_text("old")
        with filling_directory(tmp_path / "set") as aside:
            (aside / "pictures").mkdir()
            (aside / "more").mkdir()
            for name in ("old.txt", "pictures/new.txt", "more/new.txt"):
                (aside / name).write_text("new")
            assert contents_of(tmp_path / "set" / "pictures") == {"mine.txt": "old"}
            assert (tmp_path / "set" / "old.txt").read_text() == "old"
        assert names_in(tmp_path / "set") == ["more", "notes.txt", "old.txt", "pictures"]
        assert (tmp_path / "set" / "old.txt").read_text() == "new"
        assert contents_of(tmp_path / "set" / "pictures") == {"mine.txt": "old", "new.txt": "new"}

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, SystemExit])
    @pytest.mark.parametrize("is_new", [False, True])
    def test_an_interruption_leaves_what_was_there(
        self, tmp_path: Path, interruption: type[BaseException], is_new: bool
    ) -> None:
        directory = tmp_path / "a" / "set"
        if not is_new:
            directory.mkdir(parents=True)
            (directory / "old.txt").write_text("old")
        with pytest.raises(interruption):
            interrupt(filling_directory(directory), interruption, lambda aside: aside / "new.txt")
        assert names_in(tmp_path) == ([] if is_new else ["a"])
        assert is_new or contents_of(directory) == {"old.txt": "old"}

    def test_a_disk_that_refuses_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuse(monkeypatch, os, "fsync", errno.ENOSPC)
        with pytest.raises(OSError, match="No space"), filling_directory(tmp_path / "set") as aside:
            (aside / "new.txt").write_text("new")
        assert names_in(tmp_path) == []

    def test_what_a_killed_process_left_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / UNFINISHED).mkdir()
        (tmp_path / UNFINISHED / "half.txt").write_text("half")
        with filling_directory(tmp_path) as aside:
            (aside / "new.txt").write_text("new")
        assert contents_of(tmp_path) == {"new.txt": "new"}

    def test_links_to_directories_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "pictures").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="pictures"), filling_directory(tmp_path / "set") as aside:
            (aside / "pictures").mkdir()
        assert names_in(tmp_path / "elsewhere") == []


class TestProvidingDirectory:
    def test_the_first_to_finish_provides_it(self, tmp_path: Path) -> None:
        path = tmp_path / "set"
        with providing_directory(path) as slow:
            (slow / "slow.txt").write_text("slow")
            with providing_directory(path) as quick:
                (quick / "quick.txt").write_text("quick")
        assert contents_of(path) == {"quick.txt": "quick"}
        assert names_in(tmp_path) == ["set"]

    def test_an_empty_directory_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        with providing_directory(tmp_path / "set") as aside:
            (aside / "a.txt").write_text("a")
        assert contents_of(tmp_path / "set") == {"a.txt": "a"}

    def test_a_file_in_the_way_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "set").write_text("mine")
        with pytest.raises(NotADirectoryError), providing_directory(tmp_path / "set"):
            pass
        assert contents_of(tmp_path) == {"set": "mine"}


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
