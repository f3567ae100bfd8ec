"""Traces to write, and Chromium to open the pages with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from msdetr.api.traces.make_trace import ProbeSet, trace_untrained
from msdetr.assignment import HungarianAssigner, OneToManyAssigner
from msdetr.assignment.costs import focal_class_cost, pairwise_giou, pairwise_l1
from msdetr.inspection.rematch import rematch
from msdetr.inspection.report import write_report
from msdetr.inspection.trace import MatchTrace, TracedBranch, TracedImage, TraceInfo

HUNGARIAN = HungarianAssigner(class_weight=2.0, l1_weight=5.0, giou_weight=2.0)
RULE = OneToManyAssigner(
    k=6, threshold=0.4, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
)
LARGER = {
    "model.decoder_layers": 3,
    "model.num_queries": 60,
    "data.eval_size": 96,
    "data.eval_max_size": 160,
}
NUM_COCO_IMAGES = 6


@dataclass(frozen=True)
class Sizes:
    """How large a generated trace is."""

    images: int = 4
    layers: int = 3
    queries: int = 40
    targets: int = 5
    classes: int = 3


def generated_info(sizes: Sizes, names: tuple[str, ...]) -> TraceInfo:
    return TraceInfo(
        source="runs/generated/checkpoints/best",
        source_sha256=None,
        weights="trained",
        recipe={},
        annotations_file="annotations.json",
        annotations_sha256="",
        category_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        one_to_one=HUNGARIAN,
        one_to_many=RULE,
        loss_weights={"one_to_one": (1.0, 5.0, 2.0), "one_to_many": (2.0, 5.0, 2.0)},
        has_one_to_many=True,
        shares_class_head=True,
        num_layers=sizes.layers,
        num_queries=sizes.queries,
    )


def generated_branch(
    targets: torch.Tensor, labels: torch.Tensor, sizes: Sizes, chance: torch.Generator
) -> TracedBranch:
    """Queries around the targets and elsewhere, closer from layer to layer."""
    shape = (sizes.layers, sizes.queries)
    home = torch.randint(len(targets) + 1, (sizes.queries,), generator=chance)
    centres = torch.cat([targets, torch.full((1, 4), 0.3)])[home]
    spread = torch.rand(*shape, 4, generator=chance) - 0.5
    nearer = torch.linspace(0.3, 0.1, sizes.layers)[:, None, None]
    boxes = (centres + spread * nearer * centres).clamp(0, 1)
    logits = torch.randn(sizes.layers, sizes.classes, sizes.queries, generator=chance) - 2
    own = torch.cat([labels, torch.tensor([-1])])[home] == torch.arange(sizes.classes)[:, None]
    probabilities = (logits + 2 * own).sigmoid()[:, labels]
    return TracedBranch(boxes, probabilities, torch.ones(sizes.layers, 3))


def generated_image(index: int, sizes: Sizes, path: Path) -> TracedImage:
    chance = torch.Generator().manual_seed(index)
    num_targets = sizes.targets if index else 0
    size = torch.rand(num_targets, 2, generator=chance) * 0.3 + 0.05
    targets = torch.cat([torch.rand(num_targets, 2, generator=chance) * 0.6 + 0.2, size], dim=1)
    labels = torch.arange(num_targets) % sizes.classes
    one_to_one, one_to_many = (generated_branch(targets, labels, sizes, chance) for _ in range(2))
    cost = 5 * pairwise_l1(one_to_one.boxes_cxcywh[:, None], targets[None])[:, 0]
    cost -= 2 * pairwise_giou(one_to_one.boxes_cxcywh[:, None], targets[None])[:, 0]
    cost += 2 * focal_class_cost(one_to_one.probabilities.logit(), 0.25, 2.0)
    image = TracedImage(
        image_id=100 + index,
        file_name=path.name,
        path=str(path),
        original_hw=(120, 160),
        boxes_cxcywh=targets,
        labels=labels,
        annotation_ids=torch.arange(num_targets) + 1000 * index,
        areas_px=targets[:, 2] * targets[:, 3] * 120 * 160,
        one_to_one=one_to_one,
        one_to_many=one_to_many,
        u=torch.rand(sizes.layers, sizes.queries, generator=chance),
        hungarian_cost=cost,
        one_to_one_queries=torch.empty(0),
        one_to_many_queries=torch.empty(0),
    )
    matching = rematch(image, RULE)
    return replace(
        image,
        one_to_one_queries=matching.one_to_one_queries,
        one_to_many_queries=matching.one_to_many_queries,
    )


@pytest.fixture(scope="session")
def sizes() -> type[Sizes]:
    """How large a generated trace may be asked to be."""
    return Sizes


@pytest.fixture(scope="session")
def generate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MatchTrace]:
    """Make a trace; the first image has no target, the last one's file is missing."""
    folder = tmp_path_factory.mktemp("photos")

    def build(sizes: Sizes | None = None, names: tuple[str, ...] | None = None) -> MatchTrace:
        sizes = sizes or Sizes()
        paths = [folder / f"{index:04}.png" for index in range(sizes.images)]
        for index, path in enumerate(paths[:-1]):
            Image.new("RGB", (160, 120), (40 * index % 256, 120, 90)).save(path)
        paths[-1].unlink(missing_ok=True)
        images = [generated_image(i, sizes, path) for i, path in enumerate(paths)]
        classes = names or tuple(f"class {i}" for i in range(sizes.classes))
        return MatchTrace(generated_info(sizes, classes), tuple(images))

    return build


@pytest.fixture(scope="session")
def coco_trace(data_dir: Path, tiny_fields: Callable[..., list[str]]) -> MatchTrace:
    """An untrained small model on real images, most of them with several targets."""
    probe = ProbeSet(NUM_COCO_IMAGES)
    data = str(data_dir / "coco-tiny")
    return trace_untrained(
        "shapes_tiny", data=data, probe=probe, device="cpu", overrides=tiny_fields(LARGER)
    )


@dataclass
class Opened:
    """A page in the browser, and what it complained about."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Wait until the statistics of all images stand on the page."""
        ready = "document.querySelector('#charts figure') && !document.querySelector('.computing')"
        self.page.wait_for_function(ready)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def texts(self, selector: str) -> list[str]:
        return list(self.page.locator(selector).all_inner_texts())


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Write a trace as a page and open it from its file, without a network."""
    contexts = []

    def run(source: MatchTrace | Path, width: int = 1440, height: int = 900) -> Opened:
        path = source if isinstance(source, Path) else tmp_path / "matching.html"
        if isinstance(source, MatchTrace):
            write_report(source, path)
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=True)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.complaints.append(dialog.message))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.set_default_timeout(120_000)
        opened.page.goto(path.as_uri())
        opened.settle()
        return opened

    yield run
    for context in contexts:
        context.close()
