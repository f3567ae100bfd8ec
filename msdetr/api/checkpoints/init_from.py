"""Start a training run from the weights of another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from msdetr.engine.checkpoint import read_info, read_weights, resolve_checkpoint
from msdetr.engine.weights import unique_state
from msdetr.errors import CheckpointError
from msdetr.interop.official import translate
from msdetr.interop.published_file import read_published_file
from msdetr.model import DetectionModel
from msdetr.terminal import LiteralConsole


@dataclass(frozen=True)
class Initialisation:
    """Which weights of a model came from another one.

    Attributes:
        loaded: Names in the model whose weights were loaded.
        reinitialised: Names in the model that keep their random start, with the reason.
        skipped: Names in the file that the model does not use.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return one line per name, grouped."""
        return [
            *(f"loaded         {name}" for name in self.loaded),
            *(f"reinitialised  {name} ({reason})" for name, reason in self.reinitialised),
            *(f"skipped        {name}" for name in self.skipped),
            f"{len(self.loaded)} weights loaded, {len(self.reinitialised)} reinitialised, "
            f"{len(self.skipped)} of the file skipped",
        ]


@torch.no_grad()
def initialise_from(model: DetectionModel, source: Path, *, quiet: bool = False) -> Initialisation:
    """Fill a model with the weights of another one, as far as names and shapes agree.

    Args:
        model: Model to fill.
        source: A checkpoint or run directory of ours, or a published ``.pth`` file.
        quiet: Do not list the names on stderr.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: The source cannot be read, or nothing in it fits.
    """
    own = unique_state(model)
    given, unknown = _read(source, model, quiet=quiet)
    loaded = [name for name in own if name in given and given[name].shape == own[name].shape]
    if not loaded:
        raise CheckpointError(str(source), "holds no weight that fits the model")
    for name in loaded:
        own[name].copy_(given[name])
    result = Initialisation(
        tuple(loaded),
        tuple((n, _reason(own[n], given.get(n))) for n in own if n not in set(loaded)),
        (*(name for name in given if name not in own), *unknown),
    )
    console = LiteralConsole(stderr=True, quiet=quiet)
    for line in result.lines():
        console.say(line)
    return result


def _read(
    source: Path, model: DetectionModel, *, quiet: bool
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    if source.is_file():
        published = read_published_file(source)
        if published.notice:
            LiteralConsole(stderr=True, quiet=quiet).say(f"{source}: {published.notice}")
        translation = translate(published.state, model.state_dict(), str(source))
        return translation.state, translation.unknown
    checkpoint = resolve_checkpoint(source)
    read_info(checkpoint)  # refuses a checkpoint that is damaged anywhere
    return read_weights(checkpoint), ()


def _reason(own: Tensor, given: Tensor | None) -> str:
    if given is None:
        return "not in the file"
    return f"shape {list(own.shape)} here, {list(given.shape)} in the file"
