from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdetr.data.coco_index import locate_split, read_coco
from msdetr.data.labels import Category
from msdetr.errors import DataError


def make(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    (folder / "images").mkdir()
    content = {
        "images": [
            {"id": 9, "file_name": "nine.png", "height": 40, "width": 60},
            {"id": 4, "file_name": "four.png", "height": 50, "width": 30},
            {"id": 6, "file_name": "six.png", "height": 10, "width": 10},
        ],
        "annotations": [{"id": i, **entry} for i, entry in enumerate(annotations)],
        "categories": [{"id": 8, "name": "b"}, {"id": 2, "name": "a"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def box(image_id: int, bbox: list[float], category_id: int = 2, **more: int) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def test_index_is_sorted_by_image_id(tmp_path: Path) -> None:
    path = make(tmp_path, [box(9, [1, 2, 3, 4], 8), box(4, [0, 0, 5, 5]), box(9, [5, 5, 5, 5])])
    index = read_coco(tmp_path / "images", path)
    assert index.image_ids.tolist() == [4, 6, 9]
    assert index.image_hw.tolist() == [[50, 30], [10, 10], [40, 60]]
    assert index.path_of(2) == tmp_path / "images" / "nine.png"
    assert index.categories == (Category(2, "a"), Category(8, "b"))
    assert index.first_target.tolist() == [0, 1, 1, 3]
    assert index.boxes_xyxy_px[index.targets_of(2)].tolist() == [[1, 2, 4, 6], [5, 5, 10, 10]]
    assert index.category_ids[index.targets_of(2)].tolist() == [8, 2]
    assert index.num_images_without_targets == 1


def test_leaves_out_and_counts_what_is_not_trained_on(tmp_path: Path) -> None:
    path = make(
        tmp_path,
        [
            box(9, [0, 0, 5, 5], iscrowd=1),
            box(9, [3, 3, 0, 8]),  # no width
            box(9, [3, 3, 8, -1]),  # negative height
            box(9, [60, 0, 10, 10]),  # right of the image
            box(9, [-20, 0, 20, 10]),  # left of the image
            box(9, [-5, -5, 10, 10]),  # partly inside: clipped
            box(9, [50, 30, 100, 100]),  # reaches beyond: clipped
        ],
    )
    index = read_coco(tmp_path / "images", path)
    assert (index.num_targets, index.num_crowd, index.num_without_area) == (2, 1, 4)
    assert index.boxes_xyxy_px.tolist() == [[0, 0, 5, 5], [50, 30, 60, 40]]


def test_images_without_any_annotation_stay(tmp_path: Path) -> None:
    index = read_coco(tmp_path / "images", make(tmp_path, []))
    assert len(index) == index.num_images_without_targets == 3
    assert index.boxes_xyxy_px.shape == (0, 4)


def test_limit_keeps_the_first_images(tmp_path: Path) -> None:
    path = make(tmp_path, [box(9, [1, 2, 3, 4]), box(4, [0, 0, 5, 5], 8)])
    index = read_coco(tmp_path / "images", path).limit(2)
    assert index.image_ids.tolist() == [4, 6]
    assert index.num_targets == 1
    assert index.category_ids.tolist() == [8]
    assert len(index.limit(100)) == 2


def test_missing_image_folder(tmp_path: Path) -> None:
    path = make(tmp_path, [])
    with pytest.raises(DataError, match="elsewhere: the image folder does not exist"):
        read_coco(tmp_path / "elsewhere", path)


@pytest.mark.dataset
@pytest.mark.parametrize("name", ["coco-tiny", "bccd"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_data(data_dir: Path, name: str, split: str) -> None:
    located = locate_split(split, root=data_dir / name)
    index = read_coco(located.images_dir, located.annotations_file)
    raw = json.loads(located.annotations_file.read_text())
    assert len(index) == len(raw["images"])
    left_out = index.num_crowd + index.num_without_area
    assert index.num_targets + left_out == len(raw["annotations"])
    assert index.num_crowd == sum(entry["iscrowd"] for entry in raw["annotations"])
    assert all(index.path_of(i).is_file() for i in range(len(index)))
    position = len(index) // 2
    wanted = [
        entry["bbox"]
        for entry in raw["annotations"]
        if entry["image_id"] == index.image_ids[position] and not entry["iscrowd"]
    ]
    boxes = index.boxes_xyxy_px[index.targets_of(position)]
    np.testing.assert_allclose(boxes[:, :2], np.array(wanted)[:, :2].clip(0), atol=1e-3)


def test_locate_in_the_coco_layout(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").touch()
    found = locate_split("val", root=tmp_path)
    assert found.images_dir == tmp_path / "val2017"
    assert found.annotations_file == tmp_path / "annotations" / "instances_val2017.json"


def test_locate_explicit_paths(tmp_path: Path) -> None:
    path = make(tmp_path, [])
    relative = locate_split(
        "train", root=tmp_path, images=Path("images"), annotations=Path("annotations.json")
    )
    absolute = locate_split("train", images=tmp_path / "images", annotations=path)
    assert relative == absolute
    mixed = locate_split("train", root=Path("/"), images=tmp_path / "images", annotations=path)
    assert mixed == absolute


def test_locate_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.root, or data\.val\.images and"):
        locate_split("val", images=tmp_path)
    with pytest.raises(DataError, match="none: the data root does not exist"):
        locate_split("val", root=tmp_path / "none")
    with pytest.raises(DataError, match="val2017: the image folder does not exist"):
        locate_split("val", root=tmp_path)
    (tmp_path / "val2017").mkdir()
    with pytest.raises(DataError, match=r"instances_val2017\.json: the annotation file does not"):
        locate_split("val", root=tmp_path)
