"""``msdetr import-official``: turn a published .pth file into a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_recipe
from .options import OverridesOption, examples
from .say import say

EXAMPLES = examples(
    "msdetr import-official ms_ddetr_300q.pth --recipe ddetr_300q --output ddetr_300q",
    "msdetr import-official ddetr_two_stage.pth --recipe baseline_ddetr_300q --output baseline",
    "msdetr import-official mine.pth --recipe ddetr_pp_900q --classes mine.json --output mine",
)


def import_official(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Published .pth file.")],
    *,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help="Recipe that describes the model in it.",
            autocompletion=complete_recipe,
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoint to write.")],
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", help="Annotation file with the categories.", show_default="COCO's"
        ),
    ] = None,
    overrides: OverridesOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint there.")] = False,
) -> None:
    """Turn a published .pth file into a checkpoint. Nothing in the file is executed."""
    from msdetr.api.checkpoints.official import import_official as run_import
    from msdetr.errors import counted

    loaded = run_import(
        path, recipe, output, classes=classes, overrides=overrides or (), force=force
    )
    origin, space = loaded.info["imported_from"], loaded.label_space
    say(
        f"{output}: {origin['file']} (sha256 {origin['sha256'][:12]}...) as {recipe}, "
        f"{counted(len(space.names), 'class')}; next: msdetr eval --ckpt {output}"
    )
