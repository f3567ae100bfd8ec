"""Studies whose cells were made, not trained: simulated detectors in ordinary run directories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from msdetr.evaluation import evaluate_boxes
from msdetr.files import digest_file
from msdetr.inspection.positives import TargetPositives, write_positives
from msdetr.recipe import recipe_to_dict, recipe_to_yaml
from msdetr.study.design import cell_recipe, load_design, resolve_arms
from msdetr.study.folder import StudyFolder

CATEGORIES = ("disc", "star", "ring")
ENVIRONMENT = {
    "cpu": "Made Processor",
    "cpu_capability": "AVX2",
    "torch_threads": 1,
    "gpus": [],
    "packages": {"torch": "2.11.0"},
}


@dataclass
class MadeStudy:
    """A study in a folder, whose cells are added one by one.

    Attributes:
        path: The study's folder.
        data: Root of its data set.
        qualities: By arm, the chance to find a target.
        folder: The study's places.
    """

    path: Path
    data: Path
    qualities: Mapping[str, float]
    truth: dict[str, Any]
    folder: StudyFolder = field(init=False)

    def begin(self, seeds: tuple[int, ...], **fields: Any) -> None:
        """Freeze the design, or add to it."""
        file = self.data / "study.yaml"
        design = {
            "description": "Made, not trained",
            "baseline": next(iter(self.qualities)),
            "arms": {name: {"recipe": _recipe_of(name)} for name in self.qualities},
            "vary": ["model.placement", "model.extra_ffn", "supervision", "description"],
            "seeds": list(seeds),
            **fields,
        }
        common = {"data.source": "coco", "data.root": str(self.data)}
        for arm in design["arms"].values():
            arm["set"] = {**common, **arm.get("set", {})}
        file.write_text(yaml.safe_dump(design, sort_keys=False))
        self.folder = StudyFolder(self.path)
        loaded = load_design(file)
        self.folder.begin(file, loaded, resolve_arms(loaded, file))

    def train(self, arm: str, seed: int, **changes: Any) -> Path:
        """Make a finished cell.

        Args:
            arm: Name of the arm.
            seed: Its seed.
            **changes: "draw": seed of the detections; "analysed"; "environment".
        """
        lock = self.folder.read_lock()
        recipe = cell_recipe(lock.load_recipes("lock")[arm], seed)
        run = self.folder.cell(arm, seed)
        draw = np.random.default_rng([changes.get("draw", seed)])
        results = detect(self.truth, self.qualities[arm] + draw.normal(0, 0.004), draw)
        metrics = evaluate_boxes(self.truth, results)
        for name in ("evaluation", "checkpoints/last"):
            (run / name).mkdir(parents=True)
        cost = {"train_seconds": 60.0 + seed, "images_seen": 800, "image_flops": 12_300_000_000}
        _write(run / "evaluation/metrics.json", {**metrics.to_dict(), "cost": cost})
        _write(run / "evaluation/predictions.json", results)
        _write(run / "environment.json", {**ENVIRONMENT, **changes.get("environment", {})})
        (run / "recipe.yaml").write_text(recipe_to_yaml(recipe))
        rows = [_epoch(epoch, metrics.ap or 0.0, cost) for epoch in range(4)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        _write(run / "checkpoints/last/checkpoint.json", self._info(recipe_to_dict(recipe)))
        if changes.get("analysed", True):
            self._analyse(run, draw, has_one_to_many=recipe.supervision.one_to_many is not None)
        return run

    def _info(self, recipe: dict[str, Any]) -> dict[str, Any]:
        file = self.data / "annotations/instances_val2017.json"
        split = {"annotations": str(file), "annotations_sha256": digest_file(file)}
        epochs = recipe["train"]["epochs"]
        return {"run_state": {"epoch": epochs}, "recipe": recipe, "data": {"val": split}}

    def _analyse(self, run: Path, draw: np.random.Generator, *, has_one_to_many: bool) -> None:
        folder = run / "analysis"
        folder.mkdir()
        entries = self.truth["annotations"]
        rows = [_positives(entry, layer, draw) for layer in range(2) for entry in entries]
        write_positives(folder / "positives.csv", rows)
        layers = [
            {"ap": 0.3 + 0.1 * layer + draw.normal(0, 0.01), "ap_after_nms": 0.5}
            for layer in range(2)
        ]
        content = {
            "format_version": 1,
            "num_traced": len(self.truth["images"]),
            "has_one_to_many": has_one_to_many,
            "one_to_many": "k 2, threshold 0.4, IoU weight 0.3, cap 0.25",
            "branches": {"one_to_one": layers, "one_to_many": layers if has_one_to_many else None},
        }
        _write(folder / "analysis.json", content)


def detect(
    truth: Mapping[str, Any], quality: float, draw: np.random.Generator
) -> list[dict[str, Any]]:
    """Simulate a detector that finds a target with a chance; some are found twice."""
    results = []
    for entry in truth["annotations"]:
        x, y, width, height = entry["bbox"]
        for copy in range(2):
            is_found = draw.random() < quality * (1.0 if copy == 0 else 0.3)
            shift, score = draw.normal(0, 0.05, 2), float(draw.beta(5, 3) if is_found else 0.1)
            place = (x + shift[0] * width, y + shift[1] * height) if is_found else (1.0, 150.0)
            box = [float(value) for value in (*place, width, height)]
            keys = ("image_id", "category_id")
            results.append({**{k: entry[k] for k in keys}, "bbox": box, "score": score})
    return results


def make_truth(num_images: int = 30) -> dict[str, Any]:
    """Draw ground truth: two to four objects per image."""
    draw = np.random.default_rng(0)
    images = [
        {"id": number, "file_name": f"{number}.png", "height": 200, "width": 400}
        for number in range(1, num_images + 1)
    ]
    places = [(image["id"], place) for image in images for place in range(draw.integers(2, 5))]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": int(draw.integers(1, len(CATEGORIES) + 1)),
            "bbox": [100.0 * place, 10.0, *draw.uniform(30, 80, 2).round(1).tolist()],
            "iscrowd": 0,
        }
        for number, (image, place) in enumerate(places, start=1)
    ]
    for entry in annotations:
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def make_study(
    folder: Path, qualities: Mapping[str, float], seeds: tuple[int, ...], **fields: Any
) -> MadeStudy:
    """Begin a study without cells, and make its data set.

    Args:
        folder: For the data set and the study.
        qualities: By arm, the chance to find a target; the baseline first.
        seeds: Of the study.
        **fields: Further fields of the design.
    """
    data = folder / "data"
    truth = make_truth()
    for name in ("annotations", "train2017", "val2017"):
        (data / name).mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        _write(data / f"annotations/instances_{split}2017.json", truth)
    for image in truth["images"]:
        size, color = (image["width"], image["height"]), (120, 8 * image["id"], 60)
        Image.new("RGB", size, color).save(data / "val2017" / image["file_name"])
    study = MadeStudy(folder / "study", data, qualities, truth)
    study.begin(seeds, **fields)
    return study


def _recipe_of(arm: str) -> str:
    return "shapes_tiny_baseline" if arm.startswith("one_to_one") else "shapes_tiny"


def _positives(entry: Mapping[str, Any], layer: int, draw: np.random.Generator) -> TargetPositives:
    candidates = int(draw.integers(0, 5))
    kept = int(draw.binomial(candidates, 0.6))
    return TargetPositives(entry["image_id"], entry["id"], layer, candidates, kept, min(kept, 2))


def _epoch(epoch: int, ap: float, cost: Mapping[str, Any]) -> dict[str, Any]:
    value = ap * (epoch + 1) / 4
    return {"kind": "epoch", "epoch": epoch, "step": 100 * epoch, "terms": {}, "ap": value, **cost}


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
