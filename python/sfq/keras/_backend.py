"""Derivatives, which Keras leaves to its backend: TensorFlow's tape or PyTorch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from .. import errors


def check() -> None:
    """UnsupportedError on a backend without derivatives here."""
    name = keras.backend.backend()
    if name not in ("tensorflow", "torch"):
        raise errors.UnsupportedError(
            f"sfq.keras.compress works on the TensorFlow and the torch backend, not on {name}: set "
            "KERAS_BACKEND=tensorflow or torch before Keras is imported", "E_UNSUPPORTED")


class Tape:
    """Gradients of a number with respect to tensors inside of what computes it.

        tape = Tape()
        value = tape.run(lambda: f(tape.watch(x)))
        grads = tape.gradients(value, [x])
    """

    def __init__(self) -> None:
        self._tape: Any = None

    def watch(self, x: Any) -> Any:
        """x, from here on differentiated with respect to; use what comes back."""
        if keras.backend.backend() == "torch":
            return x if x.requires_grad else x.detach().requires_grad_(True)
        self._tape.watch(x)
        return x

    def run(self, function: Callable[[], Any]) -> Any:
        if keras.backend.backend() == "torch":
            import torch
            with torch.enable_grad():
                return function()
        import tensorflow
        with tensorflow.GradientTape() as self._tape:
            return function()

    def gradients(self, value: Any, tensors: list[Any]) -> list[Any]:
        """None for a tensor that the value does not depend on."""
        if keras.backend.backend() == "torch":
            import torch
            return list(torch.autograd.grad(value, tensors, allow_unused=True))
        return list(self._tape.gradient(value, tensors))


def _gradients(function: Callable[[], Any], variables: list[Any]) -> tuple[Any, list[Any]]:
    tape = Tape()
    value = tape.run(function)
    if keras.backend.backend() == "torch":
        return value.detach(), tape.gradients(value, [v.value for v in variables])
    return value, tape.gradients(value, [v.value for v in variables])


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors, without derivatives, as fast as the backend runs it."""
    if keras.backend.backend() == "torch":
        import torch
        quiet: Callable[..., Any] = torch.no_grad()(function)
        return quiet
    import tensorflow
    graph: Callable[..., Any] = tensorflow.function(function, autograph=False)
    return graph


def stepper(loss: Callable[..., Any], variables: list[Any], masks: list[Any],
            optimizer: Any) -> Callable[..., Any]:
    """step(*tensors) -> loss: one step of the optimizer. masks: one for each variable, or None:
    where it is 0 the variable stays."""
    optimizer.build(variables)

    def step(*tensors: Any) -> Any:
        value, grads = _gradients(lambda: loss(*tensors), variables)
        found = [ops.zeros_like(v) if g is None else g if m is None else g * m
                 for v, g, m in zip(variables, grads, masks)]
        optimizer.apply(found, variables)
        return value

    if keras.backend.backend() == "torch":
        return step
    import tensorflow
    graph: Callable[..., Any] = tensorflow.function(step, autograph=False)
    return graph
