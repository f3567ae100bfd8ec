from __future__ import annotations

import copy
import tracemalloc
from pathlib import Path

import pytest

from msdetr.data.file_names import FileNames, find_meant_name, find_outside

NAMES = ["a.png", "sub/ä.png", "", "\udcff.png", "💥", "a b"]


class TestFileNames:
    def test_names_come_back(self) -> None:
        names = FileNames(NAMES)
        assert (len(names), names.tolist(), list(names)) == (len(NAMES), NAMES, NAMES)
        assert [names[i] for i in range(len(names))] == NAMES
        assert names.first(2).tolist() == NAMES[:2]
        assert names.first(99).tolist() == NAMES
        assert copy.deepcopy(names).tolist() == NAMES

    def test_none(self) -> None:
        assert FileNames([]).tolist() == []

    @pytest.mark.parametrize("position", [-1, 6])
    def test_no_name_there(self, position: int) -> None:
        with pytest.raises(IndexError):
            FileNames(NAMES)[position]

    def test_one_long_name_costs_its_length(self) -> None:
        tracemalloc.start()
        names = FileNames(["x" * 200_000, *(f"{i}.jpg" for i in range(20_000))])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(names) == 20_001
        assert peak < 10e6


class TestMeantName:
    @pytest.mark.parametrize(
        ("written", "file"),
        [
            ("sub\\a.png", "sub/a.png"),
            ("img%2000.png", "img 00.png"),
            ("sub%2Fa.png", "sub/a.png"),
            ("sub\\deep\\b%23c.png", "sub/deep/b#c.png"),
            ("%C3%A4.png", "ä.png"),
            ("plain.png", "plain.png"),
        ],
    )
    def test_other_spellings_of_a_file(self, written: str, file: str, tmp_path: Path) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        assert find_meant_name(written, tmp_path) == file

    @pytest.mark.parametrize("name", ["a%20b.png", "a\\b.png"])
    def test_the_name_itself_comes_first(self, name: str, tmp_path: Path) -> None:
        for other in (name, "a b.png", "a/b.png"):
            (tmp_path / other).parent.mkdir(exist_ok=True)
            (tmp_path / other).touch()
        assert find_meant_name(name, tmp_path) == name

    @pytest.mark.parametrize("name", ["100%.png", "gone\\a.png", "%00", "%" + "x" * 3000, "%ff"])
    def test_what_means_no_file_stays(self, name: str, tmp_path: Path) -> None:
        assert find_meant_name(name, tmp_path) == name


class TestOutside:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "data/images").mkdir(parents=True)
        (tmp_path / "data/more").mkdir()
        (tmp_path / "elsewhere").mkdir()
        return tmp_path / "data"

    def test_names_that_leave_are_listed(self, root: Path) -> None:
        leaving = [
            *("../../elsewhere/a.png", "/etc/passwd", f"{root}-2/a.png", "a/../../../a.png"),
            *(f"{root}/../elsewhere/a.png", ".."),
        ]
        staying = [
            *("a.png", "../more/a.png", "..a.png", "a..png", f"{root}/images/a.png", "b/../a.png"),
        ]
        names = [name for pair in zip(leaving, staying, strict=True) for name in pair]
        assert find_outside(names, [root / "images", root]) == [n for n in leaving if n != ".."]
        assert find_outside(names, [root / "images"]) == [
            name for name in names if name in leaving or name == "../more/a.png"
        ]

    def test_the_data_set_may_be_reached_by_links(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "linked").symlink_to(root)
        (root / "images/a.png").symlink_to(tmp_path / "elsewhere/a.png")
        folders = [tmp_path / "linked/images", tmp_path / "linked"]
        names = ["a.png", f"{root}/images/b.png", "../more/a.png"]
        assert find_outside(names, folders) == []
        assert find_outside(["../../data/../elsewhere/a.png"], folders) != []

    def test_relative_folders(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        assert find_outside(["../more/a.png", "../../a.png"], [Path("images"), Path()]) == [
            "../../a.png"
        ]
