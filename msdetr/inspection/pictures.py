"""Pictures of an image's assignments, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from msdetr.boxes import cxcywh_to_xyxy
from msdetr.drawing.captions import Box
from msdetr.drawing.matching import ShownQuery, ShownTarget
from msdetr.drawing.matching_sheets import SheetHeading, layer_sheet, target_sheet
from msdetr.drawing.score_matrix import ScoreMatrix, score_sheet
from msdetr.image_files import open_image, read_image_file, to_rgb
from msdetr.inspection.rematch import ImageMatching
from msdetr.inspection.trace import TracedImage, TraceInfo

MAX_TARGETS = 11
MAX_STRIPS = 8
_MAX_REJECTED = 4
_MAX_COLUMNS = 72
_GREY = (128, 128, 128)


class ImagePictures:
    """Draws the sheets of one traced image.

    Args:
        image: Of a trace.
        matching: Its assignments.
        info: Of the trace.
        layers: Decoder layers to show; the sheet of targets shows the last of them.
    """

    def __init__(
        self,
        image: TracedImage,
        matching: ImageMatching,
        info: TraceInfo,
        layers: Sequence[int],
    ) -> None:
        self._image = image
        self._matching = matching
        self._info = info
        self._layers = layers
        self._names = [info.category_names[label] for label in image.labels.tolist()]
        areas = image.boxes_cxcywh[:, 2] * image.boxes_cxcywh[:, 3]
        # Large targets first: they can be looked at; the order of equals is that of the file.
        self._largest: list[int] = areas.argsort(descending=True, stable=True).tolist()
        self._photo, self._note = open_photo(image)

    def save(self, folder: Path) -> list[Path]:
        """Write ``<image id>_targets.png``, ``_layers.png`` and ``_scores.png``.

        An image without targets has no pictures.

        Returns:
            The files.
        """
        if not self._image.num_targets:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        sheets = {"targets": self.targets(), "layers": self.strip(), "scores": self.scores()}
        paths = []
        for name, sheet in sheets.items():
            paths.append(folder / f"{self._image.image_id:012d}_{name}.png")
            sheet.save(paths[-1], compress_level=4)
        return paths

    def targets(self) -> Image.Image:
        """Draw every target with its queries in the last layer."""
        chosen = sorted(self._largest[:MAX_TARGETS])
        layer = self._layers[-1]
        boxes = self._boxes_px(self._image.boxes_cxcywh)
        overview = [(boxes[t], f"{t} {self._names[t]}") for t in self._largest]
        return target_sheet(
            self._photo,
            self._heading(f"decoder layer {layer}", len(chosen)),
            overview,
            [self._shown(target, layer) for target in chosen],
        )

    def strip(self) -> Image.Image:
        """Draw targets in every layer, side by side."""
        chosen = sorted(self._largest[:MAX_STRIPS])
        rows = [[self._shown(target, layer) for layer in self._layers] for target in chosen]
        heading = self._heading("all boxes of a row in the same part of the image", len(chosen))
        return layer_sheet(self._photo, heading, rows, self._layers)

    def scores(self) -> Image.Image:
        """Draw scores of the best queries of every target, one matrix per layer."""
        chosen = sorted(self._largest[: _MAX_COLUMNS // 2])
        per_target = max(2, min(10, _MAX_COLUMNS // len(chosen)))
        heading = self._heading(
            f"the best {per_target} queries of every target, and all assigned ones", len(chosen)
        )
        names = [f"{target} {self._names[target]}" for target in chosen]
        matrices = [self._matrix(layer, chosen, per_target) for layer in self._layers]
        ends = ("score 0", "1") if self._matching.is_bounded else ("low score", "high")
        return score_sheet(heading.title, heading.subtitle, names, matrices, ends=ends)

    def _matrix(self, layer: int, chosen: list[int], per_target: int) -> ScoreMatrix:
        matching = self._matching
        positives = matching.one_to_many[layer, chosen]
        picks = matching.one_to_one[layer, chosen]
        ranks = matching.ranks[layer, chosen]
        shown = ((ranks <= per_target) | positives | picks).any(dim=0).nonzero()[:, 0]
        # By the target that each query scores best for, then by score: pairs lie on a diagonal.
        best = matching.strengths[layer, chosen][:, shown].max(dim=0)
        order = (best.indices * 2 - best.values).argsort(stable=True)
        queries = shown[order]
        return ScoreMatrix(
            title=f"layer {layer}",
            queries=queries.tolist(),
            scores=matching.strengths[layer, chosen][:, queries].tolist(),
            positives=positives[:, queries].tolist(),
            picks=picks[:, queries].tolist(),
        )

    def _shown(self, target: int, layer: int) -> ShownTarget:
        matching = self._matching
        paired = matching.one_to_many[layer, target]
        picked = matching.one_to_one[layer, target]
        ranks = matching.ranks[layer, target]
        rejected = torch.where(paired | picked, len(ranks) + 1, ranks).argsort(stable=True)
        marked = paired | picked
        marked[rejected[:_MAX_REJECTED]] = True
        queries = marked.nonzero()[:, 0]
        queries = queries[ranks[queries].argsort()]
        return ShownTarget(
            box_xyxy_px=self._boxes_px(self._image.boxes_cxcywh[target][None])[0],
            title=f"target {target}: {self._names[target]}",
            size_bin=self._image.size_bins[target],
            note=matching.target_note(layer, target),
            queries=tuple(self._query(target, layer, query) for query in queries.tolist()),
        )

    def _query(self, target: int, layer: int, query: int) -> ShownQuery:
        image, matching = self._image, self._matching
        boxes = torch.stack(
            [b.boxes_cxcywh[layer, query] for b in (image.one_to_many, image.one_to_one)]
        )
        box, pick_box = self._boxes_px(boxes)
        place = (layer, target, query)
        is_pick = bool(matching.one_to_one[place])
        reason = matching.reason(layer, target, query)
        return ShownQuery(
            box_xyxy_px=box,
            query=query,
            rank=int(matching.ranks[place]),
            score=float(matching.scores[place]),
            strength=None if matching.is_bounded else float(matching.strengths[place]),
            iou=float(matching.iou[place]),
            probability=float(image.one_to_many.probabilities[place]),
            is_positive=bool(matching.one_to_many[place]),
            is_pick=is_pick,
            reason="" if reason is None else reason.words,
            pick_box_xyxy_px=pick_box if is_pick else None,
        )

    def _heading(self, what: str, num_shown: int) -> SheetHeading:
        num_targets = self._image.num_targets
        settings = f"{self._info.one_to_many.describe()}; {self._info.num_queries} queries"
        left_out = f"; the {num_shown} largest of {num_targets} targets"
        notes = (left_out if num_shown < num_targets else "") + self._note
        if not self._info.has_one_to_many:
            notes += "; the model has no one-to-many branch: what the assignment would be"
        if self._info.has_suppressor:
            notes += "; picks of the last layer are the suppressor's"
        return SheetHeading(
            f"image {self._image.image_id} ({self._image.file_name}): {what}", settings + notes
        )

    def _boxes_px(self, boxes_cxcywh: Tensor) -> list[Box]:
        height, width = self._image.original_hw
        size = torch.tensor([width, height, width, height])
        corners: list[Box] = [
            (x0, y0, x1, y1) for x0, y0, x1, y1 in (cxcywh_to_xyxy(boxes_cxcywh) * size).tolist()
        ]
        return corners


def open_photo(image: TracedImage) -> tuple[Image.Image, str]:
    """Open the image, or a grey area in its place; also return a note on it."""
    height, width = image.original_hw
    try:
        with open_image(read_image_file(Path(image.path))) as file:
            is_upright = file.size == (width, height)
            turned = file if is_upright else ImageOps.exif_transpose(file)
            photo = to_rgb(turned, file.format)
    except Exception:  # of a decoder, if the file is not what it was
        return Image.new("RGB", (width, height), _GREY), "; the image file cannot be read now"
    if photo.size != (width, height):
        return Image.new("RGB", (width, height), _GREY), "; the image file has another size now"
    return photo, ""
