"""Where the decoder's queries come from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from msdetr.boxes import safe_logit
from msdetr.model.heads import BoxHead, ClassHead
from msdetr.model.memory import Memory
from msdetr.model.position import sine_box_embedding
from msdetr.model.precision import at_least_float32, full_precision
from msdetr.model.query_blocks import QueryBlock, QueryBlocks
from msdetr.structures import PRIMARY, NoisedTargets, Proposals


@dataclass(frozen=True)
class QueryGroup:
    """Queries that share a rule of assignment and enter the decoder together.

    Attributes:
        content: [B, Q, C] float.
        position: [B, Q, C] float.
        references: [B, Q, 2] points or [B, Q, 4] boxes (cx, cy, w, h), float32 in 0..1.
        name: As in ``GroupOutput``.
        one_to_many: Whether one-to-many supervision is for this group, if the model has any.
        block: Which queries see which; None if all of the group see each other and no others.
        cells: [B, Q] int64, cells that the queries were made of; None where they were not.
        proposals: Of the group's own proposal stage, or None where it has none.
        noised: What denoising queries were made of.
    """

    content: Tensor
    position: Tensor
    references: Tensor
    name: str = PRIMARY
    one_to_many: bool = True
    block: QueryBlock | None = None
    cells: Tensor | None = None
    proposals: Proposals | None = None
    noised: NoisedTargets | None = None

    @property
    def num_queries(self) -> int:
        """Q."""
        return self.content.shape[1]


def concatenate(groups: Sequence[QueryGroup]) -> QueryGroup:
    """Return the queries of all groups as one."""
    if len(groups) == 1:
        return groups[0]
    return QueryGroup(
        content=torch.cat([group.content for group in groups], dim=1),
        position=torch.cat([group.position for group in groups], dim=1),
        references=torch.cat([group.references for group in groups], dim=1),
    )


def _can_fold(first: QueryBlock, second: QueryBlock) -> bool:
    return first.size == second.size and not first.sees_first and not second.sees_first


def blocks_of(groups: Sequence[QueryGroup]) -> QueryBlocks | None:
    """Return which queries of the groups see which; None where all see all."""
    if len(groups) == 1:
        return None
    merged: list[QueryBlock] = []
    for group in groups:
        block = group.block or QueryBlock(group.num_queries)
        last = merged[-1] if merged else None
        if last and _can_fold(last, block):
            merged[-1] = replace(last, count=last.count + block.count)
        else:
            merged.append(block)
    return QueryBlocks(tuple(merged))


class LearnedQueries(nn.Module):
    """Queries of one-stage models: learned position and content, 2-d references.

    Args:
        width: C.
        num_queries: Q.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.2.
    """

    def __init__(self, *, width: int, num_queries: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_queries, 2 * width)
        self.reference_points = nn.Linear(width, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, memory: Memory) -> QueryGroup:
        """Repeat the learned queries for every image of the memory."""
        return self.make_group(self.embedding.weight, memory.features.shape[0])

    def make_group(self, embedding: Tensor, num_images: int) -> QueryGroup:
        """Make queries of position and content [Q, 2C], the same for every image."""
        position, content = embedding.chunk(2, dim=-1)
        with full_precision(position):
            references = at_least_float32(self.reference_points(position)).sigmoid()
        return QueryGroup(
            content=content.expand(num_images, -1, -1),
            position=position.expand(num_images, -1, -1),
            references=references.expand(num_images, -1, -1),
        )


@dataclass(frozen=True)
class Candidates:
    """Cells as proposal stages see them.

    Attributes:
        features: [B, S, C] float, zero where invalid.
        anchors_cxcywh: [B, S, 4] float32, boxes before any delta.
        invalid: [B, S, 1] bool, True on padding and where the anchor leaves the image.
    """

    features: Tensor
    anchors_cxcywh: Tensor
    invalid: Tensor


class ProposalStage(nn.Module):
    """Every cell proposes a box and tells how likely it holds an object.

    Args:
        width: C.
        class_head: Prototype of the class head; copied.
        box_head: Prototype of the box head; copied.
        proposal_scale: Side of the finest level's anchors relative to the image; doubles with
            every level.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.3.
    """

    def __init__(
        self, *, width: int, class_head: ClassHead, box_head: BoxHead, proposal_scale: float = 0.05
    ) -> None:
        super().__init__()
        self.proposal_scale = proposal_scale
        self.memory_proj = nn.Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.class_head = copy.deepcopy(class_head)
        self.box_head = copy.deepcopy(box_head)

    def initialize(self) -> None:
        """Draw the weights that do not start as the framework draws them."""
        nn.init.xavier_uniform_(self.memory_proj.weight)

    def find_candidates(self, memory: Memory) -> Candidates:
        """Prepare the cells; the same for all stages of one proposal scale."""
        anchors = self._anchors(memory)
        inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
        invalid = memory.padding_mask[..., None] | ~inside
        return Candidates(memory.features.masked_fill(invalid, 0.0), anchors, invalid)

    def propose(self, candidates: Candidates) -> Proposals:
        """Propose a box per cell."""
        anchors, invalid = candidates.anchors_cxcywh, candidates.invalid
        features = self.memory_norm(self.memory_proj(candidates.features))
        # An infinite logit makes the proposal the all-ones box, whatever the delta.
        anchor_logits = safe_logit(anchors).masked_fill(invalid, torch.inf)
        return Proposals(
            logits=self.class_head(features),
            boxes_cxcywh=(self.box_head(features) + anchor_logits).sigmoid(),
            anchors_cxcywh=anchors.masked_fill(invalid, 1.0),
        )

    def _anchors(self, memory: Memory) -> Tensor:
        centres = memory.cell_centres
        sides = [
            centres.new_full((height * width,), self.proposal_scale * 2**level)
            for level, (height, width) in enumerate(memory.spatial_shapes)
        ]
        return torch.cat([centres, torch.cat(sides)[:, None].expand(centres.shape)], dim=-1)


class TwoStageQueries(ProposalStage):
    """Queries made of the most promising cells: every cell proposes a box, the best Q stay.

    Args:
        width: C.
        num_queries: Q.
        class_head: Prototype of the proposal class head; copied.
        box_head: Prototype of the proposal box head; copied.
        mixed_selection: Take the content from a learned embedding instead of the proposals.
        proposal_scale: Side of the finest level's anchors relative to the image; doubles with
            every level.
        temperature: Base of the box embedding's wavelengths.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.3; Zhang et al., DINO, ICLR 2023,
    section 3.4 (mixed query selection).
    """

    def __init__(
        self,
        *,
        width: int,
        num_queries: int,
        class_head: ClassHead,
        box_head: BoxHead,
        mixed_selection: bool = False,
        proposal_scale: float = 0.05,
        temperature: float = 10000.0,
    ) -> None:
        super().__init__(
            width=width, class_head=class_head, box_head=box_head, proposal_scale=proposal_scale
        )
        self.num_queries = num_queries
        self.temperature = temperature
        self.query_proj = nn.Linear(2 * width, 2 * width)
        self.query_norm = nn.LayerNorm(2 * width)
        self.content = nn.Embedding(num_queries, width) if mixed_selection else None
        self.initialize()
        nn.init.xavier_uniform_(self.query_proj.weight)

    def forward(self, memory: Memory, cells: Tensor | None = None) -> QueryGroup:
        """Propose a box per cell and turn the best into queries.

        Args:
            memory: At least as many cells as queries.
            cells: [B, Q] int64, cells to take instead of the best; for comparing computations
                whose rounding orders near-ties differently.
        """
        proposals = self.propose(self.find_candidates(memory))
        if cells is None:
            cells = best_cells(proposals, self.num_queries)
        group = self.make_group(proposals, cells, self.content)
        return replace(group, proposals=proposals)

    def make_group(
        self, proposals: Proposals, cells: Tensor, content: nn.Embedding | None
    ) -> QueryGroup:
        """Make queries of chosen cells.

        Args:
            proposals: Of all cells.
            cells: [B, Q] int64.
            content: At least Q learned rows, the first for the first cells; None takes the
                content from the boxes.
        """
        # Detached: the decoder's losses shape the proposals through their own losses only.
        boxes = proposals.boxes_cxcywh.detach()
        references = boxes.gather(1, cells[..., None].expand(-1, -1, 4))
        position, of_boxes = self.embed(references)
        if content is not None:
            of_boxes = content.weight[: cells.shape[1]].expand(references.shape[0], -1, -1)
        return QueryGroup(content=of_boxes, position=position, references=references, cells=cells)

    def embed(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Embed boxes [B, Q, 4] as position and content [B, Q, C]."""
        width = self.memory_proj.out_features
        embedding = sine_box_embedding(boxes, width, self.temperature)
        embedding = embedding.to(self.query_proj.weight.dtype)
        position, content = self.query_norm(self.query_proj(embedding)).chunk(2, dim=-1)
        return position, content


def best_cells(proposals: Proposals, number: int) -> Tensor:
    """Return the [B, number] int64 cells with the highest logit at class index 0, best first."""
    return proposals.logits[..., 0].topk(number, dim=1).indices
