from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from msdetr.model import DetectionModel, parameter_group


@pytest.mark.parametrize("two_stage", [True, False])
def test_every_parameter_has_one_group(
    build_model: Callable[..., DetectionModel], two_stage: bool
) -> None:
    model = build_model(two_stage=two_stage)
    groups = Counter(parameter_group(name) for name, _ in model.named_parameters())
    num_attentions = len(model.encoder.layers) + len(model.decoder.layers)
    # Weight and bias of every offset layer, and of the one that makes points of positions.
    assert groups["linear_projection"] == 2 * (num_attentions + (0 if two_stage else 1))
    assert groups["backbone"] == len(list(model.backbone.parameters()))
    assert groups.total() == len(list(model.parameters()))
