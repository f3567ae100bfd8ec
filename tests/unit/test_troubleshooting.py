"""The messages that docs/troubleshooting.md explains are those that the source holds."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/troubleshooting.md"
MESSAGES = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

in_flags = importlib.import_module("msdetr.cli.flags").in_flags
# What a message is of where it is put together of several pieces.
PIECES = {
    "no such file and no packaged recipe of that name...; msdetr recipes list shows all": [
        "no such file and no packaged recipe of that name...",
        "...; `msdetr recipes list` shows all",
    ],
    "step ... (epoch ...) diverged: the loss is not finite": [
        "step ... (epoch ...) diverged",
        "the loss is not finite",
    ],
    "holds ... already; give another --output, or --force": [
        "holds ... already; give another --output...",
        ", or --force",
    ],
    "refused: damaged, or a pickle that holds more than tensors and plain values; "
    "nothing in it was run": [
        "refused: ...; nothing in it was run",
        "damaged, or a pickle that holds more than tensors and plain values",
    ],
    "no data set given: set data.root, or data.train.images and data.train.annotations": [
        "no data set given: set data.root, or data.....images and data.....annotations"
    ],
    "process ... of ... is gone: killed, crashed or out of reach; the launcher may say more": [
        "process ... of ... is",
        "... gone: killed, crashed or out of reach; the launcher may say more",
    ],
    "is damaged: it is not what SHA256SUMS says (truncated or changed?)": [
        "is damaged: it is not what ... says (truncated or changed?)"
    ],
    "must be a divisor of train.batch_size = ..., got ...": [
        "must be a divisor of train.batch_size = ...",
        ", got ...",
    ],
    "unknown command; did you mean ...?": ["unknown command; ...", "did you mean ...?"],
}


@cache
def source_strings() -> str:
    """Every string of the library and of the command line, one per line; values as ``...``."""
    found = []
    for folder in ("msdetr", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(map(_piece, node.values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(in_flags(" ".join(text.split("\n"))).replace("%s", "...") for text in found)


def _piece(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "..."


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) > 25
    assert len(set(MESSAGES)) == len(MESSAGES)
    assert set(PIECES) <= set(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_in_the_source(message: str) -> None:
    for piece in PIECES.get(message, [message]):
        assert piece.strip() in source_strings(), piece
