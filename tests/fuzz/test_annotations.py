"""1,000 mutated annotation files: each is accepted, or refused with one line per problem."""

from __future__ import annotations

import copy
import functools
import json
import operator
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msdetr.api import evaluate

NUM_STRUCTURES = int(os.environ.get("MSDETR_FUZZ_COUNT", "250"))
NUM_TEXTS = int(os.environ.get("MSDETR_FUZZ_COUNT", "100"))
COCO = {
    "info": {"year": 2026},
    "images": [
        {"id": 5, "file_name": "a.png", "height": 10, "width": 20},
        {"id": 2, "file_name": "b.png", "height": 8, "width": 8, "license": 1},
        {"id": 9, "file_name": "sub/c.png", "height": 8, "width": 8},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10.5, 4], "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 7, "bbox": [0, 0, 3, 3], "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [1, 1, 0, 2], "area": 0},
        {"id": 4, "image_id": 2, "category_id": 7, "bbox": [-1, 6, 4, 9.5], "area": 20.25},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog", "supercategory": "x"}],
}
RESULTS = [{"image_id": 2, "category_id": 7, "bbox": [0, 6, 3, 2], "score": 0.5}]

Place = tuple[str | int, ...]
Ask = Callable[..., Any]

HUGE = [10**400, -(10**30), 2**63, 2**63 - 1, -(2**63), 2**53, 1e308, -1e308, 5e-324, 1e15, 999e12]
TEXTS = [
    "",
    "../b.png",
    "/",
    ".",
    "b.png",
    "b\x00.png",
    "\ud800.png",
    "a\nb",
    "\x1b[31m",
    "é" * 3000,
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.floats(),
    st.floats(-5, 25),
    st.sampled_from(HUGE),
    st.sampled_from(TEXTS),
    st.text(max_size=5),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=5),
    st.lists(st.floats(-20, 30) | st.sampled_from(HUGE), min_size=4, max_size=4),
    st.dictionaries(st.text(max_size=5), scalars, max_size=2),
)


def places(tree: Any, above: Place = ()) -> list[Place]:
    """Paths of every value below the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    nested = (dict, list)
    return [
        path
        for key, value in items
        for path in (
            (*above, key),
            *(places(value, (*above, key)) if type(value) in nested else ()),
        )
    ]


def follow(tree: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a path."""
    return functools.reduce(operator.getitem, path, tree)


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    tree = copy.deepcopy(COCO)
    for _ in range(draw(st.integers(1, 3))):
        options = places(tree)
        *parents, key = draw(st.sampled_from(options))
        owner = follow(tree, parents)
        action = draw(st.sampled_from(["set", "set", "set", "drop", "repeat", "copy", "add"]))
        if action == "set":
            owner[key] = draw(values)
        elif action == "drop" and len(options) > 1:
            del owner[key]
        elif action == "repeat" and isinstance(owner, list):
            owner.insert(draw(st.integers(0, len(owner))), copy.deepcopy(owner[key]))
        elif action == "copy":
            owner[key] = copy.deepcopy(follow(tree, draw(st.sampled_from(options))))
        elif isinstance(owner, dict):
            owner[draw(st.text(max_size=4) | st.sampled_from(["area", "iscrowd"]))] = draw(values)
    return json.dumps(tree).encode()


SNIPPETS = [
    *(b"\xff", b"\x00", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b'"', b"'", b"\\", b"\n", b"//"),
    *(b"[", b"]", b"{", b"}", b",", b":", b"[" * 20000, b'{"a":' * 20000, b"NaN", b"-Infinity"),
    *(b"9" * 5000, b"1e999", b"-", b"0", b".", b"1e", b"null", b"true", b'"id": 1,', b'"bbox": 3,'),
]


@st.composite
def mutated_texts(draw: st.DrawFn) -> bytes:
    text = json.dumps(COCO, indent=draw(st.sampled_from([None, 1]))).encode()
    for _ in range(draw(st.integers(1, 3))):
        start = int(draw(st.floats(0, 1)) * len(text))
        end = start + draw(st.integers(0, 12))
        middle = draw(st.sampled_from([b"", text[start:end] * 2, *SNIPPETS]))
        text = text[:start] + middle + text[end:]
    return text


class Reader:
    """Reads an annotation file as an evaluation and as `data check` do."""

    def __init__(self, folder: Path, images: Path, checkpoint: Path, ask: Ask) -> None:
        self.file, self.results = folder / "mutated.json", folder / "results.json"
        self.results.write_text(json.dumps(RESULTS))
        self.images, self.checkpoint, self.ask = images, checkpoint, ask
        self.seen: Counter[bool] = Counter()
        self.belongs_elsewhere = False

    def try_out(self, content: bytes) -> None:
        self.file.write_bytes(content)
        accepted = self.evaluate()
        findings = self.check_data()
        # What an evaluation refuses is an error of the data.
        assert accepted or findings or self.belongs_elsewhere
        self.seen[accepted] += 1

    def evaluate(self) -> bool:
        data = f"{self.images},{self.file}"
        answer = self.ask(
            *("eval", "--ckpt", self.checkpoint, "--data", data, "--json"),
            *("--from-predictions", self.results),
        )
        accepted = bool(answer.check())
        self.belongs_elsewhere = "results.json" in answer.err or "the model" in answer.err
        if accepted:
            json.loads(answer.out)
        return accepted

    def check_data(self) -> list[Any]:
        options = {"data.source": "coco"}
        for split in ("train", "val"):
            options[f"data.{split}.images"] = str(self.images)
            options[f"data.{split}.annotations"] = str(self.file)
        sets = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
        answer = self.ask("data", "check", "shapes_tiny", *sets, "--json")
        assert answer.code in {0, 2}
        findings = json.loads(answer.out)["findings"]
        errors = [finding for finding in findings if finding["severity"] == "error"]
        assert bool(errors) == (answer.code == 2)
        return errors


@pytest.fixture
def reader(
    ask: Ask,
    images: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Reader:
    # The checkpoint does not change: building its model once is enough.
    monkeypatch.setattr(evaluate, "open_checkpoint", cache(evaluate.open_checkpoint))
    return Reader(tmp_path, images, checkpoint, ask)


def fuzzing(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize="MSDETR_FUZZ_SEED" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_the_original_is_accepted(reader: Reader) -> None:
    reader.try_out(json.dumps(COCO).encode())
    assert reader.seen == {True: 1}


@pytest.mark.slow
def test_mutated_structure_is_accepted_or_refused(reader: Reader) -> None:
    fuzzing(NUM_STRUCTURES)(given(content=mutated_files())(reader.try_out))()
    assert reader.seen.total() >= NUM_STRUCTURES
    assert min(reader.seen[True], reader.seen[False]) > NUM_STRUCTURES // 20


@pytest.mark.slow
def test_mutated_text_is_accepted_or_refused(reader: Reader) -> None:
    fuzzing(NUM_TEXTS)(given(content=mutated_texts())(reader.try_out))()
    assert reader.seen.total() >= NUM_TEXTS
    assert min(reader.seen[True], reader.seen[False]) > NUM_TEXTS // 50
