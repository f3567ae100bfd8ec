"""What a ``.pt2`` file may hold before PyTorch reads it.

``torch.export.load`` unpickles what an archive calls pickled, calls whatever it names below
``torch``, and evaluates its expressions of sizes as Python. None of this is needed by the files of
:mod:`msdetr.export.torch_export_file`: everything else than tensors, operators on tensors and
arithmetic is refused.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msdetr.errors import CheckpointError

_MEMBERS = re.compile(
    r"[\w.-]+/(\.data/(version|serialization_id)|\.format_version|\.storage_alignment|byteorder"
    r"|archive_(format|version)|extra/metadata\.json|models/model\.json"
    r"|data/(weights|constants)/(model_\w+_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt)"
)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|torch\.sym_(max|min|float|int|not|ite|sum)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
)
# Modes of padding, interpolation and rounding. A name of a file would be another text.
_MODES = frozenset({"constant", "reflect", "replicate", "circular", "none", "tanh", "floor"})
_EXPRESSION = re.compile(
    r"(Symbol|Integer|Add|Mul|Pow|Mod|Max|Min|FloorDiv|CeilDiv|CleanDiv|PythonMod|ModularIndexing"
    r"|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|True|False|(positive|nonnegative|integer)(?==)|'?[su]\d+'?"
    r"|\d+|[\s(),=<>+*/%-])*"
)
_GUARD = re.compile(
    r"(L\['(pixels|padding_mask)'\](\.size\(\)\[\d\])?|Max|Min|Mod|and|or|not|\d+|[\s(),=!<>+*/%-])*"
)
_NAME = re.compile(r"[\w.+-]*")
_STRUCTURES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
# Kinds of values that are code, or that only pickles can make.
_FORBIDDEN_KEYS = {"as_graph", "as_operator", "as_custom_obj", "custom_obj"}
# Where an operator was called from: texts that nothing evaluates.
_UNREAD_KEYS = {"stack_trace", "nn_module_stack", "torch_fn", "torch_version"}


def check_archive(path: Path) -> None:
    """Refuse a ``.pt2`` file that holds more than tensors, their operators and arithmetic.

    Raises:
        CheckpointError: It does, or it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = next(_find_unsafe(archive), None)
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        raise CheckpointError(str(path), f"cannot be read as a .pt2 file: {error}") from error
    if found is not None:
        raise CheckpointError(str(path), f"is not loaded, since it could run code: {found}")


def _find_unsafe(archive: zipfile.ZipFile) -> Iterator[str]:
    names = archive.namelist()
    for name, count in Counter(names).items():
        if count > 1 or not _MEMBERS.fullmatch(name):
            yield f"it holds {name!r}" + (f" {count} times" if count > 1 else "")
    for name in names:
        if name.endswith("_config.json"):
            yield from _find_pickles(json.loads(archive.read(name)))
        if name.endswith("/sample_inputs/model.pt") and archive.getinfo(name).file_size:
            yield "its example inputs are pickled"
        if name.endswith("/models/model.json"):
            yield from _find_code(json.loads(archive.read(name)))


def _find_pickles(config: dict[str, Any]) -> Iterator[str]:
    for name, entry in config["config"].items():
        stored = str(entry["path_name"])
        if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", stored):
            yield f"its tensor {name!r} is pickled"


def _find_code(program: dict[str, Any]) -> Iterator[str]:
    guards = program.pop("guards_code", None) or []
    for text in guards:
        if not _GUARD.fullmatch(text):
            yield f"the condition {_short(text)}"
    yield from _find_in(program, "")


def _find_in(value: object, key: str) -> Iterator[str]:
    """Walk through JSON values; ``key`` is that of the nearest object."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _FORBIDDEN_KEYS and inner is not None:
                yield f"a value of the kind {name!r}"
            elif not _NAME.fullmatch(name):
                yield f"the name {_short(name)}"
            elif name not in _UNREAD_KEYS:
                yield from _find_in(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _find_in(inner, key)
    elif isinstance(value, str) and not _is_safe(value, key):
        yield f"{key} {_short(value)}"


def _is_safe(text: str, key: str) -> bool:
    if key == "target":
        return _OPERATOR.fullmatch(text) is not None
    if key == "expr_str":
        return _EXPRESSION.fullmatch(text) is not None
    if key in {"as_string", "as_strings"}:
        return text in _MODES
    if key in {"in_spec", "out_spec"}:
        return _structures(json.loads(text)) <= _STRUCTURES
    return _NAME.fullmatch(text) is not None


def _structures(spec: object) -> set[object]:
    """Collect the types and contexts that a description of nested values names."""
    if isinstance(spec, list):
        return set().union(*map(_structures, spec))
    if not isinstance(spec, dict):
        return set()
    context = spec["context"]
    named = {spec["type"], None if context in {None, "null", "[]"} else context}
    return named | _structures(spec["children_spec"])


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
