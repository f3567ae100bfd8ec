"""Score matrices."""

from __future__ import annotations

import numpy as np
from PIL import Image

from msdetr.drawing.score_matrix import ScoreMatrix, score_sheet

MATRIX = ScoreMatrix(
    title="layer 0",
    queries=(3, 14, 15),
    scores=((0.9, 0.1, 0.0), (0.2, 0.6, 0.4)),
    positives=((False, False, False), (False, False, False)),
    picks=((False, False, False), (False, False, False)),
)


def draw(**change: object) -> Image.Image:
    matrix = ScoreMatrix(**{**vars(MATRIX), **change})
    return score_sheet("image 1", "k 6", ["0 cat", "1 dog"], [matrix])


def differing(first: Image.Image, second: Image.Image) -> int:
    return int((np.asarray(first) != np.asarray(second)).any(axis=2).sum())


def test_each_mark_changes_its_cell_only() -> None:
    marks = ((False, True, False), (False, False, False))
    plain, dot, frame = draw(), draw(positives=marks), draw(picks=marks)
    assert 20 < differing(plain, dot) < 22 * 22
    assert 60 < differing(plain, frame) < 22 * 22
    assert differing(dot, frame) > 80


def test_higher_scores_are_darker() -> None:
    lightness = [
        np.asarray(draw(scores=((score,) * 3,) * 2).convert("L")).astype(int).sum()
        for score in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == 5


def test_sheets_grow_with_matrices() -> None:
    sheets = [score_sheet("image 1", "k 6", ["0 cat", "1 dog"], [MATRIX] * n) for n in (1, 2)]
    assert sheets[1].height > sheets[0].height
    assert sheets[1].width == sheets[0].width
