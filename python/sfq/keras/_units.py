"""Which units a Keras model has that can be cut: heads of an attention, neurons between two layers.

Nothing is known of the model but the layers that multiply. What hangs together is found by trying:
the outputs of one layer (a producer) are disturbed in half of its units, and the inputs of all the
others are watched while the model runs on a few examples. Units can be cut where

  - a layer behind it (the consumer) sees a change in just those units, whatever lies between:
    activations, gates, dropout, softmax over tokens;
  - nothing else sees any change while that layer is given its input of before;
  - with all its producers at zero, its input is the same for all examples and tokens;
  - the code between runs on fewer units.

So dense-activation-dense, gated and attention blocks are recognised however they are written, and
what is not recognised stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Optional

import keras
import numpy as np
from keras import ops

from ._layers import is_plain, kernel_axes
from ._pack import Array


@dataclass(frozen=True)
class Side:
    """Where the units of a layer are.

    Attributes:
        tensor: the axis of its input or output, from the end (negative).
        kernel: the axis of its kernel.
    """

    layer: Any
    tensor: int
    kernel: int


@dataclass
class Group:
    """Units that one consumer reads and that go together from all its producers.

    Attributes:
        name: of the consumer.
        kind: "heads" or "neurons".
        consumer: reads them.
        producers: make them; their biases go too.
        count: how many units.
    """

    name: str
    kind: str
    consumer: Side
    producers: list[Side]
    count: int

    @property
    def cost(self) -> int:
        """Parameters of one unit."""
        total = int(np.prod(self.consumer.layer.kernel.shape)) // self.count
        for side in self.producers:
            total += int(np.prod(side.layer.kernel.shape)) // self.count
            if bias_axis(side) is not None:
                total += int(np.prod(side.layer.bias.shape)) // self.count
        return total


def is_linear(layer: Any) -> bool:
    """A Dense or EinsumDense layer as Keras makes it: of subclasses nobody knows what else they
    do with their kernels."""
    dense = is_plain(layer, keras.layers.Dense)
    return ((dense or is_plain(layer, keras.layers.EinsumDense)) and layer.built
            and layer.dtype_policy.quantization_mode is None and not layer.lora_enabled
            and (dense or kernel_axes(layer.equation) is not None))


def _terms(layer: Any) -> tuple[str, str, str]:
    """Input, kernel and output of the equation; axes are counted from the end, so that what an
    ellipsis at the left stands for does not matter."""
    if isinstance(layer, keras.layers.Dense):
        return "...a", "ab", "...b"
    left, _, output = layer.equation.replace(" ", "").partition("->")
    inputs, _, kernel = left.partition(",")
    return inputs, kernel, output


def _axis(term: str, letter: str) -> Optional[int]:
    at = term.rfind(letter)
    return None if "..." in term[at:] else at - len(term)


def inputs_of(layer: Any) -> list[Side]:
    """Each axis that the layer sums over."""
    inputs, kernel, output = _terms(layer)
    sides = [Side(layer, _axis(inputs, c) or 0, kernel.index(c)) for c in kernel
             if c not in output]
    return [] if any(side.tensor == 0 for side in sides) else sides


def output_of(layer: Any) -> Optional[Side]:
    """The first axis that the layer adds: heads before the size of a head."""
    _, kernel, output = _terms(layer)
    letter = next(c for c in kernel if c in output)
    axis = _axis(output, letter)
    return None if axis is None else Side(layer, axis, kernel.index(letter))


def bias_axis(side: Side) -> Optional[int]:
    """The axis of a producer's bias; None where it has none or the units share it."""
    bias = getattr(side.layer, "bias", None)
    if bias is None or len(bias.shape) < -side.tensor or bias.shape[side.tensor] == 1:
        return None
    return side.tensor


class Watch:
    """Runs other code in place of layers' `call`, and takes it back:

        with Watch() as watch:
            watch.set(layer, lambda call, x: call(x * 2))
    """

    def __init__(self) -> None:
        self._layers: list[Any] = []

    def set(self, layer: Any, function: Callable[..., Any]) -> None:
        """function(call, inputs, ...) runs when the layer is called."""
        inner = layer.call

        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return function(lambda x: inner(x, *args, **kwargs), inputs)

        if "call" not in vars(layer):
            self._layers.append(layer)
        object.__setattr__(layer, "call", call)  # not what Keras tracks

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        for layer in self._layers:
            object.__delattr__(layer, "call")


@dataclass
class _Log:
    """Inputs and outputs of a run in the order of the calls, by layer id."""

    inputs: dict[int, Array] = field(default_factory=dict)
    outputs: dict[int, Array] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    answer: list[Array] = field(default_factory=list)


def _numpy(x: Any) -> Array:
    array: Array = np.asarray(ops.convert_to_numpy(x))
    return array


def _far(a: Array, b: Array) -> Array:
    """Where two arrays differ by more than rounding."""
    if a.shape != b.shape:
        return np.ones(1, bool)
    scale = max(1.0, float(np.abs(b).max(initial=0)))
    far: Array = ~(np.abs(a.astype(np.float64) - b.astype(np.float64)) <= 1e-5 * scale)
    return far


class Prober:
    """Finds the groups of a model.

    Args:
        run: calls the model on a few examples in inference and returns its outputs.
        linear: the layers that multiply, with their names.
        others: further layers that have weights.
    """

    def __init__(self, run: Callable[[], Any], linear: list[tuple[str, Any]],
                 others: list[Any]) -> None:
        self._run = run
        self._names = {id(layer): name for name, layer in linear}
        self._linear = [layer for _, layer in linear]
        self._others = others
        self.left: dict[str, str] = {}
        self._base = self._log({}, {})

    def _log(self, change: dict[int, Callable[[Any], Any]],
             given: dict[int, Array]) -> _Log:
        """Runs with changed outputs of some layers and given inputs of others."""
        log = _Log()

        def watcher(layer: Any) -> Callable[..., Any]:
            key = id(layer)

            def watch(call: Any, x: Any) -> Any:
                log.calls[key] = log.calls.get(key, 0) + 1
                if keras.tree.is_nested(x):
                    return call(x)
                log.inputs[key] = _numpy(x)
                y = call(ops.convert_to_tensor(given[key], dtype=x.dtype) if key in given else x)
                y = change[key](y) if key in change else y
                if not keras.tree.is_nested(y):
                    log.outputs[key] = _numpy(y)
                return y
            return watch

        with Watch() as watch:
            for layer in [*self._linear, *self._others]:
                watch.set(layer, watcher(layer))
            log.answer = [_numpy(y) for y in keras.tree.flatten(self._run())]
        return log

    def groups(self) -> list[Group]:
        """In the order in which the model calls the consumers."""
        found: dict[tuple[int, int], list[Side]] = {}
        sides: dict[tuple[int, int], Side] = {}
        for layer in self._linear:
            if self._base.calls.get(id(layer), 0) != 1:
                continue
            match = self._consumer(layer)
            if match is not None:
                producer, consumer = match
                key = (id(consumer.layer), consumer.tensor)
                sides[key] = consumer
                found.setdefault(key, []).append(producer)
        order = {key: i for i, key in enumerate(self._base.calls)}
        groups: list[Group] = []
        for key in sorted(found, key=lambda key: order[key[0]]):
            if groups and groups[-1].consumer.layer is sides[key].layer:
                continue  # one kernel is cut along one axis
            group = self._group(sides[key], found[key])
            reason = self._refused(group)
            if reason is None:
                groups.append(group)
            elif reason:
                self.left[group.name] = reason
        return groups

    def _group(self, consumer: Side, producers: list[Side]) -> Group:
        summed = len(inputs_of(consumer.layer))
        count = consumer.layer.kernel.shape[consumer.kernel]
        return Group(self._names[id(consumer.layer)], "heads" if summed > 1 else "neurons",
                     consumer, producers, int(count))

    def _consumer(self, layer: Any) -> Optional[tuple[Side, Side]]:
        """The one layer that reads what this one makes, unit by unit."""
        producer = output_of(layer)
        if producer is None:
            return None
        count = int(layer.kernel.shape[producer.kernel])
        if not _elementwise(layer.activation):
            return None
        calls = list(self._base.calls)
        behind = calls[calls.index(id(layer)) + 1:]
        candidates = [other for other in self._linear if id(other) in behind and any(
            other.kernel.shape[side.kernel] == count for side in inputs_of(other))]
        if count < 2 or not candidates:
            return None
        some = np.zeros(count, bool)
        some[np.random.default_rng(count).permutation(count)[:count // 2]] = True
        change = {id(layer): _disturb(some, producer.tensor)}
        seen = self._log(change, {})
        for key in behind:
            if key in seen.inputs and _far(seen.inputs[key], self._base.inputs[key]).any():
                break
        else:
            return None
        first = next((other for other in candidates if id(other) == key), None)
        if first is None or self._base.calls[key] != 1:
            return None
        side = self._unit_axis(first, _far(seen.inputs[key], self._base.inputs[key]), some)
        held = {key: self._base.inputs[key]}
        if side is None or self._leaks(self._log(change, held), key):
            return None
        return producer, side

    def _unit_axis(self, layer: Any, far: Array, some: Array) -> Optional[Side]:
        """The axis on which nothing but the disturbed units changed."""
        for side in inputs_of(layer):
            if far.ndim < -side.tensor or far.shape[side.tensor] != len(some):
                continue
            units = np.asarray(np.moveaxis(far, side.tensor, 0).reshape(len(some), -1).any(1))
            if units.any() and not units[~some].any():
                return side
        return None

    def _leaks(self, log: _Log, consumer: int) -> bool:
        """Whether anything changed although the consumer read what it had read before."""
        if any(_far(a, b).any() for a, b in zip(log.answer, self._base.answer)):
            return True
        return any(_far(log.inputs[key], self._base.inputs[key]).any()
                   for key in self._base.inputs if key != consumer)

    def _refused(self, group: Group) -> Optional[str]:
        """Why the units cannot be cut; "" where there are none to speak of; None where they can."""
        key = id(group.consumer.layer)
        silent = {id(side.layer): ops.zeros_like for side in group.producers}
        x = self._log(silent, {}).inputs[key]
        axes = [side.tensor % x.ndim for side in inputs_of(group.consumer.layer)]
        rows = np.moveaxis(x, axes, range(len(axes))).reshape(*(x.shape[a] for a in axes), -1)
        if _far(rows, rows[..., :1] + np.zeros_like(rows)).any():
            return ("its heads are not those of query, key and value alike"
                    if group.kind == "heads" else "")
        half = np.arange(group.count) < -(-group.count // 2)
        narrow = {id(side.layer): _cut(half, side.tensor) for side in group.producers}
        want = list(self._base.inputs[key].shape)
        want[group.consumer.tensor] = int(half.sum())
        consumer = group.consumer.layer
        spec, consumer.input_spec = consumer.input_spec, None  # it names the width
        try:
            with Watch() as watch:
                for side in group.producers:
                    watch.set(side.layer, _after(narrow[id(side.layer)]))
                watch.set(consumer, self._answer(key, want))
                self._run()
        except Exception as error:  # whatever the code between says to another width
            said = " ".join(line.strip() for line in str(error).split("\n") if line.strip())
            return (f"the code around it does not run on fewer {group.kind}: "
                    f"{said[:200] or type(error).__name__}")
        finally:
            consumer.input_spec = spec
        return None

    def _answer(self, key: int, want: list[int]) -> Callable[..., Any]:
        def answer(call: Any, x: Any) -> Any:
            if list(x.shape) != want:
                raise ValueError(f"{list(x.shape)} where {want} was expected")
            return ops.convert_to_tensor(self._base.outputs[key])
        return answer


def _elementwise(activation: Any) -> bool:
    """Not so softmax: cutting a unit before it changes all others behind it."""
    if activation is None:
        return True
    x = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)
    y = x + np.float32(1) * (np.arange(8) % 2).astype(np.float32)
    far: Array = _far(_numpy(activation(ops.convert_to_tensor(y))),
               _numpy(activation(ops.convert_to_tensor(x))))
    return not far[..., ::2].any()


def _disturb(some: Array, axis: int) -> Callable[[Any], Any]:
    def disturb(y: Any) -> Any:
        value = _numpy(y)
        rng = np.random.default_rng(0)
        noise = rng.standard_normal(value.shape) * (float(value.std()) + 0.5)
        mask = some.reshape([-1] + [1] * (-axis - 1))
        return ops.convert_to_tensor((value + noise * mask).astype(np.float32), dtype=y.dtype)
    return disturb


def _cut(keep: Array, axis: int) -> Callable[[Any], Any]:
    at = np.flatnonzero(keep)
    return lambda y: ops.take(y, at, axis=len(y.shape) + axis)


def _after(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda call, x: function(call(x))


# ---- kernels as matrices -------------------------------------------------------------------------


def matrix_of(layer: Any, kernel: Array) -> Array:
    """A kernel as [inputs, outputs]."""
    if isinstance(layer, keras.layers.Dense):
        return kernel
    summed, kept = kernel_axes(layer.equation) or ([], [])
    rows = int(np.prod([kernel.shape[axis] for axis in summed]))
    return kernel.transpose(summed + kept).reshape(rows, -1)


def kernel_from(layer: Any, matrix: Array, shape: tuple[int, ...]) -> Array:
    """The other way; shape: of the kernel."""
    if isinstance(layer, keras.layers.Dense):
        return matrix
    summed, kept = kernel_axes(layer.equation) or ([], [])
    order = summed + kept
    return matrix.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def rows_of(layer: Any, x: Array) -> Array:
    """A layer's input as [..., inputs], the inputs as in `matrix_of`."""
    axes = [side.tensor for side in inputs_of(layer)]
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[:moved.ndim - len(axes)], -1)


def shared_axes(layer: Any, y: Array) -> Array:
    """The sum over all that the kernel adds to a layer's output."""
    _, kernel, output = _terms(layer)
    axes = tuple(axis for axis in (_axis(output, c) for c in kernel if c in output)
                 if axis is not None)
    total: Array = y.sum(axes)
    return total


def input_mask(group: Group, keep: Array) -> Array:
    """Which rows of the consumer's matrix stay, of the units that stay."""
    layer = group.consumer.layer
    sides = inputs_of(layer)
    shape = [layer.kernel.shape[side.kernel] for side in sides]
    at = [side.kernel for side in sides].index(group.consumer.kernel)
    wide = np.broadcast_to(np.asarray(keep, bool).reshape(
        [-1 if i == at else 1 for i in range(len(shape))]), shape)
    return np.ascontiguousarray(wide).reshape(-1)
