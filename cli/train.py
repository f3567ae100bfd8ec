"""``msdetr train``: train a model from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from msdetr.errors import UsageError
from msdetr.recipe import Recipe, load_recipe

from .options import (
    DeviceOption,
    DryRunOption,
    InitFromOption,
    LimitTrainOption,
    LimitValOption,
    OverfitOption,
    OverridesOption,
    ProcessesOption,
    RecipeArgument,
    ResumeFromOption,
    ResumeOption,
    RunOption,
    SeedOption,
    examples,
)
from .processes import run_in_processes
from .say import say

EXAMPLES = examples(
    "msdetr train shapes_tiny --output runs/shapes_tiny",
    "msdetr train ddetr_pp_900q --set data.root=/data/coco --output runs/ddetr_pp_900q",
    "msdetr train ddetr_300q --processes 8 --set data.root=/data/coco --output runs/300q",
)


def train(
    context: typer.Context,
    recipe: RecipeArgument,
    *,
    overrides: OverridesOption = None,
    output: RunOption = None,
    resume: ResumeOption = False,
    resume_from: ResumeFromOption = None,
    init_from: InitFromOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = None,
    seed: SeedOption = None,
    dry_run: DryRunOption = False,
    overfit: OverfitOption = None,
    limit_train: LimitTrainOption = None,
    limit_val: LimitValOption = None,
) -> None:
    """Train a model from a recipe. Evaluates and saves along the way."""
    starts = {"--resume": resume, "--resume-from": resume_from, "--init-from": init_from}
    _refuse_together({"--dry-run": dry_run, "--overfit": overfit, **starts})
    _refuse_together({"--processes": processes, "--dry-run": dry_run})
    fields = {"train.seed": seed, "data.train.limit": limit_train, "data.val.limit": limit_val}
    extra = [f"{key}={value}" for key, value in fields.items() if value is not None]
    loaded = load_recipe(recipe, [*(overrides or ()), *extra])
    if run_in_processes(context, processes, device):
        return
    name = Path(recipe).stem
    if dry_run:
        _estimate(loaded, device)
    elif overfit is not None:
        _overfit(loaded, overfit, output or Path("runs") / f"{name}-overfit", device)
    else:
        from msdetr.api.train import train as run_training

        result = run_training(
            loaded,
            output=output or Path("runs") / name,
            resume=resume,
            resume_from=resume_from,
            init_from=init_from,
            device=device,
        )
        say(f"{result.output}")


def _estimate(recipe: Recipe, device: str) -> None:
    from msdetr.api.dry_run import dry_run

    say("\n".join(dry_run(recipe, device=device).lines()))


def _overfit(recipe: Recipe, num_images: int, output: Path, device: str) -> None:
    from msdetr.api.overfit import overfit

    ap = overfit(recipe, num_images, output=output, device=device)
    say(f"AP {ap:.3f} on {num_images} training images")


def _refuse_together(options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise UsageError(given[0], f"cannot be combined with {' or '.join(given[1:])}")
