"""Colors that stay apart for color-blind readers, and text that stays legible on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rgb = tuple[int, int, int]
Dash = Literal["solid", "dashed", "dotted"]

BLACK: Rgb = (0, 0, 0)
WHITE: Rgb = (255, 255, 255)
# Source: Okabe and Ito, Color Universal Design, 2008; their black is kept for outlines.
COLORS: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted")


@dataclass(frozen=True)
class Style:
    """How the outline of a box looks.

    Attributes:
        color: Of the line and of the caption's background.
        dash: Pattern of the line.
        rim: Color along both sides of the line, so that it shows on any background.
    """

    color: Rgb
    dash: Dash = "solid"
    rim: Rgb = BLACK


def class_style(label: int) -> Style:
    """Return the style of a class, the same in every picture.

    Colors repeat after 7 classes, with another dash; styles repeat after 21. More colors than
    that could not be told apart by everybody, so a caption always names the class.

    Args:
        label: Class index, from 0.
    """
    turn, color = divmod(label, len(COLORS))
    return Style(COLORS[color], DASHES[turn % len(DASHES)])


def text_color(background: Rgb) -> Rgb:
    """Return black or white, whichever has the higher contrast to a background."""
    return max(BLACK, WHITE, key=lambda color: contrast(color, background))


def contrast(first: Rgb, second: Rgb) -> float:
    """Contrast ratio of two colors, 1 (none) to 21 (black and white).

    Source: Web Content Accessibility Guidelines 2.1, which ask for 4.5 in text.
    """
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: Rgb) -> float:
    linear = [_to_linear(channel / 255) for channel in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _to_linear(value: float) -> float:
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
