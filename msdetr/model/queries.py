"""Where the decoder's queries come from."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msdetr.boxes import safe_logit
from msdetr.model.heads import BoxHead, ClassHead
from msdetr.model.memory import Memory
from msdetr.model.position import sine_box_embedding
from msdetr.model.precision import at_least_float32, full_precision
from msdetr.structures import Proposals


@dataclass(frozen=True)
class QueryGroup:
    """Queries that enter the decoder together.

    Attributes:
        content: [B, Q, C] float.
        position: [B, Q, C] float.
        references: [B, Q, 2] points or [B, Q, 4] boxes (cx, cy, w, h), float32 in 0..1.
    """

    content: Tensor
    position: Tensor
    references: Tensor


@dataclass(frozen=True)
class QuerySelection:
    """What a query source yields.

    Attributes:
        groups: Query groups; the first one is primary, its predictions are the detections.
        attention_mask: [Q, Q] bool over all groups in order, True where the row's query may
            look at the column's; None lets all look at all.
        proposals: Predictions of the proposal stage, or None where there is none.
    """

    groups: tuple[QueryGroup, ...]
    attention_mask: Tensor | None = None
    proposals: Proposals | None = None


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

    def forward(self, memory: Memory) -> QuerySelection:
        """Repeat the learned queries for every image of the memory."""
        position, content = self.embedding.weight.chunk(2, dim=-1)
        with full_precision(position):
            references = at_least_float32(self.reference_points(position)).sigmoid()
        images = memory.features.shape[0]
        group = QueryGroup(
            content=content.expand(images, -1, -1),
            position=position.expand(images, -1, -1),
            references=references.expand(images, -1, -1),
        )
        return QuerySelection((group,))


class TwoStageQueries(nn.Module):
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
        super().__init__()
        self.num_queries = num_queries
        self.proposal_scale = proposal_scale
        self.temperature = temperature
        self.memory_proj = nn.Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.class_head = copy.deepcopy(class_head)
        self.box_head = copy.deepcopy(box_head)
        self.query_proj = nn.Linear(2 * width, 2 * width)
        self.query_norm = nn.LayerNorm(2 * width)
        self.content = nn.Embedding(num_queries, width) if mixed_selection else None
        nn.init.xavier_uniform_(self.memory_proj.weight)
        nn.init.xavier_uniform_(self.query_proj.weight)

    def forward(self, memory: Memory, cells: Tensor | None = None) -> QuerySelection:
        """Propose a box per cell and turn the best into queries.

        Args:
            memory: At least as many cells as queries.
            cells: [B, Q] int64, cells to take instead of the best; for comparing computations
                whose rounding orders near-ties differently.
        """
        proposals = self._propose(memory)
        if cells is None:
            cells = self.best_cells(proposals)
        # Detached: the decoder's losses shape the proposals through their own losses only.
        boxes = proposals.boxes_cxcywh.detach()
        references = boxes.gather(1, cells[..., None].expand(-1, -1, 4))
        position, content = self._embed(references)
        group = QueryGroup(content=content, position=position, references=references)
        return QuerySelection((group,), proposals=proposals)

    def best_cells(self, proposals: Proposals) -> Tensor:
        """Return the [B, Q] int64 cells with the highest logit at class index 0, best first."""
        return proposals.logits[..., 0].topk(self.num_queries, dim=1).indices

    def _propose(self, memory: Memory) -> Proposals:
        anchors = self._anchors(memory)
        inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
        invalid = memory.padding_mask[..., None] | ~inside
        features = self.memory_norm(self.memory_proj(memory.features.masked_fill(invalid, 0.0)))
        # An infinite logit makes the proposal the all-ones box, whatever the delta.
        anchor_logits = safe_logit(anchors).masked_fill(invalid, torch.inf)
        return Proposals(
            logits=self.class_head(features),
            boxes_cxcywh=(self.box_head(features) + anchor_logits).sigmoid(),
            anchors_cxcywh=anchors.masked_fill(invalid, 1.0),
        )

    def _anchors(self, memory: Memory) -> Tensor:
        centres = memory.cell_centres()
        sides = [
            centres.new_full((height * width,), self.proposal_scale * 2**level)
            for level, (height, width) in enumerate(memory.spatial_shapes)
        ]
        return torch.cat([centres, torch.cat(sides)[:, None].expand(centres.shape)], dim=-1)

    def _embed(self, references: Tensor) -> tuple[Tensor, Tensor]:
        width = self.memory_proj.out_features
        embedding = sine_box_embedding(references, width, self.temperature)
        embedding = embedding.to(self.query_proj.weight.dtype)
        position, content = self.query_norm(self.query_proj(embedding)).chunk(2, dim=-1)
        if self.content is not None:
            content = self.content.weight.expand(references.shape[0], -1, -1)
        return position, content
