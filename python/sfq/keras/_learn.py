"""What is learned from data: what a unit is worth, what the layer behind it becomes without it, and
the short training that takes a model back to the original's answers.

The decisions are the library's (sfq/prune.h); here are the statistics that it decides on, taken
from the gradients of activations, and the training loop. Everything works on the user's own model,
whose variables `compress` puts back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

import keras
import numpy as np
from keras import ops

from .. import _prune
from ._backend import Tape, compiled, stepper
from ._data import Data, Measure
from ._pack import Array
from ._units import (Group, Watch, _numpy, input_mask, kernel_from, matrix_of, rows_of,
                     shared_axes)

MEASURED = 16  # examples of a batch that statistics are taken of
TRAINED = 32   # of a training step
TEMPERATURE = 2.0

Report = Callable[[int, int], None]


@dataclass
class Statistics:
    """Of one group over the part of the data to learn from.

    Attributes:
        saliency: [units] half the sum over examples of the squared gradient of the unit's mask:
            what the loss grows by, to second order (docs/METHOD.md, "Saliency").
        gram: [inputs + 1, inputs + 1] moments of the consumer's inputs and a constant one, each
            token times the squared gradient at the consumer's output.
        energy: [inputs] mean square of each input.
        tokens: how many tokens count, (sum w)^2 / sum w^2.
    """

    saliency: Array
    gram: Array
    energy: Array
    tokens: float


class _Sums:
    def __init__(self, group: Group) -> None:
        self.group = group
        k = matrix_of(group.consumer.layer, _numpy(group.consumer.layer.kernel)).shape[0]
        self.saliency = np.zeros(group.count)
        self.gram = np.zeros((k + 1, k + 1))
        self.energy = np.zeros(k)
        self.rows, self.weight, self.square = 0, 0.0, 0.0

    def add(self, x: Array, dx: Optional[Array], dy: Optional[Array], examples: int) -> None:
        """x: the consumer's input for a batch; its gradient, that of the output, or None for 0."""
        layer, side = self.group.consumer.layer, self.group.consumer
        x = x.astype(np.float64)
        if dx is not None:
            each = np.moveaxis(x * dx, side.tensor, -1)
            parts = len(each) // examples if len(each) % examples == 0 else 1
            per = each.reshape(len(each) // parts, -1, self.group.count).sum(1)
            self.saliency += 0.5 * np.square(per).sum(0)
        rows = rows_of(layer, x)
        w = None if dy is None else shared_axes(layer, np.square(dy.astype(np.float64)))
        if w is None or w.shape != rows.shape[:-1]:
            w = np.ones(rows.shape[:-1])
        rows, w = rows.reshape(-1, rows.shape[-1]), w.reshape(-1)
        self.energy += np.square(rows).sum(0)
        self.rows += len(rows)
        wide = np.concatenate([rows, np.ones((len(rows), 1))], 1)
        self.gram += wide.T @ (wide * w[:, None])
        self.weight += float(w.sum())
        self.square += float(np.square(w).sum())

    def result(self) -> Statistics:
        scale = self.rows / self.weight if self.weight > 0 else 1.0
        tokens = self.weight ** 2 / self.square if self.square > 0 else 1.0
        return Statistics(self.saliency, self.gram * scale, self.energy / max(1, self.rows), tokens)


def _assign(variable: Any, value: Array) -> None:
    variable.assign(value.astype(keras.backend.standardize_dtype(variable.dtype)))


class Lesson:
    """A model, data, and the answers that the original gave to them."""

    def __init__(self, model: Any, data: Data, answers: Any, measure: Measure, seed: int) -> None:
        self.model, self.data, self.answers, self.measure = model, data, answers, measure
        self.tune, self.held = data.split(seed)
        self._seed = seed
        self._distance = compiled(
            lambda x, t: measure.apart(t, model(x, training=False)))

    def _taken(self, index: Array) -> Any:
        return keras.tree.map_structure(lambda y: ops.convert_to_tensor(y[index]), self.answers)

    def loss(self, distance: Optional[Callable[..., Any]] = None) -> float:
        """The mean distance from the original's answers on the part that decides."""
        total = 0.0
        for part, batch in self.data.batches(self.held, TRAINED):
            wide = np.resize(part, len(keras.tree.flatten(batch)[0]))
            each = _numpy((distance or self._distance)(_tensors(batch), self._taken(wide)))
            total += float(each[:len(part)].astype(np.float64).sum())
        return total / len(self.held)

    def statistics(self, groups: list[Group], report: Report) -> list[Statistics]:
        """One pass of the model and back, on the part to learn from."""
        if not groups:
            return []
        sums = [_Sums(group) for group in groups]
        rng = np.random.default_rng(self._seed)
        done = 0
        for part, batch in self.data.batches(self.tune, MEASURED):
            wide = np.resize(part, len(keras.tree.flatten(batch)[0]))
            drawn = self.measure.draw(
                keras.tree.map_structure(lambda y: y[wide], self.answers), rng)
            for w in drawn:
                w[len(part):] = 0
            self._derive(sums, batch, drawn, len(wide), len(part))
            done += len(part)
            report(done, len(self.tune))
        return [one.result() for one in sums]

    def _derive(self, sums: list[_Sums], batch: Any, drawn: list[Array], size: int,
                counted: int) -> None:
        tape = Tape()
        seen: list[tuple[Any, Any]] = []

        def watch(call: Any, x: Any) -> Any:
            x = tape.watch(x)
            y = tape.watch(call(x))
            seen.append((x, y))
            return y

        order: list[_Sums] = []

        def watcher(one: _Sums) -> Callable[..., Any]:
            def note(call: Any, x: Any) -> Any:
                order.append(one)
                return watch(call, x)
            return note

        with Watch() as patched:
            for one in sums:
                patched.set(one.group.consumer.layer, watcher(one))
            value = tape.run(lambda: self.measure.probe(
                self.model(batch, training=False), drawn))
        found = tape.gradients(value, [t for pair in seen for t in pair])
        for i, one in enumerate(order):
            x = _numpy(ops.stop_gradient(seen[i][0]))
            ends = len(x) * counted // size
            dx, dy = (None if g is None else _numpy(g)[:ends] for g in found[2 * i:2 * i + 2])
            one.add(x[:ends], dx, dy, counted)

    # ---- training --------------------------------------------------------------------------------

    def distill(self, model: Any, variables: list[Any], masks: list[Any], steps: int, rate: float,
                report: Report) -> tuple[float, float]:
        """Trains variables of a model (with the inputs of this lesson's) to give the original's
        answers; they end at the best that the held-out part saw, which may be where they started.

        Returns: the held-out loss before and after.
        """
        distance = self._distance if model is self.model else compiled(
            lambda x, t: self.measure.apart(t, model(x, training=False)))
        before = best = self.loss(distance)
        if not variables or steps < 1:
            return before, before
        warm = max(1, steps // 20)
        schedule = keras.optimizers.schedules.CosineDecay(
            rate / warm, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)
        step = stepper(
            lambda x, t: ops.mean(self.measure.apart(t, model(x, training=False), TEMPERATURE)),
            variables, masks, keras.optimizers.Adam(schedule, global_clipnorm=1.0))
        kept = [_numpy(v).copy() for v in variables]
        every = max(1, -(-steps // 10))
        for i, index in enumerate(self._order(steps)):
            step(_tensors(self.data.take(index)), self._taken(index))
            if (i + 1) % every == 0 or i + 1 == steps:
                now = self.loss(distance)
                if now < best:
                    best, kept = now, [_numpy(v).copy() for v in variables]
            report(i + 1, steps)
        for v, value in zip(variables, kept):
            v.assign(value)
        return before, best

    def _order(self, steps: int) -> Iterable[Array]:
        """Batches of one size, in passes over the part to learn from."""
        rng = np.random.default_rng(self._seed + 1)
        size = min(TRAINED, len(self.tune))
        left = np.empty(0, np.int64)
        for _ in range(steps):
            if len(left) < size:
                left = np.concatenate([left, rng.permutation(self.tune)])
            yield left[:size]
            left = left[size:]


def _tensors(batch: Any) -> Any:
    return keras.tree.map_structure(
        lambda x: ops.convert_to_tensor(x) if x.dtype.kind in "biuf" else x, batch)


# ---- pruning -------------------------------------------------------------------------------------


def choose(groups: list[Group], found: list[Statistics], share: float) -> list[Array]:
    """Which units of each group stay."""
    kept = _prune.choose(
        np.concatenate([one.saliency for one in found]),
        np.concatenate([np.full(g.count, g.cost, np.uint64) for g in groups]),
        np.concatenate([np.full(g.count, i, np.uint32) for i, g in enumerate(groups)]),
        [1 if g.kind == "heads" else 16 for g in groups],
        [1 if g.kind == "heads" else 0 for g in groups], share)
    ends = np.cumsum([g.count for g in groups])
    return np.split(kept, ends[:-1])


def silence(group: Group, keep: Array) -> None:
    """Sets the weights that read the units that go to zero: the same answers as without them."""
    layer = group.consumer.layer
    kernel = _numpy(layer.kernel).copy()
    matrix = matrix_of(layer, kernel) * input_mask(group, keep)[:, None]
    _assign(layer.kernel, kernel_from(layer, matrix, kernel.shape))


def refit(group: Group, found: Statistics, keep: Array) -> tuple[Array, Optional[Array]]:
    """Kernel and bias of the consumer whose outputs miss least of what they were; of the weights
    as they were before the cut."""
    layer = group.consumer.layer
    kernel = _numpy(layer.kernel)
    w = matrix_of(layer, kernel).T.astype(np.float32)
    n, k = w.shape
    bias = None if layer.bias is None else _numpy(layer.bias)
    whole = bias is not None and bias.size == n
    gram, mask = found.gram, input_mask(group, keep)
    if whole:
        assert bias is not None
        w, mask = np.concatenate([w, bias.reshape(n, 1)], 1), np.append(mask, True)
    else:
        gram = gram[:k, :k]
    ridge = float(np.clip(k / max(found.tokens, 1.0), 0.01, 1.0))
    fitted = _prune.refit(gram, w, mask, ridge, 1 if whole else 0)
    full = np.zeros_like(w)
    full[:, mask] = fitted
    if whole:
        assert bias is not None
        bias = full[:, k].reshape(bias.shape)
    return kernel_from(layer, full[:, :k].T, kernel.shape), bias


def cut(value: Array, keep: Array, axis: int) -> Array:
    """A kernel or bias without the units that go."""
    return np.take(value, np.flatnonzero(keep), axis=axis)
