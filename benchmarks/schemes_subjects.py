"""What ``schemes.py`` measures: a scheme's training step, whole or from a fixed memory on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from model import heavy_part
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from msdetr.api.training.detection_task import DetectionTask
from msdetr.build import build_criterion, build_model, build_noise, build_parameter_groups
from msdetr.data.batching import Batch
from msdetr.engine.optimizer import build_adamw
from msdetr.engine.task import MicroBatchPlace
from msdetr.model import DetectionModel
from msdetr.model.memory import Memory
from msdetr.model.query_blocks import QueryBlocks
from msdetr.recipe import load_recipe
from msdetr.structures import FeatureLevels, ImageBatch, Targets

IMAGE_HW, TARGETS, NUM_CLASSES = (480, 640), (7, 11), 91
BASELINE = "baseline"
RECIPES: Mapping[str, str] = {
    BASELINE: "baseline_ddetr_pp_300q",
    "MS": "ddetr_pp_300q",
    "Hybrid": "hybrid_ddetr_pp_300q",
    "MS + Hybrid": "ms_hybrid_ddetr_pp_300q",
    "Group": "group_ddetr_pp_300q",
    "MS + Group": "ms_group_ddetr_pp_300q",
    "DN": "dn_ddetr_pp_300q",
    "MS + DN": "ms_dn_ddetr_pp_300q",
    "CDN": "cdn_ddetr_pp_900q",
    "MS + CDN": "ms_cdn_ddetr_pp_900q",
    "MS + Hybrid + CDN": "ms_hybrid_cdn_ddetr_pp_300q",
}
"""Packaged recipes of the schemes; all are measured with as many primary queries."""

Step = Callable[[], object]


class Subject:
    """A scheme's model with all that it takes to train it for a step.

    Args:
        scheme: One of ``RECIPES``.
        device: "cpu" or "cuda".
        decoder_only: Start from a fixed memory, and leave out the optimizer.
        num_queries: Queries of the primary group.
    """

    def __init__(self, scheme: str, device: str, *, decoder_only: bool, num_queries: int) -> None:
        torch.manual_seed(0)
        self._num_queries = num_queries
        settings = ["model.backbone.weights=none", f"model.num_queries={num_queries}"]
        recipe = load_recipe(RECIPES[scheme], settings)
        self.model = build_model(recipe.model, NUM_CLASSES).to(device).train()
        self._task = DetectionTask(build_criterion(recipe.supervision, recipe.model.query_groups))
        targets = _targets()
        noise = build_noise(recipe, range(NUM_CLASSES))
        noised = None if noise is None else noise(targets, [0] * len(TARGETS))
        self._batch = Batch(_images(), targets, torch.tensor([IMAGE_HW]), noised=noised).to(device)
        self._clip_norm = recipe.train.clip_norm or float("inf")
        self._memory: Tensor | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        if decoder_only:
            self._memory = _fix_memory(self.model, device)
        else:
            groups = build_parameter_groups(self.model, recipe.train)
            self._optimizer = build_adamw(
                self.model, groups, weight_decay=recipe.train.weight_decay
            )

    def step(self) -> None:
        """Do forward, matching, losses and backward; whole models are also clipped and updated."""
        place = MicroBatchPlace(seed=0, epoch=0, step=0, index=0)
        loss = self._task.loss(
            self.model, self._batch, num_targets=float(sum(TARGETS)), place=place
        )
        torch.autograd.backward(loss.total)
        if self._optimizer is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
            self._optimizer.step()
        # Many models share the machine: none keeps its gradients while others run.
        self.model.zero_grad()
        if self._memory is not None:
            self._memory.grad = None

    def count_flops(self) -> int:
        """Count the floating-point operations of a step's matrix products and convolutions."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        flops: int = counter.get_total_flops()
        return flops

    def count_queries(self) -> int:
        """Count the queries of all groups in a training step."""
        blocks = self.find_blocks()
        if blocks is None:
            return self._num_queries
        return sum(block.num_queries for block in blocks.blocks)

    def find_blocks(self) -> QueryBlocks | None:
        """Look up which queries see which in a training step."""
        found: list[QueryBlocks | None] = []
        attention = self.model.decoder.layers[0].self_attention
        assert isinstance(attention, nn.Module)
        hook = attention.register_forward_pre_hook(lambda _, given: found.append(given[2]))
        with torch.no_grad():
            self.model(self._batch.images, noised=self._batch.noised)
        hook.remove()
        return found[0]


class _Constant(nn.Module):
    """Returns the same value whatever it is called with."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self._value = value

    def forward(self, *_: object) -> object:
        return self._value


def _fix_memory(model: DetectionModel, device: str) -> Tensor:
    """Let the model start from a random memory, and return its features."""
    height, width = IMAGE_HW
    shapes = [(-(-height // stride), -(-width // stride)) for stride in model.strides]
    maps = tuple(
        torch.randn(len(TARGETS), model.encoder.level_embed.shape[1], *hw, device=device)
        for hw in shapes
    )
    masks = tuple(torch.zeros(len(TARGETS), *hw, dtype=torch.bool, device=device) for hw in shapes)
    memory = Memory.from_levels(FeatureLevels(maps, masks))
    features = memory.features.requires_grad_()
    for part, value in (("backbone", ()), ("neck", ()), ("encoder", memory)):
        setattr(model, part, _Constant(value))
    return features


def _images() -> ImageBatch:
    pixels = torch.randn(len(TARGETS), 3, *IMAGE_HW)
    return ImageBatch(pixels, torch.zeros(len(TARGETS), *IMAGE_HW, dtype=torch.bool))


def _targets() -> Targets:
    boxes = [
        torch.cat([torch.rand(n, 2) * 0.6 + 0.2, torch.rand(n, 2) * 0.3 + 0.05], 1) for n in TARGETS
    ]
    return Targets.from_lists(boxes, [torch.randint(NUM_CLASSES, (n,)) for n in TARGETS])


def attention_contenders(
    blocks: QueryBlocks, device: str, *, heads: int = 8, head_width: int = 32
) -> dict[str, Step]:
    """Set up forward and backward pass of one layer's self-attention, computed in several ways.

    Args:
        blocks: Which queries see which.
        device: "cpu" or "cuda".
        heads: M.
        head_width: Channels per head.

    Returns:
        "blocks", as in training; "masked", one attention over all queries with the mask of all
        pairs; "kernels", the attentions that "blocks" runs, alone, on tensors that lie ready.
    """
    num_queries = sum(block.num_queries for block in blocks.blocks)
    shape = (len(TARGETS), heads, num_queries, head_width)
    tensors = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    query, key, value = tensors
    mask = blocks.mask(device)

    def differentiate(attended: Tensor) -> None:
        torch.autograd.grad(attended.sum(), tensors)

    def by_block() -> None:
        differentiate(blocks.attend(query, key, value))

    return {
        "blocks": by_block,
        "masked": lambda: differentiate(scaled_dot_product_attention(query, key, value, mask)),
        "kernels": heavy_part(by_block, device),
    }
