"""`msdetr data check`: every fault planted in real files is found, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msdetr.build import read_split
from msdetr.recipe import load_recipe

ORIENTATION, TURN_RIGHT = 0x0112, 6
WIDTH, HEIGHT = 48, 40

Content = dict[str, Any]
Planted = Callable[[Path, Content], object]


def save_noise(path: Path, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def turn(path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = TURN_RIGHT
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def write_split(root: Path, split: str, first_seed: int) -> None:
    folder = root / f"{split}2017"
    folder.mkdir(parents=True)
    names = [f"{split}_{letter}.png" for letter in "abcd"]
    for offset, name in enumerate(names):
        save_noise(folder / name, first_seed + offset)
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names, start=1)
    ]
    boxes = [[4, 4, 10, 12], [20, 8, 16, 16], [1, 2, 40, 30]]
    annotations = [
        {"id": 10 * number + label, "image_id": number, "category_id": label, "bbox": box}
        for number in (1, 2, 3)
        for label, box in enumerate(boxes, start=1)
    ]
    categories = [{"id": label, "name": name} for label, name in enumerate("xyz", start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write(root, split, content)


def write(root: Path, split: str, content: Content) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def read(root: Path, split: str) -> Content:
    content: Content = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
    return content


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for split, seed in (("train", 0), ("val", 100)):
        write_split(folder, split, seed)
    return folder


@pytest.fixture
def check(msdetr: Callable[..., Any], root: Path) -> Callable[..., Any]:
    def run(*options: str) -> Any:
        data = ("--set", f"data.root={root}")
        return msdetr("data", "check", "small_from_scratch", *data, *options)

    return run


def found_by(done: Any) -> dict[tuple[str, str], dict[str, Any]]:
    report = json.loads(done.out)
    return {(entry["split"], entry["check"]): entry for entry in report["findings"]}


def test_nothing_is_found_in_clean_data(check: Callable[..., Any], root: Path) -> None:
    done = check("--json")
    report = json.loads(done.out)
    assert (done.code, report["findings"]) == (0, [])
    facts = report["splits"]["train"]
    assert facts["annotations"] == str(root / "annotations/instances_train2017.json")
    assert (facts["num_images"], facts["num_images_without_targets"]) == (4, 1)
    assert (facts["num_targets"], facts["num_crowd"], facts["num_without_area"]) == (9, 0, 0)
    assert facts["boxes_per_image"] == {"mean": 2.25, "median": 3, "p95": 3, "max": 3}
    assert facts["boxes_by_class"] == {"x": 3, "y": 3, "z": 3}
    assert (report["num_queries"], report["max_positives"]) == (300, 75)


def annotation(content: Content, number: int) -> Content:
    return next(entry for entry in content["annotations"] if entry["id"] == number)


def add(content: Content, **entry: Any) -> None:
    fields = {"id": 99, "image_id": 4, "category_id": 1, "bbox": [1, 1, 5, 5]}
    content["annotations"].append({**fields, **entry})


# What is planted in the training split, the check that finds it, its severity, an example.
FAULTS: dict[str, tuple[Planted, str, str, str]] = {
    "missing": (
        lambda root, _: (root / "train2017/train_b.png").unlink(),
        *("missing_image", "error", "train_b.png"),
    ),
    "truncated": (
        lambda root, _: (root / "train2017/train_b.png").write_bytes(
            (root / "train2017/train_b.png").read_bytes()[:800]
        ),
        *("undecodable_image", "error", "train_b.png: cannot be read as an image"),
    ),
    "no image": (
        lambda root, _: (root / "train2017/train_b.png").write_text("text"),
        *("undecodable_image", "error", "train_b.png: cannot be read as an image"),
    ),
    "size": (
        lambda root, _: save_noise(root / "train2017/train_b.png", 1, (WIDTH, HEIGHT - 1)),
        *("size_mismatch", "error", "train_b.png: annotated as 48 x 40 pixels"),
    ),
    "exif applied": (
        lambda root, content: (
            turn(root / "train2017/train_a.png"),
            content["images"][0].update(width=HEIGHT, height=WIDTH),
        ),
        *("exif_applied", "warning", "train_a.png"),
    ),
    "exif ignored": (
        lambda root, _: turn(root / "train2017/train_a.png"),
        *("exif_ignored", "warning", "train_a.png"),
    ),
    "no area": (
        lambda _, content: annotation(content, 12).update(bbox=[20, 8, 0, 0]),
        *("box_without_area", "warning", "annotation 12"),
    ),
    "negative height": (
        lambda _, content: annotation(content, 12).update(bbox=[20, 8, 3, -2]),
        *("box_without_area", "warning", "annotation 12"),
    ),
    "outside": (
        lambda _, content: annotation(content, 21).update(bbox=[60, 8, 5, 5]),
        *("box_outside", "warning", "annotation 21"),
    ),
    "beyond": (
        lambda _, content: annotation(content, 23).update(bbox=[30, 10, 30, 5]),
        *("box_beyond", "warning", "annotation 23"),
    ),
    "image id": (
        lambda _, content: content["images"].append({**content["images"][0], "width": 9}),
        *("duplicate_image_id", "error", "1"),
    ),
    "annotation id": (
        lambda _, content: add(content, id=11),
        *("duplicate_annotation_id", "error", "11"),
    ),
    "class id": (
        lambda _, content: content["categories"].append({"id": 2, "name": "again"}),
        *("duplicate_class_id", "error", "2"),
    ),
    "unknown image": (
        lambda _, content: add(content, image_id=77),
        *("unknown_image_id", "error", "77"),
    ),
    "unknown class": (
        lambda _, content: add(content, category_id=8),
        *("unknown_class_id", "error", "8"),
    ),
    "annotation twice": (
        lambda _, content: add(content, image_id=1, bbox=[4, 4, 10, 12]),
        *("duplicate_annotation", "warning", "annotation 99"),
    ),
    "image twice": (
        lambda root, _: shutil.copy(root / "train2017/train_a.png", root / "train2017/train_c.png"),
        *("duplicate_content", "warning", "train_a.png = train_c.png"),
    ),
    "file named twice": (
        lambda _, content: content["images"][1].update(file_name="train_a.png"),
        *("duplicate_file_name", "warning", "train_a.png"),
    ),
    "number as text": (
        lambda _, content: annotation(content, 12).update(bbox=[20, "8.000", 16, 16]),
        *("number_as_text", "warning", "annotations[1].bbox"),
    ),
    "class repeated": (
        lambda _, content: content["categories"].append(dict(content["categories"][0])),
        *("repeated_entry", "warning", "categories[3]"),
    ),
    "spelling": (
        lambda root, content: (
            (root / "train2017/train_b.png").rename(root / "train2017/train b.png"),
            content["images"][1].update(file_name="train%20b.png"),
        ),
        *("file_name_spelling", "warning", "train%20b.png is train b.png"),
    ),
    "out of the data set": (
        lambda root, content: (
            (root / "train2017/train_b.png").rename(root.parent / "far.png"),
            content["images"][1].update(file_name="../../far.png"),
        ),
        *("file_outside", "error", "../../far.png"),
    ),
    "absolute, inside": (
        lambda root, content: (
            content["images"][1].update(file_name=str(root / "train2017/train_b.png")),
            annotation(content, 12).update(area=0, bbox=[4, 2, 36, 36]),
        ),
        *("tiny_area", "warning", "annotation 12"),
    ),
    "class without boxes": (
        lambda _, content: content["categories"].append({"id": 4, "name": "w"}),
        *("class_without_boxes", "warning", "w"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str, root: Path, check: Callable[..., Any]) -> None:
    plant, name, severity, example = FAULTS[fault]
    content = read(root, "train")
    plant(root, content)
    write(root, "train", content)
    done = check("--json")
    ((place, entry),) = found_by(done).items()
    assert place == ("train", name)
    assert (entry["severity"], entry["count"]) == (severity, 1)
    assert entry["examples"][0].startswith(example)
    assert done.code == (2 if severity == "error" else 0)


def test_leakage_is_found_whatever_the_file_is_called(
    root: Path, check: Callable[..., Any]
) -> None:
    shutil.copy(root / "train2017/train_c.png", root / "val2017/val_a.png")
    done = check("--json")
    entry = found_by(done)["both", "leakage"]
    assert (done.code, entry["severity"], entry["count"]) == (2, "error", 1)
    assert entry["examples"] == ["val_a.png = train_c.png in train"]


def test_a_validation_split_without_boxes(root: Path, check: Callable[..., Any]) -> None:
    write(root, "val", {**read(root, "val"), "annotations": []})
    done = check("--json")
    assert (done.code, set(found_by(done))) == (0, {("val", "no_boxes")})


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_outside_are_allowed_on_demand(
    split: str, root: Path, check: Callable[..., Any]
) -> None:
    content = read(root, split)
    for entry, name in zip(content["images"], "ab", strict=False):
        (root / f"{split}2017" / entry["file_name"]).rename(root.parent / name)
        entry["file_name"] = f"../../{name}"
    write(root, split, content)
    assert found_by(check("--json"))[split, "file_outside"]["severity"] == "error"
    done = check("--json", "--set", "data.allow_outside=true")
    assert done.code == 0
    entry = found_by(done)[split, "file_outside"]
    assert (entry["severity"], entry["count"]) == ("warning", 2)
    fields = (f"data.root={root}", "data.allow_outside=true")
    index = read_split(load_recipe("small_from_scratch", fields).data, split)
    assert index.path_of(0).resolve() == root.parent / "a"


def test_crowds_are_counted_and_their_boxes_left_alone(
    root: Path, check: Callable[..., Any]
) -> None:
    content = read(root, "train")
    add(content, iscrowd=1, bbox=[0, 0, 0, 0])
    write(root, "train", content)
    done = check("--json")
    facts = json.loads(done.out)["splits"]["train"]
    assert (facts["num_crowd"], facts["num_targets"], facts["num_images_without_targets"]) == (
        (1, 9, 1)
    )
    assert found_by(done) == {}


@pytest.mark.parametrize(
    ("num_queries", "checks"),
    [
        (12, []),
        (11, ["more_boxes_than_positives"]),
        (2, ["more_boxes_than_positives", "more_boxes_than_queries"]),
    ],
)
def test_boxes_are_compared_with_queries_and_cap(
    num_queries: int, checks: list[str], check: Callable[..., Any]
) -> None:
    few = ("--set", f"model.num_queries={num_queries}", "--set", "supervision.one_to_many.k=1")
    done = check("--json", *few)
    found = found_by(done)
    assert sorted(name for _, name in found) == checks
    assert done.code == 0
    for entry in found.values():
        assert (entry["count"], entry["examples"]) == (3, ["image 1", "image 2", "image 3"])
    assert json.loads(done.out)["max_positives"] == num_queries // 4


HYBRID = ("model.query_groups.hybrid={queries: 11}", "supervision.hybrid={copies: 4}")
DENOISING = ("model.query_groups.denoising={budget: 2}", "supervision.denoising={}")
BOUNDED = ("model.query_groups.denoising={budget: 2, max_targets: 2}", "supervision.denoising={}")
FIXED = ("model.query_groups.denoising={groups: 2}", "supervision.denoising={}")
GROUP = ("model.query_groups.group={groups: 3}", "supervision.group={}")


@pytest.mark.parametrize(
    ("fields", "capacities", "checks"),
    [
        (HYBRID, {"hybrid": 2}, ["more_boxes_than_hybrid"]),  # 12 copies of 3 boxes, 11 queries
        (DENOISING, {"denoising": 2}, ["more_boxes_than_denoising_budget"]),
        (BOUNDED, {}, []),
        (FIXED, {}, []),
        (GROUP, {"group": 300}, []),
    ],
)
def test_boxes_are_compared_with_query_groups(
    fields: tuple[str, ...],
    capacities: dict[str, int],
    checks: list[str],
    check: Callable[..., Any],
) -> None:
    options = [word for field in fields for word in ("--set", field)]
    done = check("--json", *options)
    report = json.loads(done.out)
    assert report["group_capacities"] == capacities
    assert sorted(name for _, name in found_by(done)) == checks
    said = " ".join(check(*options).out.split())
    for name, number in capacities.items():
        assert f"boxes of an image that further groups can take: {name} {number}" in said


def test_only_the_images_in_use_are_looked_at(root: Path, check: Callable[..., Any]) -> None:
    (root / "train2017/train_d.png").unlink()
    assert check("--json", "--set", "data.train.limit=3").code == 0
    assert check("--json").code == 2


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["the annotation file does not exist"]),
        ("{\n nonsense", ["line 2: not JSON"]),
        ('{"images": 3}', ["images: not COCO", "annotations: not a COCO", "categories: not a"]),
    ],
)
def test_unreadable_annotations_do_not_hide_the_other_split(
    content: str | None, parts: list[str], root: Path, check: Callable[..., Any]
) -> None:
    file = root / "annotations/instances_val2017.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    (root / "train2017/train_a.png").unlink()
    done = check("--json")
    report = json.loads(done.out)
    assert (done.code, list(report["splits"])) == (2, ["train"])
    messages = [e["message"] for e in report["findings"] if e["check"] == "annotation_file"]
    assert len(messages) == len(parts)
    for message, part in zip(messages, parts, strict=True):
        assert message.startswith(f"{file}: ")
        assert part in message
    assert ("train", "missing_image") in found_by(done)


def test_classes_of_the_splits_must_agree(root: Path, check: Callable[..., Any]) -> None:
    content = read(root, "val")
    content["categories"][0]["name"] = "other"
    write(root, "val", content)
    done = check("--json")
    assert done.code == 2
    assert "category 1: is 'other' here" in found_by(done)["val", "label_space"]["message"]


def test_class_ids_must_fit_the_label_space(root: Path, check: Callable[..., Any]) -> None:
    content = read(root, "train")
    content["categories"].append({"id": 91, "name": "w"})
    write(root, "train", content)
    done = check("--json", "--set", "data.label_space=coco91")
    assert done.code == 2
    assert "lies outside 1..90" in found_by(done)["train", "label_space"]["message"]


def test_table_says_the_same(root: Path, check: Callable[..., Any]) -> None:
    content = read(root, "train")
    annotation(content, 12).update(bbox=[20, 8, 0, 0])
    add(content, image_id=77)
    write(root, "train", content)
    done = check()
    assert done.code == 2
    text = " ".join(done.out.split())
    assert "1 error, 1 warning" in text
    assert "boxes have no area and are left out: 1" in text
    assert text.index("annotations.image_id: each of these is not among") < text.index("no area")
    assert "queries of the model: 300, at most 75 positive" in text
    assert "\x1b" not in done.out


@pytest.mark.dataset
def test_blood_cells_have_two_boxes_without_area(
    data_dir: Path, msdetr: Callable[..., Any]
) -> None:
    data = ("--set", f"data.root={data_dir / 'bccd'}")
    done = msdetr("data", "check", "small_from_scratch", *data, "--json")
    found = found_by(done)
    assert done.code == 0
    assert {place: entry["examples"] for place, entry in found.items()} == {
        ("train", "box_without_area"): ["annotation 2288"],
        ("val", "box_without_area"): ["annotation 887"],
    }


class TestBeforeTraining:
    @pytest.fixture
    def train(self, msdetr: Callable[..., Any], root: Path, tmp_path: Path, tiny: list[str]) -> Any:
        def run(*options: str) -> Any:
            data = ("--set", "data.source=coco", "--set", f"data.root={root}")
            words = ("train", "shapes_tiny", "--output", tmp_path / "run", "--device", "cpu")
            return msdetr(*words, *tiny, *data, "--set", "train.epochs=1", *options)

        return run

    def test_errors_stop_it(self, train: Any, root: Path, tmp_path: Path) -> None:
        content = read(root, "train")
        add(content, image_id=77)
        add(content, id=11)
        write(root, "train", content)
        done = train()
        first, *lines = done.err.splitlines()
        file = root / "annotations/instances_train2017.json"
        assert (done.code, first) == (2, f"error: {file}: 2 problems")
        assert [line.split()[0] for line in lines] == ["annotations.id", "annotations.image_id"]
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_images_outside_stop_it(
        self, split: str, train: Any, root: Path, tmp_path: Path
    ) -> None:
        content = read(root, split)
        content["images"][0]["file_name"] = "/etc/hostname"
        content["images"][1]["file_name"] = f"../../data/../{split}_b.png"
        write(root, split, content)
        done = train()
        file = root / f"annotations/instances_{split}2017.json"
        assert (done.code, done.err) == (
            2,
            f"error: {file}: '/etc/hostname' lies outside the data set (and 1 more like it); set "
            "data.allow_outside: true to use such images\n",
        )
        assert not (tmp_path / "run").exists()

    def test_warnings_are_said_and_logged(self, train: Any, root: Path, tmp_path: Path) -> None:
        content = read(root, "train")
        annotation(content, 12).update(bbox=[20, 8, 0, 0])
        write(root, "train", content)
        done = train("--set", "model.num_queries=11")
        assert done.code == 0, done.err
        for text in (done.err, (tmp_path / "run/train.log").read_text()):
            assert "train: 4 images, 1 without targets; 8 targets; left out: 0 crowd, 1" in text
            assert "warning: train: boxes have no area and are left out: 1 (annotation 12)" in text
            assert "positive queries (2 of 11)" in text
