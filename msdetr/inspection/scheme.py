"""What a trace keeps of an assigner that cannot be repeated from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from msdetr.structures import Explanation, Reason

_MASKS = ("paired", "reason")


@dataclass(frozen=True)
class StoredScheme:
    """An assigner as plain values; the images of its trace hold its explanations.

    Attributes:
        section: The recipe's section, with its ``type``.
        description: Settings in one line.
        reasons: As in ``Explanation``, like the fields below.
        score_range: Likewise.
        target_note: Likewise.
        query_columns: Names.
        target_columns: Names.
        causes: Names.
    """

    section: dict[str, Any]
    description: str
    reasons: tuple[Reason, ...]
    score_range: tuple[float, float] | None
    target_note: str
    query_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    causes: tuple[str, ...]

    @classmethod
    def of(
        cls, section: Mapping[str, Any], description: str, explanation: Explanation
    ) -> StoredScheme:
        """Keep what all explanations of an assigner have in common."""
        return cls(
            section=dict(section),
            description=description,
            reasons=explanation.reasons,
            score_range=explanation.score_range,
            target_note=explanation.target_note,
            query_columns=tuple(explanation.query_columns),
            target_columns=tuple(explanation.target_columns),
            causes=tuple(explanation.causes),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoredScheme:
        """Read what :meth:`to_dict` gave.

        Raises:
            LookupError, TypeError, ValueError: If it is something else.
        """
        scheme = cls(**{key: value for key, value in values.items() if key != "type"})
        low_high = scheme.score_range
        return replace(
            scheme,
            reasons=tuple(Reason(**entry) for entry in values["reasons"]),
            score_range=None if low_high is None else (float(low_high[0]), float(low_high[1])),
            query_columns=tuple(scheme.query_columns),
            target_columns=tuple(scheme.target_columns),
            causes=tuple(scheme.causes),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, tagged by ``type``."""
        return {"type": self.type, **asdict(self)}

    @property
    def type(self) -> str:
        """Name of the scheme in recipes."""
        return str(self.section["type"])

    @property
    def name(self) -> str:
        """What readers know it by: its type, or the class in a file of their own."""
        return str(self.section.get("class", self.type))

    def describe(self) -> str:
        """Return the settings in one line."""
        return self.description


def tensors_of(explanation: Explanation) -> dict[str, Tensor]:
    """Name the tensors of an explanation, so that :func:`explanation_from` finds them again."""
    tensors = {
        "score": explanation.score.float(),
        **{name: getattr(explanation, name).to(torch.uint8) for name in _MASKS},
        **{f"query.{name}": value for name, value in explanation.query_columns.items()},
        **{f"target.{name}": value for name, value in explanation.target_columns.items()},
        **{f"cause.{name}": value for name, value in explanation.causes.items()},
    }
    if explanation.capped is not None:
        tensors["capped"] = explanation.capped
    return {name: value.contiguous() for name, value in tensors.items()}


def explanation_from(
    tensors: Mapping[str, Tensor], scheme: StoredScheme, sizes: Mapping[str, int]
) -> Explanation:
    """Put an explanation of one image together again.

    Args:
        tensors: What :func:`tensors_of` gave.
        scheme: Of the trace.
        sizes: N, T and Q.

    Raises:
        LookupError, ValueError: Something is missing, or has another shape or value than it must.
    """
    layers, targets, queries = sizes["N"], sizes["T"], sizes["Q"]

    def read(name: str, *shape: int) -> Tensor:
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, expected {shape}")
        return tensors[name]

    reason = read("reason", layers, targets, queries)
    if reason.numel() and int(reason.max()) > len(scheme.reasons):
        raise ValueError(f"reason {int(reason.max())} does not exist")
    return Explanation(
        score=read("score", layers, targets, queries),
        paired=read("paired", layers, targets, queries).bool(),
        reason=reason,
        reasons=scheme.reasons,
        score_range=scheme.score_range,
        query_columns={n: read(f"query.{n}", layers, queries) for n in scheme.query_columns},
        target_columns={n: read(f"target.{n}", layers, targets) for n in scheme.target_columns},
        causes={n: read(f"cause.{n}", layers, targets).bool() for n in scheme.causes},
        capped=read("capped", layers, queries).bool() if "capped" in tensors else None,
        target_note=scheme.target_note,
    )


def of_image(explanation: Explanation, num_targets: int) -> Explanation:
    """Take the image dimension from the explanation of a single image, and leave out padding.

    Args:
        explanation: With B = 1.
        num_targets: Targets of the image.
    """

    def pairs(value: Tensor) -> Tensor:
        return value[:, 0, :num_targets].cpu().contiguous()

    def queries(value: Tensor) -> Tensor:
        return value[:, 0].cpu().contiguous()

    return replace(
        explanation,
        score=pairs(explanation.score),
        paired=pairs(explanation.paired),
        reason=pairs(explanation.reason),
        query_columns={n: queries(value) for n, value in explanation.query_columns.items()},
        target_columns={n: pairs(value) for n, value in explanation.target_columns.items()},
        causes={n: pairs(value) for n, value in explanation.causes.items()},
        capped=None if explanation.capped is None else queries(explanation.capped),
    )
