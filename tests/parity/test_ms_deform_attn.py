"""The operator against the published implementation's numbers (float64)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from msdetr.ops import ms_deform_attn

pytestmark = pytest.mark.golden

GRADIENTS = ("grad_value", "grad_sampling_locations", "grad_attention_weights")


@pytest.mark.parametrize("backend", ["native", "reference", "gather"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["f64", "f32"]
)
def test_output_and_gradients(
    golden_dir: Path, op_name: str, dtype: torch.dtype, tolerance: float, backend: str
) -> None:
    stored = load_file(golden_dir / "ms_deform_attn.safetensors")
    golden = {name.split("/")[1]: t for name, t in stored.items() if name.startswith(f"{op_name}/")}
    spatial_shapes = [(int(h), int(w)) for h, w in golden["spatial_shapes"].tolist()]
    leaves = [
        golden[name].to(dtype).requires_grad_()
        for name in ("value", "sampling_locations", "attention_weights")
    ]
    output = ms_deform_attn(leaves[0], spatial_shapes, leaves[1], leaves[2], backend=backend)
    gradients = torch.autograd.grad(output, leaves, golden["grad_output"].to(dtype))
    pairs = [(output, "output"), *zip(gradients, GRADIENTS, strict=True)]
    for actual, name in pairs:
        expected = golden[name]
        scale = expected.abs().max()
        difference = ((actual.detach().double() - expected).abs().max() / scale).item()
        assert difference < tolerance, name
