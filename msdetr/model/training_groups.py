"""Query groups that train beside the primary one and are gone at inference."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from msdetr.model.heads import BoxHead, ClassHead
from msdetr.model.memory import Memory
from msdetr.model.queries import (
    Candidates,
    LearnedQueries,
    ProposalStage,
    QueryGroup,
    TwoStageQueries,
    best_cells,
)
from msdetr.model.query_blocks import QueryBlock
from msdetr.structures import NoisedTargets

QuerySource = LearnedQueries | TwoStageQueries

HYBRID, DENOISING = "hybrid", "denoising"


def name_group(number: int) -> str:
    """Return the name of an independent group, counted from 1 (0 is the primary one)."""
    return f"group_{number}"


class HybridQueries(nn.Module):
    """A second group made of the cells that rank next after the primary queries.

    Args:
        width: C.
        num_queries: Queries at most; there are fewer where there are too few cells.
        one_stage: Whether the queries are learned, position and content.
        mixed_selection: Whether their content is learned.

    Source: Jia et al., DETRs with Hybrid Matching, CVPR 2023, section 3.2 (hybrid branch scheme).
    """

    def __init__(
        self, *, width: int, num_queries: int, one_stage: bool, mixed_selection: bool
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.content = _learned_rows(
            num_queries, width, one_stage=one_stage, mixed_selection=mixed_selection
        )

    def forward(self, source: QuerySource, memory: Memory, primary: QueryGroup) -> QueryGroup:
        """Make the group, beside the primary one of the same source."""
        group = self._queries(source, memory, primary)
        return replace(group, name=HYBRID, one_to_many=False)

    def _queries(self, source: QuerySource, memory: Memory, primary: QueryGroup) -> QueryGroup:
        if isinstance(source, LearnedQueries):
            assert self.content is not None
            return source.make_group(self.content.weight, memory.features.shape[0])
        proposals, taken = primary.proposals, primary.cells
        assert proposals is not None
        assert taken is not None
        # What the primary group has taken is left out, so that both follow one ranking.
        left = replace(
            proposals, logits=proposals.logits[..., :1].scatter(1, taken[..., None], -torch.inf)
        )
        number = min(self.num_queries, left.logits.shape[1] - taken.shape[1])
        return source.make_group(proposals, best_cells(left, number), self.content)


class IndependentGroups(nn.Module):
    """Groups of as many queries as the primary one, each with proposals of its own.

    Args:
        width: C.
        num_groups: Groups beside the primary one, at least 1.
        num_queries: Q of each group.
        one_stage: Whether the queries are learned, position and content.
        mixed_selection: Whether their content is learned.
        class_head: Prototype of the groups' proposal class heads; copied.
        box_head: Prototype of their proposal box heads; copied.
        proposal_scale: As in ``ProposalStage``.
        one_to_many: Whether one-to-many supervision is for these groups too.

    Source: Chen et al., Group DETR, ICCV 2023, section 3.2.
    """

    def __init__(
        self,
        *,
        width: int,
        num_groups: int,
        num_queries: int,
        one_stage: bool,
        mixed_selection: bool,
        class_head: ClassHead,
        box_head: BoxHead,
        proposal_scale: float,
        one_to_many: bool,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.num_queries = num_queries
        self.one_to_many = one_to_many
        rows = _learned_rows(
            num_queries, width, one_stage=one_stage, mixed_selection=mixed_selection
        )
        self.content = None if rows is None else _fresh_copies(rows, num_groups)
        stage = ProposalStage(
            width=width, class_head=class_head, box_head=box_head, proposal_scale=proposal_scale
        )
        # Not copies of the primary stage: those would choose the same cells for ever.
        self.stages = None if one_stage else _fresh_copies(stage, num_groups)
        for each in self.stages or ():
            assert isinstance(each, ProposalStage)
            each.initialize()

    def forward(self, source: QuerySource, memory: Memory) -> tuple[QueryGroup, ...]:
        """Make the groups, from the first to the last."""
        if isinstance(source, LearnedQueries):
            num_images = memory.features.shape[0]
            groups = [
                source.make_group(rows.weight, num_images)
                for rows in self._rows()
                if rows is not None
            ]
        else:
            # Shared: these are the largest tensors of all that the stages compute.
            candidates = source.find_candidates(memory)
            groups = [
                self._propose(source, candidates, *parts)
                for parts in zip(self._stages(), self._rows(), strict=True)
            ]
        return tuple(
            replace(group, name=name_group(index + 1), one_to_many=self.one_to_many)
            for index, group in enumerate(groups)
        )

    def _propose(
        self,
        source: TwoStageQueries,
        candidates: Candidates,
        stage: ProposalStage,
        content: nn.Embedding | None,
    ) -> QueryGroup:
        proposals = stage.propose(candidates)
        group = source.make_group(proposals, best_cells(proposals, self.num_queries), content)
        return replace(group, proposals=proposals)

    def _stages(self) -> list[ProposalStage]:
        return [each for each in self.stages or () if isinstance(each, ProposalStage)]

    def _rows(self) -> list[nn.Embedding | None]:
        """Return the learned rows of every group, None where it has none."""
        if self.content is None:
            return [None] * self.num_groups
        return [each for each in self.content if isinstance(each, nn.Embedding)]


class DenoisingQueries(nn.Module):
    """Queries made of targets with noise, which are to find the targets again.

    Args:
        width: C.
        num_classes: K; every class has a learned content.

    Source: Li et al., DN-DETR, CVPR 2022, section 4; Zhang et al., DINO, ICLR 2023, section 3.3.
    """

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        self.labels = nn.Embedding(num_classes, width)

    def forward(self, source: TwoStageQueries, noised: NoisedTargets) -> QueryGroup:
        """Make the group.

        Args:
            source: Embeds the boxes as it does those of proposals.
            noised: R slots per image, on the device of the model.
        """
        references = noised.logits.sigmoid()
        position, _ = source.embed(references)
        content = self.labels(noised.labels) * noised.valid[..., None]
        slots, groups = noised.labels.shape[1], max(1, noised.num_groups)
        return QueryGroup(
            content=content,
            position=position,
            references=references,
            name=DENOISING,
            one_to_many=False,
            block=QueryBlock(slots // groups, groups, sees_first=True),
            noised=noised,
        )


class TrainingGroups(nn.Module):
    """All groups beside the primary one, in the order in which the decoder takes them.

    Args:
        independent: Groups with proposals of their own.
        hybrid: A second group from the primary one's ranking.
        denoising: Queries made of noised targets; needs a two-stage model.
    """

    def __init__(
        self,
        *,
        independent: IndependentGroups | None = None,
        hybrid: HybridQueries | None = None,
        denoising: DenoisingQueries | None = None,
    ) -> None:
        super().__init__()
        self.independent = independent
        self.hybrid = hybrid
        self.denoising = denoising

    def forward(
        self,
        source: QuerySource,
        memory: Memory,
        primary: QueryGroup,
        noised: NoisedTargets | None = None,
    ) -> tuple[QueryGroup, ...]:
        """Make the groups.

        Args:
            source: Of the primary group.
            memory: What the queries look at.
            primary: The primary group.
            noised: For denoising queries; without it there are none.
        """
        groups: list[QueryGroup] = []
        if self.independent is not None:
            # First: those that one-to-many supervision is for follow the primary group.
            groups += self.independent(source, memory)
        if self.hybrid is not None:
            groups.append(self.hybrid(source, memory, primary))
        if self.denoising is not None and noised is not None:
            groups.append(self.denoising(source, noised))
        return tuple(groups)


def _learned_rows(
    number: int, width: int, *, one_stage: bool, mixed_selection: bool
) -> nn.Embedding | None:
    if one_stage:
        return nn.Embedding(number, 2 * width)
    return nn.Embedding(number, width) if mixed_selection else None


def _fresh_copies(prototype: nn.Module, number: int) -> nn.ModuleList:
    """Make modules like the prototype, with weights of their own where these start at random."""
    copies = nn.ModuleList([copy.deepcopy(prototype) for _ in range(number)])
    for each in copies:
        for part in (each, *each.children()):
            if isinstance(part, nn.Embedding | nn.LayerNorm) or type(part) is nn.Linear:
                part.reset_parameters()
    return copies
