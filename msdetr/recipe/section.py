"""Base class and field types of the recipe sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

UNIT = "unit"
"""Key of a field's unit in the JSON schema."""


class Section(BaseModel):
    """One mapping of a recipe: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _path_from_text(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    try:
        return Path(value).expanduser()
    except RuntimeError:  # no user of that name: a folder may be called ``~name``
        return Path(value)


FilePath = Annotated[Path, BeforeValidator(_path_from_text)]
"""A path, written as text in YAML; relative paths start at the working directory, ``~`` is home."""

Pixels = Annotated[int, Field(json_schema_extra={UNIT: "px"})]
Images = Annotated[int, Field(json_schema_extra={UNIT: "images"})]
Detections = Annotated[int, Field(json_schema_extra={UNIT: "detections"})]
Queries = Annotated[int, Field(json_schema_extra={UNIT: "queries"})]
Width = Annotated[int, Field(json_schema_extra={UNIT: "channels"})]
Epochs = Annotated[int, Field(json_schema_extra={UNIT: "epochs"})]
Steps = Annotated[int, Field(json_schema_extra={UNIT: "optimizer steps"})]
Seconds = Annotated[float, Field(json_schema_extra={UNIT: "s"})]

SidePx = Annotated[Pixels, Field(ge=32, le=10_000)]
"""Side of an image in pixels; below 32 the coarsest backbone map would be empty."""

Weight = Annotated[float, Field(ge=0)]
"""Factor of a cost or of a loss term."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""Number from 0 to 1, both included."""
