"""What a model is compressed on: inputs, split into a part to learn from and a part that decides,
and how far the answers of two models are apart. Labels are never looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional, Union

import keras
import numpy as np
from keras import ops

from .. import errors
from ._layers import refuse
from ._pack import Array

Loss = Union[str, Callable[[Any, Any], Any]]
KINDS = ("auto", "logits", "probabilities", "mse")


def _bad(what: str) -> errors.DataError:
    return errors.DataError(f"sfq.keras: data: {what}", "E_DATA")


def _arrays(item: Any) -> Any:
    """The inputs of a batch as NumPy arrays; of a tuple the first, as Keras reads it."""
    if isinstance(item, tuple):
        if not item:
            raise _bad("a batch is an empty tuple")
        item = item[0]
    return keras.tree.map_structure(lambda x: np.asarray(
        x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)), item)


def _is_one(data: Any) -> bool:
    """Arrays as they are, rather than something that yields batches of them."""
    if isinstance(data, Mapping):
        return True
    if isinstance(data, tuple):
        return bool(data) and (hasattr(data[0], "shape") or _is_one(data[0]))
    if isinstance(data, list):
        return bool(data) and all(hasattr(x, "shape") for x in data)
    return hasattr(data, "shape")


class Data:
    """Inputs of a model: an array, or a list or dict of them, alike in their first axis."""

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs
        arrays = keras.tree.flatten(inputs)
        sizes = {len(x) if x.ndim else 0 for x in arrays}
        if len(sizes) != 1:
            raise _bad(f"its arrays have {sorted(sizes)} examples; expected the same number"
                       if sizes else "it holds no array")
        self.count = sizes.pop()
        for x in arrays:
            if x.dtype == object or x.dtype.kind == "c":
                raise _bad(f"an array is {x.dtype}; expected numbers or strings of one shape")
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise _bad("a value is not finite")

    @classmethod
    def read(cls, data: Any) -> Data:
        """data: arrays, (inputs, labels) or an iterable of batches of these.

        Raises:
            DataError: no examples, or arrays that do not fit together.
        """
        if isinstance(data, (str, bytes)):
            raise _bad(f"{data!r} is text; expected the model's inputs as arrays")
        if _is_one(data):
            return cls(_arrays(data))
        try:
            items = (data if not isinstance(data, keras.utils.PyDataset)
                     else (data[i] for i in range(len(data))))
            batches = [_arrays(item) for item in items]
        except TypeError as reason:
            raise _bad(f"{type(data).__name__} holds no batches: {reason}") from None
        if not batches:
            raise _bad("there are no examples in it")
        try:
            return cls(keras.tree.map_structure(lambda *x: np.concatenate(x), *batches))
        except ValueError as reason:
            raise _bad(f"its batches do not fit together: {reason}") from None

    def take(self, index: Array) -> Any:
        return keras.tree.map_structure(lambda x: x[index], self.inputs)

    def batches(self, index: Array, size: int) -> Iterator[tuple[Array, Any]]:
        """Batches of one size: the last is filled up with its own first examples; the index that
        comes along has the examples that count."""
        for at in range(0, len(index), size):
            part = index[at:at + size]
            yield part, self.take(np.resize(part, min(size, len(index))))

    def split(self, seed: int) -> tuple[Array, Array]:
        """Indices to learn from, and a fifth to decide by."""
        order = np.random.default_rng(seed).permutation(self.count)
        held = max(1, self.count // 5)
        return np.sort(order[held:]), np.sort(order[:held])


# ---- how far answers are apart -------------------------------------------------------------------


def _kind_of(y: Array) -> str:
    if y.ndim >= 2 and y.min() >= 0 and y.max() <= 1:
        if y.shape[-1] == 1:
            return "probabilities"
        if np.abs(y.astype(np.float64).sum(-1) - 1).max() < 1e-2:
            return "probabilities"
    return "mse"


def _compiled(model: Any) -> Optional[str]:
    """What the loss that a model was compiled with says of its outputs."""
    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    name = loss if isinstance(loss, str) else getattr(loss, "name", "")
    if not isinstance(name, str) or "crossentropy" not in name:
        return None
    config = {} if isinstance(loss, str) or loss is None else loss.get_config()
    return "logits" if config.get("from_logits") else "probabilities"


class Measure:
    """The distance of a model's answers from the original's.

    Args:
        loss: "logits", "probabilities": the Kullback-Leibler divergence in nats of what the answers
            say (one column: of two classes); "mse": the squared error; "auto": by the loss that the
            model was compiled with, else by what the answers look like; or a function of the
            original's answers and the model's that gives a loss for each example.
        answers: the original's, in the model's structure.
    """

    def __init__(self, loss: Loss, model: Any, answers: Any) -> None:
        if not callable(loss) and loss not in KINDS:
            raise refuse(f"loss is {loss!r}; it must be a function or one of {', '.join(KINDS)}")
        self._function = loss if callable(loss) else None
        flat = keras.tree.flatten(answers)
        if callable(loss):
            self.kinds = ["mse"] * len(flat)
        elif loss == "auto":
            known = _compiled(model)
            self.kinds = [known or _kind_of(y) for y in flat]
        else:
            self.kinds = [loss] * len(flat)

    def _scores(self, y: Any, kind: str) -> Any:
        """float32 [..., classes] whose softmax are the probabilities."""
        y = ops.cast(y, "float32")
        if kind == "mse":
            return y
        if kind == "probabilities":
            y = ops.clip(y, 1e-7, 1.0)
            if y.shape[-1] != 1:
                return ops.log(y)
            y = ops.log(y) - ops.log(ops.clip(1 - y, 1e-7, 1.0))
        return ops.concatenate([ops.zeros_like(y), y], axis=-1) if y.shape[-1] == 1 else y

    def apart(self, original: Any, answers: Any, temperature: float = 1.0) -> Any:
        """[examples], float32."""
        if self._function is not None:
            loss = ops.cast(self._function(original, answers), "float32")
            return _each(loss)
        total = None
        for t, s, kind in zip(keras.tree.flatten(original), keras.tree.flatten(answers),
                              self.kinds):
            t, s = self._scores(t, kind), self._scores(s, kind)
            if kind == "mse":
                loss = ops.square(t - s)
            else:
                t, s = ops.log_softmax(t / temperature), ops.log_softmax(s / temperature)
                loss = ops.sum(ops.exp(t) * (t - s), axis=-1) * temperature ** 2
            loss = _each(loss)
            total = loss if total is None else total + loss
        return total

    def probe(self, answers: Any, weights: list[Any]) -> Any:
        """A sum whose gradient for each example is a draw with the Fisher information as its
        second moment; weights are those of `draw`."""
        total = None
        for y, w, kind in zip(keras.tree.flatten(answers), weights, self.kinds):
            y = self._scores(y, kind)
            y = y if kind == "mse" else ops.log_softmax(y)
            part = ops.sum(y * ops.convert_to_tensor(w))
            total = part if total is None else total + part
        return total

    def draw(self, answers: Any, rng: np.random.Generator) -> list[Array]:
        """For each output: one label drawn from what it says; for two classes the expectation over
        both in closed form; for numbers a normal draw."""
        drawn = []
        for y, kind in zip(keras.tree.flatten(answers), self.kinds):
            z = np.asarray(ops.convert_to_numpy(self._scores(ops.convert_to_tensor(y), kind)),
                           np.float64)
            if kind == "mse":
                w = rng.standard_normal(z.shape)
            else:
                p = np.exp(z - z.max(-1, keepdims=True))
                p /= p.sum(-1, keepdims=True)
                if p.shape[-1] == 2:
                    root = np.sqrt(p[..., :1] * p[..., 1:])
                    w = np.concatenate([-root, root], -1)
                    if p.ndim > 2:  # one sign for each token, so that tokens do not add up
                        w *= rng.choice([-1.0, 1.0], (*p.shape[:-1], 1))
                else:
                    at = (p.cumsum(-1) < rng.random((*p.shape[:-1], 1))).sum(-1)
                    w = np.eye(p.shape[-1])[np.minimum(at, p.shape[-1] - 1)]
            drawn.append(w.astype(np.float32))
        return drawn


def _each(loss: Any) -> Any:
    """The mean of each example."""
    return loss if len(loss.shape) < 2 else ops.mean(loss, axis=tuple(range(1, len(loss.shape))))
