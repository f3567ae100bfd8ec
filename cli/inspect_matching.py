"""``msdetr inspect-matching``: see which queries both assignments give to the targets, and why."""

from __future__ import annotations

from .options import (
    DataOption,
    DeviceOption,
    FromScratchOption,
    ImageIdsOption,
    JsonOption,
    LayersOption,
    MatchingOption,
    NumImagesOption,
    OverridesOption,
    PicturesOption,
    PublishedRecipeOption,
    ReplaceResultsOption,
    StoredTraceOption,
    TopOption,
    TracedCheckpointOption,
    examples,
)
from .parsing import parse_ids, parse_layers
from .say import say, say_json

EXAMPLES = examples(
    "msdetr inspect-matching --ckpt runs/shapes_tiny --num-images 20 --output matching",
    "msdetr inspect-matching --trace matching/trace --image-ids 1000001 --output one_image",
    "msdetr inspect-matching --from-scratch shapes_tiny --layers 0,2 --output untrained",
)


def inspect_matching(
    *,
    output: MatchingOption,
    checkpoint: TracedCheckpointOption = None,
    trace: StoredTraceOption = None,
    from_scratch: FromScratchOption = None,
    recipe: PublishedRecipeOption = None,
    data: DataOption = None,
    num_images: NumImagesOption = 200,
    image_ids: ImageIdsOption = None,
    layers: LayersOption = "all",
    top: TopOption = 20,
    pictures: PicturesOption = 20,
    force: ReplaceResultsOption = False,
    device: DeviceOption = "auto",
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show both assignments, and why queries were rejected.

    One-to-one and one-to-many assignments are shown side by side. One forward pass in
    evaluation mode makes a match trace; everything shown is computed from it.
    """
    from msdetr.api.inspect_matching import InspectionOptions, TraceSource
    from msdetr.api.inspect_matching import inspect_matching as run_inspection
    from msdetr.api.traces.make_trace import ProbeSet
    from msdetr.terminal import LiteralConsole

    source = TraceSource(
        checkpoint=checkpoint,
        trace=trace,
        from_scratch=from_scratch,
        recipe=recipe,
        data=data,
        probe=ProbeSet(num_images, parse_ids("--image-ids", image_ids)),
        device=device,
        overrides=tuple(overrides or ()),
    )
    options = InspectionOptions(parse_layers("--layers", layers), top=top, num_pictures=pictures)
    report = run_inspection(source, output, options, force=force)
    if as_json:
        say_json(report.summary.to_dict())
        return
    LiteralConsole().print(report.table())
    say("\n".join(str(file) for file in report.files))
