"""Draw ``docs/images/architecture.svg`` from the text below: how a run flows through the parts.

python docs/draw_architecture.py
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

# One line per box: name | row | column | what it does. Rows and columns count from 0; a column
# may be a range, over which the box stretches.
BOXES = """
recipes/*.yaml   | 0 | 0   | one file per variant
recipe           | 0 | 1   | schema, checks, errors with line numbers
build            | 0 | 2   | recipe to objects: the one place that knows both
api              | 0 | 3   | one workflow per command
cli              | 0 | 4   | arguments, text, exit codes
structures       | 1 | 0   | the tensors that flow: batches, predictions, assignments
ops              | 1 | 1   | deformable attention; C++ and CUDA in extensions/
assignment       | 1 | 3   | costs and assigners, which describe and explain themselves
files, seeding   | 1 | 4   | writing aside, digests; every seed
data             | 2 | 0   | COCO files, augmentation, noised targets, batches
model            | 2 | 1-2 | backbone, neck, encoder, query source, training groups, decoder
losses           | 2 | 3   | supervision branches, criterion
engine           | 2 | 4   | loop, checkpoints, processes; knows no detection
evaluation       | 3 | 0   | COCO metrics, results files
inspection       | 3 | 1   | match traces, tables, pictures, pages
export           | 3 | 2   | ONNX, torch.export, verification
interop          | 3 | 3   | published checkpoints
run_report       | 3 | 4   | curves and page of a training run
"""

# Who hands what to whom: from > to | what (may be empty).
ARROWS = """
recipes/*.yaml > recipe |
recipe > build          | Recipe
build > api             |
cli > api               |
build > model           | modules
data > model            | ImageBatch
model > losses          | ModelOutput
losses > engine         | LossTerm
assignment > losses     | Assignment
ops > model             | ms_deform_attn
model > evaluation      | Detections
model > inspection      | ModelOutput
model > export          | DetectionModel
engine > run_report     | metrics.jsonl
"""

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 176, 76, 84, 50, 16
LINE = 24


@dataclass(frozen=True)
class Box:
    """A box of the picture, in pixels."""

    name: str
    text: str
    x: float
    y: float
    width: float

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box."""
        return self.x + self.width / 2, self.y + HEIGHT / 2


def parse_boxes(text: str) -> dict[str, Box]:
    """Read the boxes of the text."""
    boxes = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, row, columns, what = (part.strip() for part in line.split("|"))
        first, _, last = columns.partition("-")
        span = int(last or first) - int(first) + 1
        x = MARGIN + int(first) * (WIDTH + GAP_X)
        y = MARGIN + int(row) * (HEIGHT + GAP_Y)
        boxes[name] = Box(name, what, x, y, span * WIDTH + (span - 1) * GAP_X)
    return boxes


def parse_arrows(text: str) -> list[tuple[str, str, str]]:
    """Read the arrows of the text: from, to, label."""
    arrows = []
    for line in filter(None, map(str.strip, text.splitlines())):
        ends, _, label = line.partition("|")
        source, _, target = ends.partition(">")
        arrows.append((source.strip(), target.strip(), label.strip()))
    return arrows


def draw_box(box: Box) -> str:
    """Return a box with its name and what it does, wrapped."""
    limit = int(box.width / 6.6)
    lines, current = [], ""
    for word in box.text.split():
        if len(current) + len(word) + 1 > limit:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    lines.append(current)
    texts = "".join(
        f'<text x="{box.x + 10}" y="{box.y + LINE + 16 + 15 * i}" class="what">{escape(t)}</text>'
        for i, t in enumerate(lines)
    )
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{box.x + 10}" y="{box.y + LINE - 3}" class="name">{escape(box.name)}</text>'
        f"{texts}"
    )


def ends(source: Box, target: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where an arrow leaves one box and meets the other."""
    if source.y == target.y:
        right = target.x > source.x
        x0 = source.x + source.width if right else source.x
        x1 = target.x if right else target.x + target.width
        return (x0, source.center[1]), (x1, target.center[1])
    down = target.y > source.y
    # Straight where one box stands over the other.
    narrow = min(source, target, key=lambda box: box.width)
    x0, x1 = (
        min(max(narrow.center[0], box.x + 24), box.x + box.width - 24) for box in (source, target)
    )
    y0 = source.y + HEIGHT if down else source.y
    return (x0, y0), (x1, target.y if down else target.y + HEIGHT)


def draw_arrow(source: Box, target: Box, label: str) -> str:
    """Return an arrow from border to border, with its label at the middle."""
    (x0, y0), (x1, y1) = ends(source, target)
    beside = 'text-anchor="middle"' if y0 == y1 else 'dx="8" dy="9"'
    middle = f'x="{(x0 + x1) / 2}" y="{(y0 + y1) / 2 - 6}" {beside}'
    text = f'<text {middle} class="label">{escape(label)}</text>' if label else ""
    return f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" marker-end="url(#head)"/>{text}'


def draw(boxes: dict[str, Box], arrows: list[tuple[str, str, str]]) -> str:
    """Return the whole picture."""
    width = max(box.x + box.width for box in boxes.values()) + MARGIN
    height = max(box.y for box in boxes.values()) + HEIGHT + MARGIN
    parts = [draw_arrow(boxes[s], boxes[t], label) for s, t, label in arrows]
    parts += map(draw_box, boxes.values())
    style = (
        "rect{fill:#f4f6fa;stroke:#5b6b88}line{stroke:#5b6b88;stroke-width:1.4}"
        "text{font-family:sans-serif;fill:#1d2433}.name{font-weight:bold;font-size:14px}"
        ".what{font-size:12px}.label{font-size:11px;fill:#40506e}"
    )
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#5b6b88"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        "<title>How a run flows through the parts of msdetr</title>"
        f'<style>{style}</style>{head}<rect width="{width}" height="{height}" '
        f'style="fill:white;stroke:none"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    svg = draw(parse_boxes(BOXES), parse_arrows(ARROWS))
    (Path(__file__).parent / "images" / "architecture.svg").write_text(svg, encoding="utf-8")
