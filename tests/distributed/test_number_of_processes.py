"""One, two and four processes, and two launchers, train and evaluate the same detector alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5

Run = Callable[..., None]
Rows = Callable[[Path], list[dict[str, Any]]]
Difference = Callable[[Path, Path], float]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, run: Run, small: list[str]) -> Path:
    """Runs named by their number of processes; ``uncapped`` keeps all one-to-many positives."""
    root = tmp_path_factory.mktemp("trained")
    uncapped = ["--set", "supervision.one_to_many.max_positive_fraction=1.0"]
    run(
        *((count, [*small, "--output", root / str(count)]) for count in (1, 2, 4)),
        (1, [*small, *uncapped, "--output", root / "uncapped"]),
    )
    return root


@pytest.mark.parametrize("processes", ["2", "4"])
def test_the_weights_are_the_same(
    trained: Path, processes: str, largest_difference: Difference, rows_of: Rows
) -> None:
    assert largest_difference(trained / "1", trained / processes) < TOLERANCE
    rows, expected = rows_of(trained / processes), rows_of(trained / "1")
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2, 3]
    for row, twin in zip(rows, expected, strict=True):
        assert row["loss"] == pytest.approx(twin["loss"], rel=1e-4)
        assert row["terms"] == pytest.approx(twin["terms"], rel=1e-3, abs=1e-5)


def test_what_is_compared_could_differ(
    trained: Path, largest_difference: Difference, rows_of: Rows
) -> None:
    """The cap leaves positives out, and a step moves the weights by more than the tolerance."""
    assert largest_difference(trained / "1", trained / "uncapped") > 10 * TOLERANCE
    one, other = (rows_of(trained / name)[0]["terms"] for name in ("1", "uncapped"))
    assert one["one_to_many/class/0"] != other["one_to_many/class/0"]
    assert one["one_to_one/class/0"] == other["one_to_one/class/0"]


def test_evaluation_gives_the_same_numbers(trained: Path, run: Run, tmp_path: Path) -> None:
    checkpoint = trained / "1" / "checkpoints" / "last"
    words = ("eval", "--ckpt", checkpoint, "--device", "cpu", "--per-branch", "--output")
    run(*((count, [*words, tmp_path / str(count)]) for count in (1, 2, 4)))
    counts = ("1", "2", "4")
    for name in ("metrics.json", "predictions.json"):
        expected, *others = (json.loads((tmp_path / n / name).read_text()) for n in counts)
        assert expected
        if name == "metrics.json":
            environments = [each["setting"].pop("environment") for each in (expected, *others)]
            assert [each["processes"] for each in environments] == [1, 2, 4]
            costs = [each.pop("cost") for each in (expected, *others)]
            assert len({cost["image_flops"] for cost in costs}) == 1
        assert others == [expected] * 2


def test_batch_norm_is_the_same(
    run: Run, small: list[str], tmp_path: Path, largest_difference: Difference
) -> None:
    words = [*small, "--set", "model.backbone.norm=batch", "--output"]
    run((1, [*words, tmp_path / "1"]), (2, [*words, tmp_path / "2"]))
    assert largest_difference(tmp_path / "1", tmp_path / "2") < TOLERANCE


HYBRID_AND_DENOISING = {
    "model.query_groups.hybrid": "{queries: 30}",
    "supervision.hybrid": "{copies: 2}",
    "model.query_groups.denoising": "{budget: 20}",
    "supervision.denoising": "{scale: 1}",
}
GROUPS = {"model.query_groups.group": "{groups: 3}", "supervision.group": "{one_to_many: matched}"}
SUPPRESSOR = {
    "model.placement": "b",
    "model.extra_ffn": "false",
    "model.suppressor": "{learned_keys: 3}",
    "supervision.class_loss": "varifocal",
}


@pytest.mark.parametrize(
    ("fields", "terms"),
    [
        (HYBRID_AND_DENOISING, ["hybrid/box/0", "denoising/box/0"]),
        (GROUPS, ["group_1/box/0", "group_2_one_to_many/box/1", "group_2_proposals/box/0"]),
        (SUPPRESSOR, ["one_to_many/class/1"]),
    ],
    ids=["hybrid and denoising", "groups", "suppressor"],
)
def test_variants_are_the_same(
    fields: dict[str, str], terms: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The second of four meets no target in the first step, hence no denoising query."""
    run, small, largest_difference, rows_of = map(
        request.getfixturevalue, ("run", "small", "largest_difference", "rows_of")
    )
    sets = [word for key, value in fields.items() for word in ("--set", f"{key}={value}")]
    words = [*small, *sets, "--output"]
    run(*((count, [*words, tmp_path / str(count)]) for count in (1, 4)))
    assert largest_difference(tmp_path / "1", tmp_path / "4") < TOLERANCE
    for row, twin in zip(rows_of(tmp_path / "4"), rows_of(tmp_path / "1"), strict=True):
        assert row["terms"] == pytest.approx(twin["terms"], rel=1e-3, abs=1e-5)
        assert all(row["terms"][term] > 0 for term in terms), row["terms"].keys()


@pytest.fixture
def two_agents(
    trained: Path, small: list[str], environment: dict[str, str], free_port: int
) -> Path:
    """The run of two torchrun agents, as two machines would do it."""
    output = trained / "agents"
    common = [
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "x", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", f"127.0.0.1:{free_port}", "--local-addr", "127.0.0.1"),
        *("-m", "msdetr.cli", *small, "--output", str(output)),
    ]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--node-rank", rank, *common],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [agent.communicate(timeout=1200) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], said
    return output


def test_two_machines_are_two_processes(
    trained: Path, two_agents: Path, largest_difference: Difference, rows_of: Rows
) -> None:
    assert largest_difference(trained / "1", two_agents) < TOLERANCE
    assert rows_of(two_agents) == rows_of(trained / "2")
