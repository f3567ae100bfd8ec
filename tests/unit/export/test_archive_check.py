"""Files that would run code when PyTorch loads them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

from msdetr.errors import CheckpointError
from msdetr.export.archive_check import check_archive
from msdetr.export.torch_export_file import open_file

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
Change = Callable[[dict[str, Any]], None]


class Small(torch.nn.Module):
    """Has all that a program of ours has: weights, sizes that vary, conditions, a mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        padded = torch.nn.functional.pad(pixels, (0, 0, 0, pixels.shape[1] // 2))
        return (self.linear(padded).flatten(0, 1)[: pixels.shape[0] * 2 - 1],)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    exported = torch.export.export(
        Small().eval(), (torch.zeros(5, 6, 3),), dynamic_shapes={"pixels": free}
    )
    exported.example_inputs = None
    with path.open("wb") as file:
        torch.export.save(exported, file)
    return path


@pytest.fixture
def rewrite(program: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the program with some members replaced or added; None stands for a change of JSON."""

    def write(replaced: dict[str, bytes] | None = None, **changes: Change) -> Path:
        path = tmp_path / "changed.pt2"
        with zipfile.ZipFile(program) as source, zipfile.ZipFile(path, "w") as target:
            root = source.namelist()[0].split("/")[0]
            members = {name: source.read(name) for name in source.namelist()}
            for name, change in changes.items():
                member = f"{root}/{ {'program': PROGRAM, 'weights': WEIGHTS}[name] }"
                document = json.loads(members[member])
                change(document)
                members[member] = json.dumps(document).encode()
            members |= {f"{root}/{name}": data for name, data in (replaced or {}).items()}
            for name, data in members.items():
                target.writestr(name, data)
        return path

    return write


def code(folder: Path) -> str:
    """An expression that leaves a file behind."""
    return f"__import__('pathlib').Path({str(folder / 'ran')!r}).touch()"


def nodes(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = document["graph_module"]["graph"]["nodes"]
    return listed


def test_a_program_of_ours_is_loaded(program: Path) -> None:
    check_archive(program)
    (value,) = open_file(program).run({"pixels": torch.zeros(2, 4, 3)})
    assert value.shape == (3, 4)


def test_expression_that_pytorch_would_evaluate(
    rewrite: Callable[..., Path], tmp_path: Path
) -> None:
    def change(document: dict[str, Any]) -> None:
        values = document["graph_module"]["graph"]["sym_int_values"]
        next(iter(values.values()))["as_expr"]["expr_str"] = code(tmp_path)

    file = rewrite(program=change)
    with pytest.raises(CheckpointError, match=r"is not loaded, since it could run code: expr_str"):
        open_file(file)
    assert not (tmp_path / "ran").exists()
    # What the check is for.
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever follows
        torch.export.load(file)
    assert (tmp_path / "ran").exists()


def target(text: str) -> Change:
    return lambda document: nodes(document)[0].update(target=text)


def input_of(argument: dict[str, Any]) -> Change:
    return lambda document: nodes(document)[0]["inputs"][0].update(arg=argument)


def pickled(document: dict[str, Any]) -> None:
    next(iter(document["config"].values()))["use_pickle"] = True


def elsewhere(document: dict[str, Any]) -> None:
    next(iter(document["config"].values()))["path_name"] = "../../weight_0"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("target", {"program": target("torch.os.system")}),
        ("target", {"program": target("torch.ops.aten.add.Tensor.__class__")}),
        ("target", {"program": target("_operator.methodcaller")}),
        ("target", {"program": target("math.floor")}),
        ("as_string", {"program": input_of({"as_string": "/etc/passwd"})}),
        ("as_string", {"program": input_of({"as_string": "notes"})}),
        ("'as_graph'", {"program": input_of({"as_graph": {"name": "true_graph"}})}),
        ("'as_operator'", {"program": input_of({"as_operator": "torch.load"})}),
        ("name", {"program": lambda d: nodes(d)[0].update(name="x=print(1)")}),
        ("condition", {"program": lambda d: d.update(guards_code=["print(1)"])}),
        ("condition", {"program": lambda d: d.update(guards_code=["L['pixels'].__class__"])}),
        ("is pickled", {"weights": pickled}),
        ("is pickled", {"weights": elsewhere}),
    ],
)
def test_refused(name: str, change: dict[str, Change], rewrite: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=f"is not loaded, since it could run code: .*{name}"):
        check_archive(rewrite(**change))


def example_inputs() -> bytes:
    buffer = io.BytesIO()
    torch.save(((torch.zeros(1),), {}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("data/sample_inputs/model.pt", example_inputs()),
        ("data/weights/model.pt", pickle.dumps([])),
        ("data/constants/opaque_obj_0", pickle.dumps([])),
        ("data/aotinductor/model/model.so", b"\x7fELF"),
        ("models/second.json", b"{}"),
        ("version", b"1"),
    ],
)
def test_members_that_no_export_of_ours_has(
    member: str, content: bytes, rewrite: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match="is not loaded, since it could run code"):
        check_archive(rewrite({member: content}))


def test_two_members_of_one_name(rewrite: Callable[..., Path]) -> None:
    file = rewrite()
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(CheckpointError, match="2 times"):
        check_archive(file)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "wrong.pt2"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(file)):
        open_file(file)
