from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from msdetr.drawing.palette import BLACK, COLORS, WHITE, class_style, contrast, text_color

# Source: Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009: severity 1.0, linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def to_lab(color: tuple[int, int, int], vision: str) -> np.ndarray:
    value = np.asarray(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(VISION[vision] @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colors_stay_apart(vision: str) -> None:
    distances = [
        np.linalg.norm(to_lab(a, vision) - to_lab(b, vision)) for a, b in combinations(COLORS, 2)
    ]
    # 2.3 is just noticeable; red against green of the same lightness would fall to about 5.
    assert min(distances) > 10


@pytest.mark.parametrize("color", COLORS)
def test_text_is_legible_on_every_color(color: tuple[int, int, int]) -> None:
    assert contrast(text_color(color), color) >= 4.5


def test_contrast_of_extremes() -> None:
    assert contrast(BLACK, WHITE) == contrast(WHITE, BLACK) == pytest.approx(21.0)
    assert contrast(WHITE, WHITE) == 1.0


def test_styles_are_distinct_and_stable() -> None:
    styles = [class_style(label) for label in range(21)]
    assert len(set(styles)) == 21
    assert [class_style(label) for label in range(21, 42)] == styles
    assert all(style.dash == "solid" for style in styles[:7])
