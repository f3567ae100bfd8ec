"""The learned rows of all groups: one published table, a table of ours for each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from msdetr.build import build_model
from msdetr.interop.official import published_names, to_published, translate
from msdetr.interop.query_rows import count_rows, join_rows, row_tables, split_rows
from msdetr.recipe import Recipe

PRIMARY = "query_source.content.weight"
HYBRID = "training_groups.hybrid.content.weight"
GROUP = "training_groups.independent.content.{}.weight"


def table(first: int, number: int) -> Tensor:
    return torch.arange(first, first + number).float()[:, None].expand(-1, 2)


# More groups than digits, so that their order cannot be that of text.
MANY = {
    **{GROUP.format(index): table(10 + index, 1) for index in reversed(range(12))},
    "encoder.level_embed": torch.zeros(1),
    PRIMARY: table(0, 10),
}


def test_groups_follow_the_primary_one_in_the_order_of_their_numbers() -> None:
    assert row_tables(MANY) == [PRIMARY, *(GROUP.format(index) for index in range(12))]
    joined = join_rows(MANY)
    assert list(joined) == ["encoder.level_embed", PRIMARY]
    assert joined[PRIMARY][:, 0].tolist() == list(range(22))
    assert count_rows(MANY) == 22


@pytest.mark.parametrize("source", [PRIMARY, "query_source.embedding.weight"])
def test_divided_again(source: str) -> None:
    state = {source: table(0, 3), HYBRID: table(3, 4), "x": torch.ones(1)}
    divided = split_rows(join_rows(state), state)
    assert divided.keys() == state.keys()
    assert all(torch.equal(divided[name], value) for name, value in state.items())


def test_plain_model_is_left_alone() -> None:
    state = {PRIMARY: table(0, 3), "x": torch.ones(1)}
    assert join_rows(state) == state
    assert torch.equal(split_rows(state, state)[PRIMARY], state[PRIMARY])
    without = {"x": torch.ones(1)}
    assert join_rows(without) == split_rows(without, state) == without


def test_rows_of_groups_that_the_model_has_not_are_dropped() -> None:
    expected = {PRIMARY: table(0, 3)}
    assert split_rows({PRIMARY: table(0, 7)}, expected)[PRIMARY][:, 0].tolist() == [0, 1, 2]


def test_group_that_no_rows_are_left_for_gets_none() -> None:
    expected = {PRIMARY: table(0, 3), HYBRID: table(3, 4)}
    assert split_rows({PRIMARY: table(0, 3)}, expected).keys() == {PRIMARY}
    assert len(split_rows({PRIMARY: table(0, 5)}, expected)[HYBRID]) == 2


def test_something_without_rows_is_passed_on() -> None:
    odd = {PRIMARY: torch.tensor(1.0)}
    assert split_rows(odd, {PRIMARY: table(0, 3)}) == odd


@pytest.mark.parametrize("name", ["hybrid_ddetr_pp_300q", "ms_group_ddetr_pp_300q"])
def test_whole_model_there_and_back(name: str, small_recipe: Callable[..., Recipe]) -> None:
    state = build_model(small_recipe(name).model, 3).state_dict()
    published = to_published(state)
    assert published["query_embed.weight"].shape[0] == count_rows(state)
    translation = translate(published, state, "published.pth")
    assert translation.unknown == ()
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert translation.state.keys() == state.keys() - counters
    assert all(torch.equal(value, state[key]) for key, value in translation.state.items())


def test_names_of_the_parts_that_only_training_has(small_recipe: Callable[..., Recipe]) -> None:
    names = published_names(
        [
            *build_model(small_recipe("ms_group_ddetr_pp_300q").model, 3).state_dict(),
            "training_groups.denoising.labels.weight",
        ]
    )
    extra = {alias for name in names if name.startswith("training") for alias in names[name]}
    stage = ("enc_output.weight", "enc_output_norm.bias", "class_embed.bias")
    assert {f"groups.{g}.{part}" for g in (1, 2) for part in stage} <= extra
    assert "groups.2.bbox_embed.layers.2.weight" in extra
    assert {"query_embed.weight", "label_enc.weight"} <= extra
    assert "groups.3.enc_output.weight" not in extra


def test_surplus_rows_are_reported(small_recipe: Callable[..., Recipe]) -> None:
    variant = build_model(small_recipe("hybrid_ddetr_pp_300q").model, 3)
    published = to_published(variant.state_dict())
    variant.training_groups = None
    translation = translate(published, variant.state_dict(), "published.pth")
    assert translation.unknown == ("query_embed.weight[6:]",)
    rows = translation.state[PRIMARY]
    assert torch.equal(rows, published["query_embed.weight"][:6])
