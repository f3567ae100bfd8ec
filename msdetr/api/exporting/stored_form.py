"""What an exported file says of itself, checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msdetr.api.exporting.inputs import StretchTransform
from msdetr.api.exporting.metadata import METADATA_VERSION
from msdetr.data.batching import Collator
from msdetr.data.labels import LabelSpace
from msdetr.data.transforms import EvalTransform
from msdetr.errors import CheckpointError, Problem
from msdetr.export.runners import StoredProgram

_Side = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]
_Triple = tuple[float, float, float]
_Detected = tuple[Literal["scores"], Literal["labels"], Literal["boxes"]]
_Raw = tuple[Literal["logits"], Literal["boxes"]]
_NOT_OURS = "was not written by `msdetr export`: it has no metadata of its classes and inputs"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _AnySize(_Part):
    short_side: _Side
    long_side: _Side


class _OneSize(_Part):
    height: _Side
    width: _Side


class _Preprocessing(_Part):
    channels: Literal["RGB"]
    resize: _AnySize | _OneSize
    mean: _Triple
    std: tuple[_Positive, _Positive, _Positive]
    pad_multiple: _Side
    strides: Annotated[tuple[_Side, ...], Field(min_length=1)]
    least_side: _Side
    least_cells: _Side


class StoredForm(_Part):
    """What the metadata of an exported file say, as ``describe_export`` writes them.

    Attributes:
        class_names: K names, by label.
        category_ids: K ids, by label.
        preprocessing: What images become before the file is given them.
        outputs: Names of the outputs, in order.
        detections: Detections per image; None if the outputs are raw.
        recipe: The resolved recipe, as plain values.
    """

    metadata_version: Literal[1]
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    category_ids: tuple[int, ...]
    preprocessing: _Preprocessing
    outputs: _Detected | _Raw
    detections: _Side | None
    recipe: dict[str, Any]

    @property
    def static_hw(self) -> tuple[int, int] | None:
        """Height and width in pixels that every input has; None for inputs of any size."""
        resize = self.preprocessing.resize
        return (resize.height, resize.width) if isinstance(resize, _OneSize) else None

    @property
    def resize(self) -> EvalTransform | StretchTransform:
        """The resize of images."""
        resize = self.preprocessing.resize
        if isinstance(resize, _OneSize):
            return StretchTransform((resize.height, resize.width))
        return EvalTransform(size=resize.short_side, max_size=resize.long_side)

    @property
    def collator(self) -> Collator:
        """What turns resized images into inputs; those of one fixed size are never padded."""
        told = self.preprocessing
        is_static = self.static_hw is not None
        return Collator(
            mean=told.mean,
            std=told.std,
            min_cells=1 if is_static else told.least_cells,
            strides=told.strides,
            pad_multiple=1 if is_static else told.pad_multiple,
        )

    @property
    def label_space(self) -> LabelSpace:
        """The classes; labels that no category uses are left out.

        Raises:
            ValueError: Names and ids do not fit together.
        """
        count = len(self.class_names)
        named = list(zip(self.category_ids, self.class_names, strict=True))
        if self.recipe["data"]["label_space"] == "coco91":
            named = [(id_, name) for id_, name in named if name != f"unused_{id_}"]
        return LabelSpace(tuple(id_ for id_, _ in named), tuple(name for _, name in named), count)


def read_form(program: StoredProgram, path: Path) -> StoredForm:
    """Read what a file says of itself.

    Raises:
        CheckpointError: It is not ours, of a later release, or its metadata do not fit it.
    """
    found = program.metadata
    version = found.get("metadata_version")
    if version is None:
        raise CheckpointError(str(path), _NOT_OURS)
    if isinstance(version, int) and version > METADATA_VERSION:
        reads = f"this release reads up to {METADATA_VERSION}; update the package"
        raise CheckpointError(str(path), f"has metadata version {version}, but {reads}")
    try:
        form = StoredForm.model_validate(found)
    except ValidationError as error:
        raise CheckpointError(str(path), _problems(error)) from error
    mismatches = [*_misfits(form, program.input_shapes), *_misfit_of_classes(form)]
    if mismatches:
        raise CheckpointError(str(path), mismatches)
    return form


def _problems(error: ValidationError) -> list[Problem]:
    return [
        Problem(".".join(["metadata", *map(str, entry["loc"])]), entry["msg"])
        for entry in error.errors(include_url=False)
    ]


def _misfits(form: StoredForm, shapes: Mapping[str, tuple[int | None, ...]]) -> list[Problem]:
    """Compare the file's inputs with those that its metadata speak of."""
    hw = form.static_hw
    expected: dict[str, tuple[int | None, ...]]
    if hw is None:
        expected = {"pixels": (None, 3, None, None), "padding_mask": (None, None, None)}
    else:
        batch = next(iter(shapes.get("pixels", ())), None)
        expected = {"pixels": (batch, 3, *hw)}
    if dict(shapes) == expected:
        return []
    said, has = _shown(expected), _shown(shapes)
    return [Problem("inputs", f"the metadata speak of {said}, but the file has {has}")]


def _shown(shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    texts = (
        f"{name} {' x '.join('any' if side is None else str(side) for side in shape)}"
        for name, shape in shapes.items()
    )
    return ", ".join(texts)


def _misfit_of_classes(form: StoredForm) -> list[Problem]:
    try:
        space = form.label_space
    except (ValueError, KeyError, TypeError) as error:
        return [Problem("metadata.class_names", f"do not fit: {error}")]
    return [] if space.names else [Problem("metadata.class_names", "name no class")]
