"""Finding the first tensor of a step that is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

Stage = Literal["weights", "forward", "loss", "gradient"]


@dataclass(frozen=True)
class NonFinite:
    """A tensor that is not finite.

    Attributes:
        stage: Where in the step it was computed; "weights" were so before the step.
        module: Dotted path of the module, or name of the loss term; empty for the whole model.
        what: Which of its tensors.
        shape: Of the tensor.
        num_nan: Number of NaN values.
        num_infinite: Number of infinite values.
    """

    stage: Stage
    module: str
    what: str
    shape: tuple[int, ...]
    num_nan: int
    num_infinite: int

    @classmethod
    def of(cls, stage: Stage, module: str, what: str, tensor: Tensor) -> NonFinite | None:
        """Describe a tensor; None if it is finite."""
        if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
            return None
        num_nan, num_infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        return cls(stage, module, what, tuple(tensor.shape), num_nan, num_infinite)

    def __str__(self) -> str:
        """One line."""
        of = f" of {self.module}" if self.module else ""
        shape = " x ".join(map(str, self.shape)) or "scalar"
        return (
            f"{self.stage}: {self.what}{of} ({shape}): {self.num_nan} nan, "
            f"{self.num_infinite} infinite values"
        )


class NonFiniteWatch:
    """Looks at everything that a model's modules take, return and get gradients of.

    Modules are looked at from the inside, so that the innermost one is named. What a module
    computes between two of its parts is found as the input of the second and named as the
    outer module's.

    Args:
        model: The model to watch.

    Attributes:
        first: The first tensor found that is not finite, or None.
    """

    def __init__(self, model: nn.Module) -> None:
        self.first: NonFinite | None = None
        self._model = model
        self._path: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch forward and backward passes inside the ``with`` block."""
        handles: list[RemovableHandle] = []
        for name, module in self._model.named_modules():
            enter = partial(self._enter, name)
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(partial(self._leave, name)))
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                look = partial(self._look_at_gradient, name)
                hook = parameter.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
                handles.append(hook)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._path.clear()

    def look(self, stage: Stage, module: str, what: str, tensor: Tensor) -> None:
        """Look at a tensor unless one was found before."""
        if self.first is None:
            self.first = NonFinite.of(stage, module, what, tensor.detach())

    def look_at_losses(self, terms: Mapping[str, Tensor], total: Tensor) -> None:
        """Look at the loss terms, then at their weighted total."""
        for name, value in terms.items():
            self.look("loss", name, "value", value)
        self.look("loss", "the weighted total", "value", total)

    def _enter(
        self, name: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        outer = self._path[-1] if self._path else ""
        for tensor in _tensors((arguments, named)):
            self.look("forward", outer, f"what goes into {name or 'the model'}", tensor)
        self._path.append(name)

    def _leave(self, name: str, _: nn.Module, __: object, output: object) -> None:
        self._path.pop()
        for tensor in _tensors(output):
            self.look("forward", name, "output", tensor)
            if tensor.requires_grad:
                look = partial(self._look_at_output_gradient, name)
                tensor.register_hook(look)  # type: ignore[no-untyped-call]

    def _look_at_output_gradient(self, name: str, gradient: Tensor) -> None:
        self.look("gradient", name, "gradient of the output", gradient)

    def _look_at_gradient(self, name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            module, _, own = name.rpartition(".")
            self.look("gradient", module, f"gradient of {own}", parameter.grad)


def find_bad_weights(model: nn.Module) -> list[NonFinite]:
    """List parameters and buffers that are not finite."""
    found = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        module, _, own = name.rpartition(".")
        bad = NonFinite.of("weights", module, own, tensor.detach())
        if bad is not None:
            found.append(bad)
    return found


def find_in_norm(model: nn.Module) -> NonFinite | None:
    """Look at the norm of the whole gradient, which may overflow where no part of it does."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return NonFinite.of("gradient", "", "norm of all gradients", norm)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
