"""`msdetr train`: train a model from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from msdetr.errors import UsageError
from msdetr.recipe import load_recipe

from .options import DeviceOption, OverridesOption, RecipeArgument, examples

EXAMPLES = examples(
    "msdetr train shapes_tiny --output runs/shapes_tiny",
    "msdetr train ddetr_pp_900q --set data.root=/data/coco --output runs/ddetr_pp_900q",
    "torchrun --nproc-per-node 8 -m msdetr.cli train ddetr_300q --set data.root=/data/coco",
)


def train(
    recipe: RecipeArgument,
    *,
    overrides: OverridesOption = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the run.", show_default="runs/RECIPE"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the output directory, if any.")
    ] = False,
    resume_from: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Continue from a checkpoint or run, in a new directory."),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT", help="Start from the weights of a checkpoint, ours or a published .pth."
        ),
    ] = None,
    device: DeviceOption = "auto",
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random; train.seed of the recipe.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build everything, estimate memory and time, and stop."),
    ] = False,
    overfit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Check that the model can learn N images by heart."),
    ] = None,
    limit_train: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Train on the first N images.")
    ] = None,
    limit_val: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Evaluate on the first N images.")
    ] = None,
) -> None:
    """Train a model from a recipe, evaluating and saving along the way."""
    starts = {"--resume": resume, "--resume-from": resume_from, "--init-from": init_from}
    _refuse_together({"--dry-run": dry_run, "--overfit": overfit, **starts})
    fields = {"train.seed": seed, "data.train.limit": limit_train, "data.val.limit": limit_val}
    extra = [f"{key}={value}" for key, value in fields.items() if value is not None]
    loaded = load_recipe(recipe, [*(overrides or ()), *extra])
    if dry_run:
        from msdetr.api.dry_run import dry_run as estimate

        typer.echo("\n".join(estimate(loaded, device=device).lines()))
        return
    if overfit is not None:
        from msdetr.api.overfit import overfit as learn_by_heart

        chosen = output or Path("runs") / f"{Path(recipe).stem}-overfit"
        ap = learn_by_heart(loaded, overfit, output=chosen, device=device)
        typer.echo(f"AP {ap:.3f} on {overfit} training images")
        return

    from msdetr.api.train import train as run_training

    chosen = output or Path("runs") / Path(recipe).stem
    result = run_training(
        loaded,
        output=chosen,
        resume=resume,
        resume_from=resume_from,
        init_from=init_from,
        device=device,
    )
    typer.echo(f"{result.output}")


def _refuse_together(options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise UsageError(given[0], f"cannot be combined with {' or '.join(given[1:])}")
