"""An assigner from a Python file of the user's own, held to what an assigner must return."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from msdetr.assignment.costs import pairwise_iou
from msdetr.assignment.ranking import mark_pairs
from msdetr.errors import AssignerError, MsdetrError, Problem
from msdetr.structures import Assignment, Explanation, Predictions, Reason, Targets

_T = TypeVar("_T")
_INDICES = ("layer", "image", "query", "target")
_DTYPES = {"score": torch.float32, "valid": torch.bool}


@dataclass(frozen=True)
class FileAssigner:
    """Asks an object of the user; what it returns is checked, what it lacks has a default.

    Attributes:
        name: File and class, for messages.
        sha256: Digest of the file's bytes.
        own: Has ``assign``, and of the other members of an assigner those that it wants.
    """

    name: str
    sha256: str
    own: Any

    @property
    def draws_u(self) -> bool:
        """Whether the pairs depend on u; they may, unless the class says otherwise."""
        return bool(getattr(self.own, "draws_u", True))

    def describe(self) -> str:
        """Return the settings in one line; the name of the class by default."""
        if not hasattr(self.own, "describe"):
            return type(self.own).__name__
        # One line, whatever the class returns.
        return " ".join(str(self._call("describe", self.own.describe)).split())

    def max_positives(self, num_queries: int) -> int | None:
        """Return the maximum number of positive queries of an image; None by default."""
        if not hasattr(self.own, "max_positives"):
            return None
        maximum = self._call("max_positives", lambda: self.own.max_positives(num_queries))
        if not isinstance(maximum, int | None):
            raise self._error("max_positives", f"must return an integer or None, got {maximum!r}")
        return maximum

    @torch.no_grad()
    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:
        """Pair queries and targets.

        Raises:
            AssignerError: The class raises, or returns what is no assignment of these.
        """
        rows = self._call("assign", lambda: self.own.assign(predictions, targets, u))
        if not isinstance(rows, Assignment):
            raise self._error("assign", f"must return an Assignment, got {type(rows).__name__}")
        self._call("assign", lambda: self._check_rows(rows, predictions, targets))
        return rows

    @torch.no_grad()
    def explain(self, predictions: Predictions, targets: Targets, u: Tensor) -> Explanation:
        """Tell of every pair whether it is one and why not; by default queries are ranked by IoU.

        Raises:
            AssignerError: The class raises, or explains other pairs than it assigns.
        """
        iou = pairwise_iou(predictions.boxes_cxcywh, targets.boxes_cxcywh)
        num_layers, num_images, num_targets, num_queries = iou.shape
        rows = self.assign(predictions, targets, u)
        paired = mark_pairs(rows, (num_layers, num_images, num_targets, num_queries))
        if not hasattr(self.own, "explain"):
            return Explanation(
                score=iou,
                paired=paired,
                reason=(~paired).to(torch.uint8),
                reasons=(Reason("not_paired", "not paired"),),
                score_range=(0.0, 1.0),
            )
        explained = self._call("explain", lambda: self.own.explain(predictions, targets, u))
        if not isinstance(explained, Explanation):
            found = type(explained).__name__
            raise self._error("explain", f"must return an Explanation, got {found}")
        self._call("explain", lambda: self._check_explanation(explained, paired))
        return explained

    def _check_rows(self, rows: Assignment, predictions: Predictions, targets: Targets) -> None:
        columns = {name: getattr(rows, name) for name in (*_INDICES, "score", "valid")}
        wrong = [name for name, column in columns.items() if not isinstance(column, Tensor)]
        if wrong:
            raise self._error("assign", f"must return tensors, but {wrong[0]} is none")
        shapes = {name: list(column.shape) for name, column in columns.items()}
        if any(len(shape) != 1 or shape != shapes["layer"] for shape in shapes.values()):
            raise self._error("assign", f"must return vectors of one length, got {shapes}")
        for name, column in columns.items():
            expected = _DTYPES.get(name, torch.int64)
            if column.dtype != expected and not (name == "score" and column.is_floating_point()):
                raise self._error("assign", f"must return {name} as {expected}, got {column.dtype}")
        self._check_values(rows, columns, predictions, targets)

    def _check_values(
        self,
        rows: Assignment,
        columns: Mapping[str, Tensor],
        predictions: Predictions,
        targets: Targets,
    ) -> None:
        num_layers, num_images, num_queries, _ = predictions.logits.shape
        sizes = (num_layers, num_images, num_queries, targets.labels.shape[1])
        outside = [
            (columns[name] < 0) | (columns[name] >= size)
            for name, size in zip(_INDICES, sizes, strict=True)
        ]
        counts = targets.counts[rows.image.clamp(0, num_images - 1)]
        padding = rows.valid & (rows.target >= counts)
        # One copy to the host for all of them.
        flags = torch.stack([mask.any() for mask in (*outside, padding)]).tolist()
        for name, size, mask, is_wrong in zip(_INDICES, sizes, outside, flags[:-1], strict=True):
            if is_wrong:
                found = int(columns[name][mask][0])
                raise self._error("assign", f"must return {name} in 0..{size - 1}, got {found}")
        if flags[-1]:
            raise self._error("assign", "pairs a query with a padding target (see counts)")

    def _check_explanation(self, explained: Explanation, paired: Tensor) -> None:
        num_layers, num_images, num_targets, num_queries = paired.shape
        of_query = {**explained.query_columns, "capped": explained.capped}
        of_target = {**explained.target_columns, **explained.causes}
        expected = {
            **dict.fromkeys(("score", "paired", "reason"), tuple(paired.shape)),
            **dict.fromkeys(of_query, (num_layers, num_images, num_queries)),
            **dict.fromkeys(of_target, (num_layers, num_images, num_targets)),
        }
        for name, shape in expected.items():
            value = {**of_query, **of_target}.get(name, getattr(explained, name, None))
            if value is not None and tuple(value.shape) != shape:
                found = f"got {list(value.shape)}"
                raise self._error("explain", f"must return {name} as {list(shape)}, {found}")
        if not torch.equal(explained.paired.bool(), paired):
            raise self._error("explain", "names other pairs than assign does")
        if not torch.equal(explained.reason == 0, paired):
            raise self._error("explain", "must give pairs the reason 0, and no other query")
        if int(explained.reason.max()) > len(explained.reasons):
            raise self._error("explain", f"has no reason {int(explained.reason.max())}")
        self._check_texts(explained)

    def _check_texts(self, explained: Explanation) -> None:
        of_target = dict.fromkeys(explained.target_columns, 0)
        columns = {**dict.fromkeys(explained.query_columns, 0), **of_target}
        texts = [(explained.target_note, of_target)]
        texts += [(text, columns) for r in explained.reasons for text in (r.code, r.words)]
        for text, known in texts:
            try:
                text.format_map(known)
            except (KeyError, ValueError, IndexError) as error:
                message = f"has a text that names no column: {text!r}"
                raise self._error("explain", message) from error

    def _call(self, method: str, function: Callable[[], _T]) -> _T:
        try:
            return function()
        except MsdetrError:
            raise
        except Exception as error:
            raise self._error(method, _words(error)) from error

    def _error(self, method: str, message: str) -> AssignerError:
        return AssignerError(self.name, [Problem(method, message)])


def load_assigner(file: Path, class_name: str, options: Mapping[str, Any]) -> FileAssigner:
    """Read a file, and make an assigner of a class in it.

    The file is executed. Options are checked by the class's ``Options``, a pydantic model, if
    it has one; the class is then given an object of it, and keyword arguments otherwise.

    Args:
        file: Python file.
        class_name: Of a class in it, with a method ``assign``.
        options: For the class.

    Raises:
        AssignerError: Something about the file, the class or the options is wrong.
    """
    content = _read(file)
    module = _execute(file, content)
    made = getattr(module, class_name, None)
    if not isinstance(made, type):
        classes = [name for name, value in vars(module).items() if _is_own(value, module)]
        known = f"; its classes are {', '.join(classes)}" if classes else ""
        raise AssignerError(str(file), f"has no class {class_name}{known}")
    name = f"{file}: {class_name}"
    if not callable(getattr(made, "assign", None)):
        raise AssignerError(name, "has no method assign(predictions, targets, u)")
    return FileAssigner(name, sha256(content).hexdigest(), _make(name, made, options))


def digest_of(file: Path) -> str:
    """Return the SHA-256 of an assigner's file, without executing it.

    Raises:
        AssignerError: It cannot be read.
    """
    return sha256(_read(file)).hexdigest()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AssignerError(str(file), f"cannot be read: {error.strerror}") from error


def _execute(file: Path, content: bytes) -> ModuleType:
    # A name of its own: nothing that is imported elsewhere is replaced.
    module = ModuleType(f"_own_assigner_{sha256(content).hexdigest()[:16]}")
    module.__file__ = str(file)
    # Dataclasses and pydantic look the module up.
    sys.modules[module.__name__] = module
    try:
        exec(compile(content, str(file), "exec"), vars(module))  # noqa: S102 - what it is for
    except SyntaxError as error:
        where = "" if error.lineno is None else f" in line {error.lineno}"
        raise AssignerError(str(file), f"is no valid Python{where}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise AssignerError(str(file), f"cannot be imported: {_words(error)}") from error
    return module


def _is_own(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _make(name: str, made: type, options: Mapping[str, Any]) -> object:
    model = getattr(made, "Options", None)
    try:
        if isinstance(model, type) and issubclass(model, BaseModel):
            return made(model.model_validate(dict(options)))
        return made(**options)
    except ValidationError as error:
        raise AssignerError(
            name,
            [
                Problem(f"options.{'.'.join(map(str, detail['loc']))}", _expected(detail))
                for detail in error.errors(include_url=False)
            ],
        ) from error
    except Exception as error:
        raise AssignerError(name, f"options do not fit: {_words(error)}") from error


def _expected(detail: Mapping[str, Any]) -> str:
    given = "" if detail["type"] == "missing" else f", got {detail['input']!r}"
    return f"{detail['msg']}{given}"


def _words(error: BaseException) -> str:
    """Return kind and first line of an error, and the line of the user's file it comes from."""
    text = str(error).strip().splitlines()
    line = _last_line(error)
    where = f" (line {line})" if line else ""
    return f"{type(error).__name__}: {text[0] if text else 'without a message'}{where}"


def _last_line(error: BaseException) -> int | None:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("_own_assigner_"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
