"""`sfq.keras.compress`: the whole way of a model, from the user's to a smaller one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import keras
import numpy as np

from .. import errors
from .._native import Hooks, ProgressOption
from ..progress import Progress
from . import _backend
from ._data import Data, Loss, Measure
from ._layers import REVERSIBLE, is_plain, refuse
from ._learn import Lesson, Statistics, _assign, choose, cut, refit, silence
from ._pack import Array, pack
from ._tree import Builder, New, is_graph, walk
from ._units import (Group, Prober, Side, _numpy, bias_axis, input_mask, is_linear, kernel_from,
                     matrix_of)

Rules = Union[Mapping[str, int], Iterable[tuple[str, int]]]
Patterns = Union[str, Iterable[str]]
SEGMENTS = 4  # of consumers whose refit is judged at once


@dataclass(frozen=True)
class LayerReport:
    """One layer that was packed.

    Attributes:
        name: in the model, e.g. "encoder/attention/query".
        bits: per weight.
        shape: of the kernel or table, after pruning.
        original_bytes, bytes: of it and its bias, in 16 bits before, and as stored.
        error: relative to the weights that were packed, root of the mean square.
    """

    name: str
    bits: int
    shape: tuple[int, ...]
    original_bytes: int
    bytes: int
    error: float


@dataclass(frozen=True)
class PrunedUnits:
    """Units of one block.

    Attributes:
        name: of the layer that reads them, e.g. "encoder/attention/attention_output".
        kind: "heads" or "neurons".
        before, after: how many there were and are.
    """

    name: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class Compressed:
    """What `compress` made.

    Attributes:
        model: the compressed model.
        layers: one entry for each packed layer.
        pruned: one entry for each block whose units could be cut.
        left: layers with a matrix that stay whole, and blocks that could not be cut, with the
            reason.
        original_bytes: of all weights in 16 bits.
        bytes: of all weights of the result, as stored.
        reduction: 1 - bytes / original_bytes.
        losses: mean distance from the original's answers on the fifth of the data that was held
            out, after each stage: "pruned", "refitted", "tables" (embeddings packed), "distilled",
            "packed", "tuned".
    """

    model: Any
    layers: list[LayerReport]
    pruned: list[PrunedUnits]
    left: dict[str, str]
    original_bytes: int
    bytes: int
    reduction: float
    losses: dict[str, float] = field(default_factory=dict)


def _bytes(model: Any, half: bool) -> int:
    """half: floats count two bytes."""
    total = 0
    for v in model.weights:
        kind = keras.backend.standardize_dtype(v.dtype)
        size = 2 if kind == "bfloat16" or half and "float" in kind else np.dtype(kind).itemsize
        total += int(np.prod(v.shape)) * size
    return total


def _matrix(layer: Any) -> Any:
    return layer.embeddings if isinstance(layer, keras.layers.Embedding) else layer.kernel


def _is_table(layer: Any) -> bool:
    return ((is_plain(layer, keras.layers.Embedding)
             or is_plain(layer, REVERSIBLE) and layer.tie_weights) and layer.built
            and layer.dtype_policy.quantization_mode is None and not layer.lora_enabled)


class _Plan:
    """What becomes of each layer: its bits, or why it stays."""

    def __init__(self, model: Any, bits: int, embedding_bits: int, rules: Rules,
                 keep: Patterns) -> None:
        pairs = list(rules.items() if isinstance(rules, Mapping) else rules)
        kept = [keep] if isinstance(keep, str) else list(keep)
        for regex in [*kept, *(regex for regex, _ in pairs)]:
            try:
                re.compile(regex)
            except (re.error, TypeError) as reason:
                raise refuse(f"{regex!r} is no regular expression: {reason}") from None
        for name, value in (("bits", bits), ("embedding_bits", embedding_bits),
                            *((f"bits_for {regex!r}", value) for regex, value in pairs)):
            if not isinstance(value, int) or not (2 <= value <= 8 or value == 16):
                raise refuse(f"{name} is {value!r}; it must be in 2..8, or 16 to stay as it is")
        self.bits: dict[int, int] = {}
        self.layers: list[tuple[str, Any]] = []
        self.others: list[Any] = []
        self.left: dict[str, str] = {}
        for name, layer in walk(model):
            if not (is_linear(layer) or _is_table(layer)):
                self._other(name, layer)
                continue
            wanted = embedding_bits if _is_table(layer) else bits
            for regex, value in pairs:
                wanted = value if re.search(regex, name) else wanted
            if wanted == 16 or any(re.search(regex, name) for regex in kept):
                self.left[name] = "kept on request"
            elif 2 * int(np.prod(_matrix(layer).shape)) <= 64:
                self.left[name] = "no smaller when packed"
            else:
                self.bits[id(layer)] = wanted
            self.layers.append((name, layer))
        if not self.layers:
            raise errors.UnsupportedError(
                f"sfq.keras: the model {model.name!r} has no Dense, EinsumDense or Embedding layer "
                "in its layers' attributes", "E_UNSUPPORTED")

    def _other(self, name: str, layer: Any) -> None:
        own = layer._trainable_variables + layer._non_trainable_variables
        if own:
            self.others.append(layer)
        if any(len(v.shape) > 1 for v in own):
            kind = type(layer)
            known = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)
            if any(is_plain(layer, base) for base in known):
                reason = "quantized by Keras, with LoRA, or of an equation that is no product"
            else:
                reason = f"{kind.__name__} is " + (
                    "a subclass: what else it does is not known" if isinstance(layer, known)
                    else "not a layer that is packed")
            self.left[name] = reason

    @property
    def linear(self) -> list[tuple[str, Any]]:
        return [(name, layer) for name, layer in self.layers if not _is_table(layer)]


class _Work:
    """One call of compress. The user's model is changed on the way and put back."""

    def __init__(self, model: Any, plan: _Plan, hooks: Hooks, stages: int) -> None:
        self.model, self.plan = model, plan
        self._hooks, self._stages, self._stage = hooks, stages, 0
        self.losses: dict[str, float] = {}
        self.kept: list[tuple[Group, Array]] = []
        self.energy: dict[int, Array] = {}
        self.packed: dict[int, New] = {}
        self.reports: dict[int, LayerReport] = {}
        self._saved = [(v, _numpy(v).copy()) for v in model.weights]

    def restore(self) -> None:
        for v, value in self._saved:
            v.assign(value)

    def stage(self, name: str, unit: str) -> Any:
        """The function that tells how far this stage is."""
        self._stage += 1
        at = self._stage

        def report(done: int, total: int) -> None:
            self._hooks.report(Progress(name, at, self._stages, done, total, unit))
        return report

    # ---- stages ----------------------------------------------------------------------------------

    def prune(self, lesson: Lesson, groups: list[Group], found: list[Statistics],
              share: float) -> None:
        kernels = {id(g): (_numpy(g.consumer.layer.kernel).copy(),
                           None if g.consumer.layer.bias is None
                           else _numpy(g.consumer.layer.bias).copy()) for g in groups}
        self.kept = list(zip(groups, choose(groups, found, share)))
        fitted = {id(g): refit(g, stat, keep) for (g, keep), stat in zip(self.kept, found)
                  if not keep.all()}
        for group, keep in self.kept:
            silence(group, keep)
        best = self.losses["pruned"] = lesson.loss()
        changed = [g for g, keep in self.kept if not keep.all()]
        for part in np.array_split(np.arange(len(changed)), min(SEGMENTS, max(1, len(changed)))):
            some = [changed[i] for i in part]
            before = [(g, _numpy(g.consumer.layer.kernel).copy()) for g in some]
            for g in some:
                self._set(g, *fitted[id(g)])
            now = lesson.loss()
            if now < best:
                best = now
                continue
            for g, kernel in before:
                self._set(g, kernel, kernels[id(g)][1])
        self.losses["refitted"] = best

    @staticmethod
    def _set(group: Group, kernel: Array, bias: Optional[Array]) -> None:
        _assign(group.consumer.layer.kernel, kernel)
        if bias is not None:
            _assign(group.consumer.layer.bias, bias)

    def tables(self) -> None:
        """Packs embeddings; what is trained after that sees them as they will be."""
        for name, layer in self.plan.layers:
            if _is_table(layer) and id(layer) in self.plan.bits:
                self._pack(name, layer)
                if id(layer) in self.packed:
                    _assign(layer.embeddings, self.packed[id(layer)].packed.values)

    def masks(self, variables: list[Any]) -> list[Any]:
        """For each variable where it may change: weights that read nothing stay zero."""
        found: dict[int, Array] = {}
        for group, keep in self.kept:
            layer = group.consumer.layer
            shape = tuple(layer.kernel.shape)
            wide = np.ones_like(matrix_of(layer, _numpy(layer.kernel)), np.float32)
            wide *= input_mask(group, keep)[:, None]
            found[id(layer.kernel)] = kernel_from(layer, wide, shape)
        return [found.get(id(v)) for v in variables]

    def matrices(self, report: Any) -> None:
        total = sum(int(np.prod(layer.kernel.shape)) for _, layer in self.plan.linear)
        done = 0
        for name, layer in self.plan.linear:
            if id(layer) in self.plan.bits:
                self._pack(name, layer)
            done += int(np.prod(layer.kernel.shape))
            report(done, total)

    def _pack(self, name: str, layer: Any) -> None:
        bits, table = self.plan.bits[id(layer)], _is_table(layer)
        whole = _numpy(_matrix(layer)).astype(np.float32)
        kernel, bias = whole, None if table or layer.bias is None else _numpy(layer.bias)
        before = 2 * (kernel.size + (0 if bias is None else bias.size))
        energy = self.energy.get(id(layer))
        for group, keep in self.kept:
            if group.consumer.layer is layer:
                energy = None if energy is None else energy[input_mask(group, keep)]
                kernel = cut(kernel, keep, group.consumer.kernel)
            for side in group.producers:
                if side.layer is layer:
                    kernel = cut(kernel, keep, side.kernel)
                    axis = bias_axis(side)
                    bias = bias if bias is None or axis is None else cut(bias, keep, axis)
        matrix = kernel if table else matrix_of(layer, kernel)
        packed = pack(matrix, bits, table=table, energy=energy, what=name)
        if packed.nbytes >= 2 * matrix.size and matrix.size == whole.size:
            self.plan.left[name] = "no smaller when packed"
            return
        self.packed[id(layer)] = New(packed, bias, kernel.shape,
                                     None if bias is None else bias.shape)
        off = float(np.linalg.norm(packed.values - matrix))
        self.reports[id(layer)] = LayerReport(
            name, bits, kernel.shape, before, packed.nbytes + (0 if bias is None else bias.nbytes),
            off / max(float(np.linalg.norm(matrix)), 1e-30))


def _check(model: Any, prune: float, steps: Optional[int], data: Any, rate: float) -> None:
    if not isinstance(model, keras.Model):
        raise refuse(f"the model is a {type(model).__name__}; expected a keras.Model")
    if not model.built or not model.weights:
        raise refuse(f"the model {model.name!r} is not built: call it on a batch, or give it an "
                     "Input, first")
    if not 0 <= prune < 1:
        raise refuse(f"prune is {prune!r}; it must be from 0 to below 1")
    if steps is not None and (not isinstance(steps, int) or steps < 0):
        raise refuse(f"steps is {steps!r}; it must be a number of 0 or more")
    if not rate > 0:
        raise refuse(f"learning_rate is {rate!r}; it must be above 0")
    if data is None and (prune > 0 or steps):
        raise refuse(f"{'prune' if prune > 0 else 'steps'} needs data: inputs that the model is "
                     "called with")


def _inputs(model: Any, data: Optional[Data]) -> Any:
    """Inputs for a model that Keras knows no graph of."""
    if is_graph(model):
        return None
    if data is None:
        shapes = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shapes, (tuple, list)) or not all(
                d is None or isinstance(d, int) for d in shapes):
            raise refuse(f"{type(model).__name__} is no Functional or Sequential model: give "
                         "data, which say what it is called with")
        return keras.Input(batch_shape=(None, *shapes[1:]))
    return keras.tree.map_structure(lambda x: keras.Input(
        x.shape[1:], dtype=None if x.dtype.kind == "f" else str(x.dtype)), data.inputs)


def _groups(work: _Work, data: Data) -> list[Group]:
    few = data.take(np.arange(min(3, data.count)))
    prober = Prober(lambda: work.model(few, training=False), work.plan.linear, work.plan.others)
    groups = prober.groups()
    work.plan.left.update(prober.left)
    names = {id(layer): name for name, layer in work.plan.linear}

    def whole(side: Side) -> bool:
        return id(side.layer) not in work.plan.bits
    for group in list(groups):
        if any(whole(side) for side in [group.consumer, *group.producers]):
            groups.remove(group)
            kept = [names[id(s.layer)] for s in [group.consumer, *group.producers] if whole(s)]
            work.plan.left.setdefault(group.name, f"its units go through {', '.join(kept)}")
    return groups


def compress(model: Any, data: Any = None, *, prune: float = 0.0, bits: int = 8,
             embedding_bits: int = 8, bits_for: Rules = (), keep: Patterns = (),
             steps: Optional[int] = None, learning_rate: float = 2e-4, seed: int = 0,
             loss: Loss = "auto", progress: ProgressOption = None) -> Compressed:
    """Makes a Keras model smaller: prunes whole heads and neurons, fuses and quantizes what stays,
    trains it briefly to give the original's answers again.

    Functional, Sequential and subclassed models of Dense, EinsumDense, MultiHeadAttention and
    Embedding layers, alone or inside of layers of any class (transformer blocks of your own, or
    KerasHub's); other layers stay as they are. A subclassed model needs `get_config`, and comes
    back as a Functional model around it. On the TensorFlow and the torch backend.

    The model itself is used on the way and is, afterwards, what it was; do not use it meanwhile.

    Args:
        model: built.
        data: what the model is called with: an array, a list or dict of arrays, or batches of
            these; of tuples as Keras takes them, (inputs, labels), the inputs. Labels are not
            looked at. A few hundred examples do. A fifth is held out and decides. None: fuse and
            quantize only.
        prune: share of the weights of attention and of dense-activation-dense blocks to remove,
            from 0 to below 1.
        bits: per weight of Dense and EinsumDense layers, 2..8; 16: they stay.
        embedding_bits: the same of Embedding layers.
        bits_for: other bits by regular expression over a layer's name; the last that matches
            counts.
        keep: regular expressions; layers that match stay whole.
        steps: of training, of 32 examples each; None: 200 with data.
        learning_rate: its largest.
        seed: of everything random.
        loss: how answers are compared, see `Measure`: "auto", "logits", "probabilities", "mse", or
            a function (original's answers, model's answers) -> loss of each example.
        progress: as for `sfq.compress`.

    Raises:
        ArgumentError: the model is not built; an option is out of range; data lack.
        DataError: no examples in the data, too few, or arrays that do not fit together.
        InfeasibleError: not so much can be pruned.
        NumericError: a weight, or what is measured, is not finite.
        UnsupportedError: the backend; nothing to pack; a layer that cannot be copied.

    Example:
        >>> done = sfq.keras.compress(model, x[:512], prune=0.4, embedding_bits=4)
        >>> done.model.save("small.keras")
    """
    _check(model, prune, steps, data, learning_rate)
    _backend.check()
    plan = _Plan(model, bits, embedding_bits, bits_for, keep)
    read = None if data is None else Data.read(data)
    if read is not None and read.count < 10:
        raise errors.DataError(f"sfq.keras: data: {read.count} examples are too few; 10 at least",
                               "E_DATA")
    steps = (200 if steps is None else steps) if read is not None else 0
    before = _bytes(model, half=True)
    with Hooks(progress) as hooks:
        work = _Work(model, plan, hooks, 1 + (read is not None) + 2 * (steps > 0))
        try:
            small = _run(work, read, prune, steps, learning_rate, seed, loss)
        finally:
            work.restore()
    after = _bytes(small, half=False)
    pruned = [PrunedUnits(g.name, g.kind, g.count, int(keep.sum())) for g, keep in work.kept]
    order = [id(layer) for _, layer in plan.layers]
    return Compressed(small, [work.reports[key] for key in order if key in work.reports], pruned,
                      plan.left, before, after, 1 - after / max(1, before), work.losses)


def _run(work: _Work, data: Optional[Data], prune: float, steps: int, rate: float, seed: int,
         loss: Loss) -> Any:
    model = work.model
    lesson = None
    if data is not None:
        lesson = _lesson(model, data, seed, loss)
        groups = _groups(work, data)
        if prune > 0 and not groups:
            raise errors.InfeasibleError(
                f"sfq.keras: nothing of {model.name!r} can be pruned: no heads or neurons were "
                "recognised", "E_INFEASIBLE")
        found = lesson.statistics(groups, work.stage("calibrate", "examples"))
        work.energy = {id(g.consumer.layer): one.energy for g, one in zip(groups, found)}
        if prune > 0:
            work.prune(lesson, groups, found, prune)
    work.tables()
    if lesson is not None and steps > 0:
        tables = {id(layer.embeddings) for _, layer in work.plan.layers
                  if id(layer) in work.packed}
        variables = [v for v in model.trainable_variables if id(v) not in tables]
        work.losses["tables"], work.losses["distilled"] = lesson.distill(
            model, variables, work.masks(variables), steps, rate,
            work.stage("distill", "steps"))
    work.matrices(work.stage("fuse", "weights"))
    small = Builder(work.packed).build(model, _inputs(model, data))
    if lesson is not None:
        variables = list(small.trainable_variables)
        work.losses["packed"], tuned = lesson.distill(
            small, variables, [None] * len(variables), steps // 4, rate,
            work.stage("tune", "steps") if steps > 0 else lambda done, total: None)
        if steps > 0:
            work.losses["tuned"] = tuned
    return small


def _lesson(model: Any, data: Data, seed: int, loss: Loss) -> Lesson:
    parts: list[Any] = []
    for part, batch in data.batches(np.arange(data.count), 64):
        answers = model(batch, training=False)
        parts.append(keras.tree.map_structure(lambda y: _numpy(y)[:len(part)].copy(), answers))
    answers = keras.tree.map_structure(lambda *y: np.concatenate(y), *parts)
    for y in keras.tree.flatten(answers):
        if not np.isfinite(np.asarray(y, np.float64)).all():
            raise errors.NumericError(
                f"sfq.keras: the model {model.name!r} answers with numbers that are not finite",
                "E_NUMERIC")
    return Lesson(model, data, answers, Measure(loss, model, answers), seed)
