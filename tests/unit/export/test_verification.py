"""Verification: what passes, what does not, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from msdetr.export import ExportedOutput, VerificationBatch, VerificationReport, verify
from msdetr.export.settings import ExportPrecision
from msdetr.model import DetectionModel, TwoStageQueries
from msdetr.model.queries import best_cells
from msdetr.structures import Detections, ImageBatch

Build = Callable[..., DetectionModel]
Change = Callable[[ExportedOutput], ExportedOutput]


@dataclass
class RawFile:
    """Stands for a raw export: the model itself, with queries and outputs that a test changes."""

    model: DetectionModel
    choose: Callable[[Tensor], Tensor] = lambda cells: cells
    change: Change = lambda output: output

    def inspect(self, images: ImageBatch) -> ExportedOutput:
        model = self.model
        with torch.no_grad():
            memory = model.encoder(model.neck(model.backbone(images.pixels), images.padding_mask))
            source = model.query_source
            assert isinstance(source, TwoStageQueries)
            proposals = source(memory).proposals
            assert proposals is not None
            cells = self.choose(best_cells(proposals, source.num_queries))
            (decoded,) = model.decoder([source(memory, cells)], memory)
            last = decoded.one_to_one
        return self.change(ExportedOutput(last.logits[-1], last.boxes_cxcywh[-1], cells))

    def run(self, images: ImageBatch) -> dict[str, Tensor]:
        output = self.inspect(images)
        return {"logits": output.logits, "boxes": output.boxes_cxcywh}


def count(found: Sequence[tuple[Sequence[int], Detections]]) -> float:
    """Stands for AP: any number that depends on the detections."""
    return sum(float(detections.scores.sum()) for _, detections in found)


@pytest.fixture
def compare(build_tiny: Build, images: ImageBatch) -> Callable[..., VerificationReport]:
    """Verify a raw file, changed as told."""

    def run(
        precision: str = "fp32",
        *,
        bias: float = 0.0,  # scores around 0.5
        num_batches: int = 1,
        enough_images: int | None = None,
        **changes: object,
    ) -> VerificationReport:
        model = build_tiny()
        with torch.no_grad():
            cast(nn.Linear, model.decoder.class_heads[-1]).bias.fill_(bias)
        file = replace(RawFile(model), **changes)  # type: ignore[arg-type]
        batch = VerificationBatch(images, (7, 8), torch.tensor([[96, 128], [70, 100]]))
        return verify(
            model,
            file,
            [batch] * num_batches,
            count,
            limit=20,
            precision=cast("ExportPrecision", precision),
            enough_images=enough_images,
        )

    return run


def test_the_model_itself_passes(compare: Callable[..., VerificationReport]) -> None:
    report = compare()
    assert report.problems == []
    assert (report.shared_cells, report.logit_difference, report.box_difference) == (1.0, 0.0, 0.0)
    assert (report.num_images, report.sizes) == (2, [(96, 128)])
    assert report.ap == report.exported_ap
    assert report.is_weak


def test_other_order_of_the_same_cells_is_compared_query_by_query(
    compare: Callable[..., VerificationReport],
) -> None:
    report = compare(choose=lambda cells: cells.flip(1))
    assert (report.shared_cells, report.logit_difference) == (1.0, 0.0)
    assert report.given_cells.share == 1.0


def test_other_cells_are_a_problem(compare: Callable[..., VerificationReport]) -> None:
    def choose(cells: Tensor) -> Tensor:
        unused = next(c for c in range(256) if not (cells[0] == c).any())
        return torch.cat([cells[:, :-1], torch.full_like(cells[:, :1], unused)], dim=1)

    report = compare(choose=choose)
    assert report.logit_difference == 0.0
    assert any("of the queries stem from the same cells, expected at least 99%" in p
               for p in report.problems)  # fmt: skip
    assert not any(
        "same cells" in p and "stem" in p for p in compare("fp16", choose=choose).problems
    )


@pytest.mark.parametrize(("field", "name"), [("logits", "logits"), ("boxes_cxcywh", "boxes")])
def test_other_values_are_a_problem(
    field: str, name: str, compare: Callable[..., VerificationReport]
) -> None:
    def change(output: ExportedOutput) -> ExportedOutput:
        return replace(output, **{field: getattr(output, field) + 4e-4})

    report = compare(change=change)
    assert [
        p for p in report.problems if p.startswith(f"{name} differ by 4.0e-04, tolerance 1e-04")
    ]
    assert not [p for p in compare("fp16", change=change).problems if "differ by" in p]


@pytest.mark.parametrize(
    "name",
    [
        "decoder.class_heads.1.weight",
        "decoder.layers.0.cross_attention.value_proj.weight",
        "decoder.layers.1.ffn.linear2.weight",
        "encoder.layers.0.ffn.linear2.weight",
        "neck.projections.0.1.weight",
        "query_source.content.weight",
    ],
)
def test_a_weight_that_is_off_by_a_hundredth_is_a_problem(
    name: str, build_tiny: Build, compare: Callable[..., VerificationReport]
) -> None:
    model = build_tiny()
    with torch.no_grad():
        cast(nn.Linear, model.decoder.class_heads[-1]).bias.zero_()
        dict(model.named_parameters())[name].mul_(1.01)
    problems = compare(model=model).problems
    assert [each for each in problems if "differ by" in each]


@pytest.mark.parametrize(("noise", "is_wrong"), [(2e-5, False), (5e-4, True)])
def test_logits_are_judged_by_their_size(
    noise: float, is_wrong: bool, compare: Callable[..., VerificationReport]
) -> None:
    """Rounding of a large number is large; what matters is what it does to the scores."""

    def change(output: ExportedOutput) -> ExportedOutput:
        return replace(output, logits=output.logits * (1 + noise))

    def biased(value: float) -> VerificationReport:
        return compare(change=change, bias=value)

    report = biased(20.0)
    assert report.logit_difference > 1e-4
    assert report.logit_size == pytest.approx(20, rel=0.2)
    assert bool(report.problems) is is_wrong
    for problem in report.problems:
        assert problem.startswith("logits differ by 1.0e-02, tolerance 1e-04 of 2")


@pytest.mark.parametrize(("enough", "compared"), [(None, 8), (2, 4), (6, 6), (7, 8)])
def test_it_goes_on_until_there_are_enough_detections(
    enough: int | None, compared: int, compare: Callable[..., VerificationReport]
) -> None:
    report = compare(num_batches=4, enough_images=enough)
    assert report.num_images == compared
    assert 25 <= report.free.first / compared * 2 < 50  # one batch is not enough, two are


def test_nan_is_a_problem(compare: Callable[..., VerificationReport]) -> None:
    def change(output: ExportedOutput) -> ExportedOutput:
        return replace(output, logits=torch.full_like(output.logits, torch.nan))

    assert compare(change=change).problems[0].startswith("logits differ by inf, tolerance 1e-04")


def test_lost_detections_are_a_problem(compare: Callable[..., VerificationReport]) -> None:
    def change(output: ExportedOutput) -> ExportedOutput:
        return replace(output, logits=output.logits.flip(-1))

    for precision in ("fp32", "fp16"):
        report = compare(precision, change=change)
        assert report.free.first > 0, "the test needs detections"
        assert any(p.endswith(" agree, expected at least 95%") for p in report.problems)
        assert report.free.share < 0.95
