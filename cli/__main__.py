"""``python -m msdetr.cli``: what ``--processes``, torchrun and other launchers start."""

from __future__ import annotations

from . import run

run()
