from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from msdetr.data.coco_file import (
    drop_inconsistent_entries,
    find_inconsistent_ids,
    load_annotations,
    parse_annotations,
)
from msdetr.errors import DataError


def coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 5, "file_name": "five.png", "height": 40, "width": 60},
            {"id": 2, "file_name": "two.png", "height": 30, "width": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10.5, 4]},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, 3, 3], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "dog"}],
    }


def write(folder: Path, content: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_fills_what_coco_leaves_optional(tmp_path: Path) -> None:
    content = load_annotations(write(tmp_path, coco()))
    assert [entry["iscrowd"] for entry in content["annotations"]] == [0, 1]
    assert [entry["area"] for entry in content["annotations"]] == [42.0, 9]


def test_keeps_given_areas(tmp_path: Path) -> None:
    given = coco()
    given["annotations"][0]["area"] = 17.5
    assert load_annotations(write(tmp_path, given))["annotations"][0]["area"] == 17.5


def test_accepts_no_annotations(tmp_path: Path) -> None:
    assert load_annotations(write(tmp_path, {**coco(), "annotations": []}))["annotations"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: not JSON: Expecting value"),
        ('{"images": [],\n  "annotations" []}', "line 2: not JSON: Expecting ':' delimiter"),
        ("[1, 2]", "not a COCO annotation file: expected an object .* got a list"),
        ('{"images": 3}', "3 problems"),
        pytest.param("9" * 5000, "cannot be read as JSON .*4300 digits", id="digits"),
    ],
)
def test_files_that_are_not_coco(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        load_annotations(path)
    assert str(caught.value).startswith(str(path))


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load_annotations(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: the annotation file does not exist"):
        load_annotations(tmp_path / "none.json")


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "images: not a COCO annotation file: this key is missing"),
        (lambda c: c.update(annotations={}), "annotations: not COCO: expected a list, got a dict"),
        (lambda c: c.update(images=[]), "images: the list is empty"),
        (lambda c: c.update(categories=[]), "categories: the list is empty"),
        (lambda c: c["images"].append(7), r"images\[2\]: expected an object"),
        (
            lambda c: c["images"][1].pop("height"),
            r"images\[1\]\.height: expected a positive integer, the key is missing",
        ),
        (
            lambda c: c["images"][0].update(width=0),
            r"images\[0\]\.width: expected a positive integer, got 0",
        ),
        (
            lambda c: c["images"][0].update(id="five"),
            r"images\[0\]\.id: expected an integer, got 'five'",
        ),
        (
            lambda c: c["images"][0].update(id=True),
            r"images\[0\]\.id: expected an integer, got True",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
            r"annotations\[0\]\.bbox: expected a list of 4 finite numbers",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]),
            r"annotations\[0\]\.bbox: expected a list of 4 finite numbers .*, got \[1, 2, 3, nan\]",
        ),
        (
            lambda c: c["annotations"][1].update(iscrowd=2),
            r"annotations\[1\]\.iscrowd: expected 0 or 1, got 2",
        ),
        (
            lambda c: c["annotations"][1].update(iscrowd=[]),
            r"annotations\[1\]\.iscrowd: expected 0 or 1, got \[\]",
        ),
        (
            lambda c: c["images"][0].update(file_name="a\0.png"),
            r"images\[0\]\.file_name: expected a file name, got 'a\\x00\.png'",
        ),
        (
            lambda c: c["images"][0].update(file_name="\ud800"),
            r"images\[0\]\.file_name: expected a file name, got '\\ud800'",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=4),
            r"annotations\.category_id: 4 is not among categories",
        ),
        (
            lambda c: c["annotations"][0].update(image_id=77),
            r"annotations\.image_id: 77 is not among images",
        ),
        (
            lambda c: c["annotations"][0].update(id=2),
            r"annotations\.id: 2 occurs more than once",
        ),
        (
            lambda c: (c["images"][1].update(id=5), c["annotations"][1].update(image_id=5)),
            r"images\.id: 5 occurs more than once",
        ),
        (
            lambda c: c["categories"].append({"id": 3, "name": "cat"}),
            r"categories\.id: 3 occurs more than once",
        ),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, change: Change, message: str) -> None:
    content = coco()
    change(content)
    with pytest.raises(DataError, match=message) as caught:
        load_annotations(write(tmp_path, content))
    assert caught.value.exit_code == 2


def test_counts_repeated_problems_instead_of_listing_them(tmp_path: Path) -> None:
    content = coco()
    for entry in content["annotations"]:
        entry["bbox"] = None
    with pytest.raises(DataError, match=r"got None \(and 1 more like it\)") as caught:
        load_annotations(write(tmp_path, content))
    assert len(caught.value.problems) == 1


def test_reports_all_problems_of_a_stage_at_once(tmp_path: Path) -> None:
    content = coco()
    content["images"][0]["height"] = -1
    content["categories"][0]["name"] = None
    with pytest.raises(DataError, match="2 problems") as caught:
        load_annotations(write(tmp_path, content))
    assert [problem.where for problem in caught.value.problems] == [
        "images[0].height",
        "categories[0].name",
    ]


class TestInconsistentIds:
    @pytest.fixture
    def contradictory(self) -> dict[str, Any]:
        content = coco()
        content["images"].append({**content["images"][0], "width": 99})
        content["categories"].append({"id": 3, "name": "cat"})
        content["annotations"] += [
            {**content["annotations"][0], "bbox": [0, 0, 1, 1]},
            {**content["annotations"][0], "id": 7, "image_id": 77},
            {**content["annotations"][0], "id": 8, "category_id": 88},
            {**content["annotations"][0], "id": 9, "category_id": 66},
        ]
        return content

    def test_all_are_listed(self, contradictory: dict[str, Any]) -> None:
        found = {entry.check: entry.ids for entry in find_inconsistent_ids(contradictory)}
        assert found == {
            "duplicate_image_id": (5,),
            "duplicate_annotation_id": (1,),
            "duplicate_class_id": (3,),
            "unknown_image_id": (77,),
            "unknown_class_id": (66, 88),
        }

    def test_what_does_not_contradict_stays(self, contradictory: dict[str, Any]) -> None:
        kept = drop_inconsistent_entries(contradictory)
        assert kept == coco()
        assert find_inconsistent_ids(kept) == []

    def test_parsing_leaves_them_to_the_caller(
        self, tmp_path: Path, contradictory: dict[str, Any]
    ) -> None:
        file = parse_annotations(write(tmp_path, contradictory))
        assert file.sha256 == sha256(file.path.read_bytes()).hexdigest()
        with pytest.raises(DataError, match="5 problems"):
            file.require_consistent()


class TestWhatToolsWrite:
    def readings(self, folder: Path, content: dict[str, Any]) -> dict[str, tuple[int, str]]:
        file = parse_annotations(write(folder, content))
        return {finding.check: (finding.count, finding.examples[0]) for finding in file.readings}

    def test_nothing_is_said_of_what_coco_defines(self, tmp_path: Path) -> None:
        assert self.readings(tmp_path, coco()) == {}

    @pytest.mark.parametrize(
        ("box", "meant"),
        [
            ([1, 2, "10.5000", "4.0000"], [1, 2, 10.5, 4]),
            (["1e1", " 7 ", "3", 2.5], [10, 7, 3, 2.5]),
        ],
    )
    def test_numbers_as_text(self, tmp_path: Path, box: list[Any], meant: list[float]) -> None:
        content = coco()
        content["annotations"][0].update(bbox=box, area="42.25", iscrowd="0", image_id="5")
        content["images"][0].update(id="5", height="40", width="60.0")
        content["annotations"][1]["category_id"] = "3"
        first, second = load_annotations(write(tmp_path, content))["annotations"]
        assert first == {
            "id": 1,
            "image_id": 5,
            "category_id": 3,
            "bbox": meant,
            "area": 42.25,
            "iscrowd": 0,
        }
        assert second["category_id"] == 3
        found = self.readings(tmp_path, content)
        assert found == {"number_as_text": (8, "images[0].id")}

    def test_kinds_are_counted_apart(self, tmp_path: Path) -> None:
        content = coco()
        content["annotations"][0].update(image_id=5.0, area=None, iscrowd=None)
        content["annotations"][1]["area"] = None
        content["categories"] = [{"id": 3, "name": 7}, {"id": 3, "name": 7}]
        read = load_annotations(write(tmp_path, content))
        assert [(e["area"], e["iscrowd"]) for e in read["annotations"]] == [(42, 0), (9, 1)]
        assert read["categories"] == [{"id": 3, "name": "7"}]
        assert self.readings(tmp_path, content) == {
            "decimal_integer": (1, "annotations[0].image_id"),
            "null_value": (3, "annotations[0].iscrowd"),
            "number_as_name": (2, "categories[0].name"),
            "repeated_entry": (1, "categories[1]"),
        }

    def test_only_entries_that_say_the_same_are_repeats(self, tmp_path: Path) -> None:
        content = coco()
        content["images"] += [dict(content["images"][1])] * 2
        content["annotations"].append({**content["annotations"][0], "bbox": [1, 2, 10.5, 5]})
        file = parse_annotations(write(tmp_path, content))
        assert len(file.content["images"]) == 2
        assert [finding.count for finding in file.readings] == [2]
        with pytest.raises(DataError, match=r"annotations\.id: 1 occurs more than once"):
            file.require_consistent()

    @pytest.mark.parametrize(
        ("entry", "key", "value"),
        [
            ("annotations", "bbox", [1, 2, "nan", 4]),
            ("annotations", "bbox", ["1", "2", "3"]),
            ("annotations", "bbox", [1, 2, "3_0", 4]),
            ("annotations", "bbox", [1, 2, None, "4"]),
            ("annotations", "bbox", "1 2 3 4"),
            ("annotations", "area", "large"),
            ("annotations", "area", "inf"),
            ("annotations", "iscrowd", "yes"),
            ("annotations", "iscrowd", "2"),
            ("annotations", "image_id", None),
            ("annotations", "image_id", "5.5"),
            ("annotations", "image_id", 5.25),
            ("annotations", "image_id", 1e17),
            ("annotations", "id", "0x1"),
            ("images", "height", "0"),
            ("images", "file_name", None),
            ("images", "file_name", 7),
            ("categories", "name", None),
            ("categories", "name", True),
        ],
    )
    def test_what_has_no_meaning_is_refused(
        self, entry: str, key: str, value: object, tmp_path: Path
    ) -> None:
        content = coco()
        content[entry][0][key] = value
        with pytest.raises(DataError, match=rf"{entry}\[0\]\.{key}: expected ") as caught:
            load_annotations(write(tmp_path, content))
        assert len(caught.value.problems) == 1

    @pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 9_300_000_000_000_000_000, 10**40])
    def test_large_ids_are_called_what_they_are(self, number: int, tmp_path: Path) -> None:
        content = coco()
        content["images"][0]["id"] = number
        with pytest.raises(DataError, match="got an integer of more than 64 bits") as caught:
            load_annotations(write(tmp_path, content))
        shown = str(number) if abs(number) < 10**30 else "133 bits"
        assert f"({shown})" in str(caught.value)

    @pytest.mark.parametrize("number", [2**63 - 1, -(2**63), str(2**63 - 1)])
    def test_ids_of_64_bits_are_read(self, number: int | str, tmp_path: Path) -> None:
        content = coco()
        content["images"][0]["id"] = content["annotations"][0]["image_id"] = number
        read = load_annotations(write(tmp_path, content))
        assert read["annotations"][0]["image_id"] == int(number)

    def test_all_kinds_of_problems_are_named_at_once(self, tmp_path: Path) -> None:
        content = coco()
        del content["categories"]
        content["images"][0]["width"] = "wide"
        content["annotations"][0]["image_id"] = 77
        content["annotations"] += [
            {**content["annotations"][1], "bbox": None},
            {**content["annotations"][1], "id": None},
        ]
        with pytest.raises(DataError) as caught:
            load_annotations(write(tmp_path, content))
        assert [(p.where, p.message.split(",")[0]) for p in caught.value.problems] == [
            ("categories", "not a COCO annotation file: this key is missing"),
            ("images[0].width", "expected a positive integer"),
            ("annotations[3].id", "expected an integer"),
            ("annotations[2].bbox", "expected a list of 4 finite numbers (x"),
            ("annotations.id", "2 occurs more than once"),
            ("annotations.image_id", "77 is not among images"),
        ]

    def test_images_without_ids_are_not_blamed_on_annotations(self, tmp_path: Path) -> None:
        content = coco()
        content["images"][0]["id"] = None
        with pytest.raises(DataError) as caught:
            load_annotations(write(tmp_path, content))
        assert [problem.where for problem in caught.value.problems] == ["images[0].id"]
