"""`msdetr data convert`: data sets of other layouts become COCO's, and come back the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Path, Path], Path]


def read(root: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (root / "annotations" / f"instances_{split}2017.json").read_text()
    )
    return content


def objects(content: dict[str, Any], image: dict[str, Any]) -> list[tuple[str, list[float]]]:
    """Class names and boxes of an image, in the order of the file."""
    name_of = {entry["id"]: entry["name"] for entry in content["categories"]}
    return [
        (name_of[entry["category_id"]], entry["bbox"])
        for entry in content["annotations"]
        if entry["image_id"] == image["id"]
    ]


def write_yolo(root: Path, folder: Path) -> Path:
    """Write a data set of COCO's layout as YOLO's; return what to convert."""
    for split in ("train", "val"):
        content = read(root, split)
        names = [entry["name"] for entry in content["categories"]]
        shutil.copytree(root / f"{split}2017", folder / "images" / split)
        (folder / "labels" / split).mkdir(parents=True)
        for image in content["images"]:
            lines = []
            for name, (x, y, w, h) in objects(content, image):
                center = ((x + w / 2) / image["width"], (y + h / 2) / image["height"])
                numbers = (*center, w / image["width"], h / image["height"])
                lines.append(" ".join([str(names.index(name)), *map(repr, numbers)]))
            path = folder / "labels" / split / Path(image["file_name"]).with_suffix(".txt").name
            if lines:
                path.write_text("\n".join(lines))
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{listed}")
    return folder / "data.yaml"


def write_voc(root: Path, folder: Path) -> Path:
    """Write a data set of COCO's layout as VOC's; return what to convert."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split in ("train", "val"):
        content = read(root, split)
        stems = []
        for image in content["images"]:
            stem = f"{split}_{Path(image['file_name']).stem}"
            stems.append(stem)
            suffix = Path(image["file_name"]).suffix
            shutil.copy(
                root / f"{split}2017" / image["file_name"], folder / f"JPEGImages/{stem}{suffix}"
            )
            entries = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                for name, (x, y, w, h) in objects(content, image)
            )
            (folder / f"Annotations/{stem}.xml").write_text(f"<annotation>{entries}</annotation>")
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems))
    return folder


LAYOUTS: dict[str, Write] = {"yolo": write_yolo, "voc": write_voc}


@pytest.fixture(scope="module")
def original(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated shapes, of which one image has lost its objects."""
    root = tmp_path_factory.mktemp("original") / "coco"
    shutil.copytree(shapes_root, root)
    content = read(root, "val")
    emptied = content["images"][0]["id"]
    content["annotations"] = [e for e in content["annotations"] if e["image_id"] != emptied]
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module", params=list(LAYOUTS))
def converted(
    request: pytest.FixtureRequest,
    original: Path,
    tmp_path_factory: pytest.TempPathFactory,
    msdetr: Callable[..., Any],
) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("convert")
    source = LAYOUTS[request.param](original, folder / "source")
    output = folder / "new" / "coco"
    done = msdetr("data", "convert", request.param, source, "--output", output)
    assert done.code == 0, done.err
    return output, done


def test_round_trip(converted: tuple[Path, Any], original: Path) -> None:
    output, done = converted
    assert done.out == f"{output}\n"
    for split in ("train", "val"):
        old, new = read(original, split), read(output, split)
        assert {e["name"] for e in new["categories"]} <= {e["name"] for e in old["categories"]}
        assert len(new["images"]) == len(old["images"])
        empty = sum(not objects(new, image) for image in new["images"])
        assert empty == (split == "val")
        said = f"{split}: {len(new['images'])} images ({empty} without objects), "
        assert f"{said}{len(new['annotations'])} boxes" in done.err
        pairs = zip(
            sorted(old["images"], key=lambda image: image["file_name"]), new["images"], strict=True
        )
        for before, after in pairs:
            assert (after["height"], after["width"]) == (before["height"], before["width"])
            copied = output / f"{split}2017" / after["file_name"]
            source = original / f"{split}2017" / before["file_name"]
            assert copied.read_bytes() == source.read_bytes()
            expected, found = objects(old, before), objects(new, after)
            assert [name for name, _ in found] == [name for name, _ in expected]
            for (_, box), (_, own) in zip(found, expected, strict=True):
                assert box == pytest.approx(own, abs=1e-6)


def test_ground_truth_as_predictions_scores_one(
    converted: tuple[Path, Any], tmp_path: Path, msdetr: Callable[..., Any]
) -> None:
    output, _ = converted
    results = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for entry in read(output, "val")["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    truth = output / "annotations" / "instances_val2017.json"
    options = ("--from-predictions", tmp_path / "results.json", "--data", truth, "--json")
    done = msdetr("eval", *options)
    assert done.code == 0, done.err
    assert json.loads(done.out)["ap"] == pytest.approx(1.0)


def test_converted_data_pass_the_check(
    converted: tuple[Path, Any], msdetr: Callable[..., Any]
) -> None:
    output, done = converted
    assert f"next: msdetr data check small_pretrained --set data.root={output}" in done.err
    checked = msdetr("data", "check", "small_pretrained", "--set", f"data.root={output}", "--json")
    assert checked.code == 0, checked.err


def test_every_mistake_is_a_line_and_nothing_is_written(
    original: Path, tmp_path: Path, msdetr: Callable[..., Any]
) -> None:
    source = write_yolo(original, tmp_path / "source")
    labels = sorted((tmp_path / "source" / "labels" / "train").iterdir())
    for number in range(2):
        labels[number].write_text("0 0.5\n" * 15)
    done = msdetr("data", "convert", "yolo", source, "--output", tmp_path / "coco")
    assert done.code == 2
    lines = done.err.splitlines()
    assert lines[0] == f"error: {source}: 21 problems"
    assert f"{labels[0]} line 1 " in lines[1]
    assert lines[-1].split() == ["and", "10", "more"]
    assert not (tmp_path / "coco").exists()
    assert "Traceback" not in done.err


def test_output_that_exists_is_left_alone(tmp_path: Path, msdetr: Callable[..., Any]) -> None:
    done = msdetr("data", "convert", "voc", tmp_path, "--output", tmp_path)
    assert (done.code, done.err) == (
        2,
        f"error: {tmp_path}: exists already; give another --output\n",
    )


def test_files_that_belong_to_nothing_are_named(
    original: Path, tmp_path: Path, msdetr: Callable[..., Any]
) -> None:
    source = write_yolo(original, tmp_path / "source")
    for number in range(7):
        (tmp_path / "source" / "labels" / "val" / f"stray{number}.txt").write_text("")
    done = msdetr("data", "convert", "yolo", source, "--output", tmp_path / "coco")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if line.startswith("left out")]
    assert "labels/val/stray0.txt" in line
    assert line.endswith("and 2 more")
