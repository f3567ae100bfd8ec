"""The four verdicts in their exact words."""

from __future__ import annotations

import json

import pytest

from msdetr.study.paired import compare_arms, compare_pair
from msdetr.study.verdict import NoVerdict, Outcome, decide

BASE = {42: 0.515, 43: 0.517, 44: 0.514}


def shifted(*differences: float) -> dict[int, float]:
    return {seed: BASE[seed] + d for seed, d in zip(BASE, differences, strict=True)}


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        (
            (0.031, 0.030, 0.032),
            "mixed is better than plain (+0.031, 95% interval +0.029 to +0.033, 3 seeds).",
        ),
        (
            (-0.031, -0.030, -0.032),
            "mixed is worse than plain (-0.031, 95% interval -0.033 to -0.029, 3 seeds).",
        ),
        (
            (0.001, 0.002, 0.001),
            "mixed and plain: no difference worth having (+0.001, 95% interval +0.000 to +0.003, "
            "3 seeds; the interval lies within ±0.005).",
        ),
        (
            (0.012, 0.005, 0.007),
            "mixed and plain: undecided (+0.008, 95% interval -0.001 to +0.017, 3 seeds); "
            "it would take 1 more seed to decide with 80% power, were the true difference 0.008 "
            "and the spread 0.004.",
        ),
        (
            (0.03, -0.02, 0.005),
            "mixed and plain: undecided (+0.005, 95% interval -0.057 to +0.067, 3 seeds); "
            "it would take 196 more seeds to decide with 80% power, were the true difference 0.005 "
            "and the spread 0.025.",
        ),
        (
            (0.2, -0.2, 0.0),
            "mixed and plain: undecided (+0.000, 95% interval -0.497 to +0.497, 3 seeds); "
            "it would take more than 1000 seeds to decide with 80% power, were the true difference "
            "0.005 and the spread 0.200.",
        ),
    ],
)
def test_sentences(differences: tuple[float, ...], words: str) -> None:
    comparison = compare_pair("mixed", shifted(*differences), "plain", BASE)
    assert str(decide(comparison, 0.005)) == words


def test_words_of_the_outcomes() -> None:
    assert [str(outcome) for outcome in Outcome] == [
        *("better", "worse", "no difference worth having", "undecided"),
    ]


def test_certain_differences_that_are_too_small_are_not_worth_having() -> None:
    comparison = compare_pair("a", shifted(0.001, 0.0011, 0.0012), "b", BASE)
    assert comparison.paired.low > 0
    assert decide(comparison, 0.005).outcome is Outcome.NO_DIFFERENCE
    assert decide(comparison, 0.0005).outcome is Outcome.BETTER


def test_one_arm_of_many_needs_more() -> None:
    arms = {"b": BASE, "a": shifted(0.012, 0.008, 0.010)}
    assert decide(compare_arms(arms, "b")[0], 0.005).outcome is Outcome.BETTER
    others = {f"other {n}": shifted(0.02, -0.02, 0.001 * n) for n in range(6)}
    assert decide(compare_arms({**arms, **others}, "b")[0], 0.005).outcome is Outcome.UNDECIDED


def test_model_against_itself() -> None:
    verdict = decide(compare_pair("a", BASE, "b", BASE), 0.005)
    assert verdict.mean == verdict.interval.low == verdict.interval.high == 0
    assert verdict.outcome is Outcome.NO_DIFFERENCE


@pytest.mark.parametrize(("num_seeds", "words"), [(1, "there is 1 seed"), (0, "there is no seed")])
def test_fewer_than_two_seeds_say_nothing_of_methods(num_seeds: int, words: str) -> None:
    text = str(NoVerdict("a", "b", num_seeds))
    assert text.startswith("a and b: no verdict on methods, which takes at least two seeds")
    assert words in text


def test_json() -> None:
    verdict = decide(compare_pair("a", shifted(0.012, 0.005, 0.007), "b", BASE), 0.005)
    content = json.loads(json.dumps(verdict.to_dict()))
    assert (content["outcome"], content["seeds_needed"]) == ("undecided", 1)
    assert content["sentence"] == str(verdict)
