"""The criterion against loops over pairs, and at its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus
from torchvision.ops import sigmoid_focal_loss

from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.losses import (
    BranchRule,
    Criterion,
    DenoisingRule,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
    SupervisionBranch,
    VarifocalLoss,
    total_loss,
)
from msdetr.structures import (
    Assignment,
    GroupOutput,
    LossTerm,
    ModelOutput,
    NoisedTargets,
    Predictions,
    Proposals,
    Targets,
)

NUM_LAYERS, NUM_IMAGES, NUM_QUERIES, NUM_CLASSES = 2, 2, 6, 4
WEIGHTS = LossWeights(class_weight=2, box_weight=5, giou_weight=3)

Row = tuple[int, int, int, int, float, bool]
# layer, image, query, target, score, valid
ROWS: list[Row] = [
    (0, 0, 1, 0, 0.3, True),
    (0, 0, 1, 2, 0.9, True),  # the same query serves a better pair
    (0, 0, 5, 1, 0.5, True),
    (0, 1, 2, 0, 0.5, True),
    (1, 0, 4, 2, 0.6, True),  # equal scores: the lower target decides, wherever its row is
    (1, 0, 4, 1, 0.6, True),
    (1, 1, 0, 0, 0.0, True),
    (0, 0, 1, 1, 5.0, False),  # padding, with a tempting score
    (1, 0, 0, 0, 0.0, False),
]
LABEL_DECIDED_BY = {(0, 0, 1): 2, (0, 0, 5): 1, (0, 1, 2): 0, (1, 0, 4): 1, (1, 1, 0): 0}


class Fixed:
    """Returns rows prepared by the test."""

    draws_u = False

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:
        del predictions, targets, u
        columns = list(zip(*self.rows, strict=True))
        layer, image, query, target, score, valid = (torch.tensor(column) for column in columns)
        return Assignment(layer, image, query, target, score, valid)


def assign_each(branches: Sequence[SupervisionBranch]) -> list[Assignment]:
    return [
        branch.assigner.assign(branch.match_on, branch.targets, branch.u) for branch in branches
    ]


def criterion_of(rows: Sequence[Row], *, proposals: bool = False) -> Criterion:
    rule = BranchRule(Fixed(rows), WEIGHTS)
    return Criterion(Supervision(assign_each, rule, proposals=rule if proposals else None))


def draw_predictions(dtype: torch.dtype = torch.float32) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_LAYERS, NUM_IMAGES, NUM_QUERIES)
    logits = torch.randn(*shape, NUM_CLASSES, generator=generator)
    boxes = 0.2 + 0.6 * torch.rand(*shape, 4, generator=generator)
    return Predictions(logits.to(dtype).requires_grad_(), boxes.to(dtype).requires_grad_())


@pytest.fixture
def targets() -> Targets:
    generator = torch.Generator().manual_seed(1)
    boxes = [0.2 + 0.6 * torch.rand(count, 4, generator=generator) for count in (3, 1)]
    return Targets.from_lists(boxes, [torch.tensor([3, 1, 2]), torch.tensor([1])])


U = torch.zeros(NUM_LAYERS, NUM_IMAGES, NUM_QUERIES)


def by_key(terms: Sequence[LossTerm]) -> dict[str, Tensor]:
    return {term.key: term.value for term in terms}


def test_terms_equal_loops_over_the_pairs(targets: Targets) -> None:
    predictions = draw_predictions()
    terms = by_key(criterion_of(ROWS)(ModelOutput(predictions), targets, num_targets=4, u=U))
    for n in range(NUM_LAYERS):
        one_hot = torch.zeros(NUM_IMAGES, NUM_QUERIES, NUM_CLASSES)
        for (layer, b, q), t in LABEL_DECIDED_BY.items():
            if layer == n:
                one_hot[b, q, targets.labels[b, t]] = 1
        focal = sigmoid_focal_loss(predictions.logits[n], one_hot, 0.25, 2, reduction="sum")
        torch.testing.assert_close(terms[f"one_to_one/class/{n}"], focal / 4)
        l1, giou = torch.zeros(()), torch.zeros(())
        for layer, b, q, t, _, valid in ROWS:
            if layer == n and valid:
                box, target = predictions.boxes_cxcywh[n, b, q], targets.boxes_cxcywh[b, t]
                l1 = l1 + (box - target).abs().sum()
                giou = giou + 1 - iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(target))[1]
        torch.testing.assert_close(terms[f"one_to_one/box/{n}"], l1 / 4)
        torch.testing.assert_close(terms[f"one_to_one/giou/{n}"], giou / 4)


def test_varifocal_targets_are_the_ious_of_the_deciding_pairs(targets: Targets) -> None:
    predictions = draw_predictions()
    rule = BranchRule(Fixed(ROWS), WEIGHTS)
    criterion = Criterion(Supervision(assign_each, rule), VarifocalLoss())
    terms = by_key(criterion(ModelOutput(predictions), targets, num_targets=4, u=U))
    for n in range(NUM_LAYERS):
        logits = predictions.logits[n]
        expected = 0.75 * logits.sigmoid() ** 2 * softplus(logits)
        for (layer, b, q), t in LABEL_DECIDED_BY.items():
            box, target = predictions.boxes_cxcywh[layer, b, q], targets.boxes_cxcywh[b, t]
            iou = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(target))[0]
            if layer == n and iou > 0:
                label = int(targets.labels[b, t])
                x = logits[b, q, label]
                expected[b, q, label] = iou * (softplus(x) - iou * x)
        torch.testing.assert_close(terms[f"one_to_one/class/{n}"], expected.sum() / 4)


def test_varifocal_has_no_gradient_in_boxes(targets: Targets) -> None:
    predictions = draw_predictions()
    rule = BranchRule(Fixed(ROWS), replace(WEIGHTS, box_weight=0, giou_weight=0))
    criterion = Criterion(Supervision(assign_each, rule), VarifocalLoss())
    terms = criterion(ModelOutput(predictions), targets, num_targets=4, u=U)
    (slope,) = torch.autograd.grad(total_loss(terms), predictions.boxes_cxcywh)
    assert not slope.any()


def test_the_order_of_rows_does_not_matter(targets: Targets) -> None:
    output = ModelOutput(draw_predictions())
    forward = criterion_of(ROWS)(output, targets, num_targets=1, u=U)
    backward = criterion_of(ROWS[::-1])(output, targets, num_targets=1, u=U)
    torch.testing.assert_close(by_key(forward), by_key(backward))


def test_names_layers_and_weights(targets: Targets) -> None:
    cells = draw_predictions()
    output = ModelOutput(
        draw_predictions(),
        proposals=Proposals(cells.logits[0], cells.boxes_cxcywh[0], cells.boxes_cxcywh[1]),
    )
    rows = [row for row in ROWS if row[0] == 0]
    terms = criterion_of(rows, proposals=True)(output, targets, num_targets=1, u=U)
    assert [(term.key, term.weight) for term in terms] == [
        ("one_to_one/class/0", 2),
        ("one_to_one/class/1", 2),
        ("one_to_one/box/0", 5),
        ("one_to_one/box/1", 5),
        ("one_to_one/giou/0", 3),
        ("one_to_one/giou/1", 3),
        ("proposals/class/0", 2),
        ("proposals/box/0", 5),
        ("proposals/giou/0", 3),
    ]
    assert all(term.value.shape == () for term in terms)


def test_total_is_the_weighted_sum(targets: Targets) -> None:
    terms = criterion_of(ROWS)(ModelOutput(draw_predictions()), targets, num_targets=4, u=U)
    expected = math.fsum(term.weight * term.value.item() for term in terms)
    assert total_loss(terms).item() == pytest.approx(expected, rel=1e-6)


def test_the_normaliser_may_be_a_tensor(targets: Targets) -> None:
    output = ModelOutput(draw_predictions())
    number = criterion_of(ROWS)(output, targets, num_targets=7.0, u=U)
    tensor = criterion_of(ROWS)(output, targets, num_targets=torch.tensor(7), u=U)
    torch.testing.assert_close(by_key(number), by_key(tensor))


def test_without_pairs_everything_is_background_and_gradients_are_finite() -> None:
    predictions = draw_predictions()
    empty = Targets.from_lists([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
    rows = [(0, 0, 0, 0, 0.0, False)]
    terms = criterion_of(rows)(ModelOutput(predictions), empty, num_targets=1, u=U)
    for term in terms:
        assert (term.value > 0) == (term.name == "class")
    torch.autograd.backward(total_loss(terms))
    assert predictions.logits.grad is not None
    assert predictions.boxes_cxcywh.grad is not None
    assert predictions.logits.grad.count_nonzero() == predictions.logits.numel()
    assert predictions.boxes_cxcywh.grad.count_nonzero() == 0
    assert predictions.logits.grad.isfinite().all()


def test_gradients_reach_the_pairs_only(targets: Targets) -> None:
    predictions = draw_predictions()
    terms = criterion_of(ROWS)(ModelOutput(predictions), targets, num_targets=1, u=U)
    torch.autograd.backward(total_loss([term for term in terms if term.name != "class"]))
    assert predictions.boxes_cxcywh.grad is not None
    touched = predictions.boxes_cxcywh.grad.abs().sum(-1).nonzero().tolist()
    assert {tuple(index) for index in touched} == set(LABEL_DECIDED_BY)


def test_gradients_against_finite_differences(targets: Targets) -> None:
    predictions = draw_predictions(torch.float64)

    def loss(logits: Tensor, boxes: Tensor) -> Tensor:
        output = ModelOutput(Predictions(logits, boxes))
        return total_loss(criterion_of(ROWS)(output, targets, num_targets=3, u=U))

    assert torch.autograd.gradcheck(loss, (predictions.logits, predictions.boxes_cxcywh))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_computes_in_float32(dtype: torch.dtype, targets: Targets) -> None:
    half = draw_predictions(dtype)
    wide = Predictions(half.logits.float(), half.boxes_cxcywh.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = criterion_of(ROWS)(ModelOutput(half), targets, num_targets=4, u=U)
    expected = criterion_of(ROWS)(ModelOutput(wide), targets, num_targets=4, u=U)
    assert {term.value.dtype for term in found} == {torch.float32}
    torch.testing.assert_close(by_key(found), by_key(expected), rtol=0, atol=0)


def test_predictions_that_are_not_finite_show_in_the_terms(targets: Targets) -> None:
    good = draw_predictions()
    broken = Predictions(good.logits, good.boxes_cxcywh * torch.nan)
    terms = criterion_of(ROWS)(ModelOutput(broken), targets, num_targets=4, u=U)
    assert all(term.value.isnan() for term in terms if term.name == "box")
    assert total_loss(terms).isnan()


class TestNormalizersWithoutTargets:
    """The class loss of background is all there is; it is divided by what few targets give."""

    EMPTY = Targets.from_lists([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)

    def class_terms(self, normalizer: Normalizer, num_targets: float) -> Tensor:
        nothing = [(0, 0, 0, 0, 0.0, False)]
        rule = BranchRule(Fixed(nothing), WEIGHTS, normalizer)
        criterion = Criterion(Supervision(assign_each, rule, groups={"hybrid": GroupRule(rule)}))
        predictions = draw_predictions()
        output = ModelOutput(predictions, extra_groups=(GroupOutput("hybrid", predictions),))
        terms = by_key(criterion(output, self.EMPTY, num_targets=num_targets, u=U))
        assert not any(value for key, value in terms.items() if "class" not in key)
        return torch.stack([terms[f"hybrid/class/{layer}"] for layer in range(NUM_LAYERS)])

    def test_divided_by_the_clamped_product(self) -> None:
        background = self.class_terms(Normalizer(), 1.0)
        assert background.min() > 0
        for normalizer, num_targets, expected in (
            (Normalizer(copies=6), 0, 1),
            (Normalizer(copies=6), 0.5, 3),
            (Normalizer(copies=6), 2, 12),
            (Normalizer(groups=3), 0, 3),
            (Normalizer(groups=3), 2, 6),
        ):
            found = self.class_terms(normalizer, num_targets)
            torch.testing.assert_close(found, background / expected)

    def test_ignored_padding_is_in_no_loss(self, targets: Targets) -> None:
        rows = torch.zeros(NUM_IMAGES, NUM_QUERIES, dtype=torch.int64)
        valid = torch.zeros(NUM_IMAGES, NUM_QUERIES, dtype=torch.bool)
        valid[0, :2] = True
        noised = NoisedTargets(
            labels=rows,
            boxes_cxcywh=torch.zeros(*rows.shape, 4),
            logits=torch.zeros(*rows.shape, 4),
            target=rows,
            positive=valid,
            valid=valid,
            num_groups=1,
        )
        found = {}
        for padding in ("background", "ignore"):
            predictions = draw_predictions()
            assert predictions.logits.is_leaf
            group = GroupOutput("denoising", predictions, noised=noised)
            denoising = DenoisingRule(WEIGHTS, padding)
            supervision = replace(criterion_of(ROWS).supervision, denoising=denoising)
            output = ModelOutput(draw_predictions(), extra_groups=(group,))
            terms = Criterion(supervision)(output, targets, num_targets=2, u=U)
            own = [term for term in terms if term.branch == "denoising"]
            total_loss(own).backward()
            assert predictions.logits.grad is not None
            touched = predictions.logits.grad.abs().sum(-1).amin(0) > 0
            found[padding] = total_loss(own).item()
            assert torch.equal(touched, valid | (padding == "background"))
            assert predictions.logits.grad.isfinite().all()
        assert 0 < found["ignore"] < found["background"]
