"""Show the parameters that the library's errors name as options of the command line."""

from __future__ import annotations

import re

# Where an option is not its parameter with dashes.
_FLAGS = {
    "checkpoint": "--ckpt",
    "checkpoints": "--ckpt",
    "iou_weights": "--iou-weight",
    "ks": "--k",
    "max_positive_fraction": "--cap",
    "overrides": "--set",
    "static_hw": "--static",
    "thresholds": "--threshold",
    "traces": "--trace",
    "verified_images": "--verify",
}
_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]+))?`")
_SIZE = re.compile(r"\((\d+), (\d+)\)")


def in_flags(text: str) -> str:
    """Show the parameters in a text of the library as options.

    Args:
        text: With parameters in backquotes, as :mod:`msdetr.errors` describes.
    """
    return _PARAMETER.sub(_show, text)


def flag_of(parameter: str) -> str:
    """Return the option that sets a parameter of a workflow."""
    return _FLAGS.get(parameter, "--" + parameter.replace("_", "-"))


def _show(match: re.Match[str]) -> str:
    flag, value = flag_of(match[1]), match[2]
    if value in {None, "True"}:
        return flag
    shown = _SIZE.sub(r"\1x\2", value.strip("'[]"))
    return f"{flag} {shown}"
