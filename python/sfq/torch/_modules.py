"""`compress`: any module with its attention and MLP blocks pruned and its linear layers packed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union, cast

import torch
from torch import Tensor, nn

from .._native import Hooks, ProgressOption
from ..progress import Progress
from ._attention import MultiheadAttention, refusal
from ._blocks import is_conv1d, is_linear
from ._layers import Embedding, Linear, Packed
from ._ops import refuse
from ._prune import BlockReport, prune as cut_blocks
from ._saliency import Loss, evaluating, run


@dataclass(frozen=True)
class LayerReport:
    """One layer that `compress` packed.

    Attributes:
        name: in the module.
        bits: per weight.
        original_bytes, bytes: of weight and bias, in their own type (after pruning) and packed.
        error: relative to the weights, root of the mean square.
    """

    name: str
    bits: int
    original_bytes: int
    bytes: int
    error: float


@dataclass(frozen=True)
class Compressed:
    """What `compress` made.

    Attributes:
        module: the compressed module.
        layers: one entry for each packed layer.
        original_bytes, bytes: of all parameters and buffers, before and after.
        reduction: 1 - bytes / original_bytes.
        blocks: one entry for each attention and MLP that could be pruned; empty where nothing was
            to be.
        pruned: share of the parameters of those blocks that is gone.
        whole: blocks that stay as they are, by name, and why.
    """

    module: nn.Module
    layers: list[LayerReport]
    original_bytes: int
    bytes: int
    reduction: float
    blocks: list[BlockReport] = field(default_factory=list)
    pruned: float = 0.0
    whole: dict[str, str] = field(default_factory=dict)


def _bytes(module: nn.Module) -> int:
    """Shared tensors once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


@dataclass(frozen=True)
class _Choice:
    """A layer to pack: a table, or a linear layer of one kind or the other."""

    name: str
    layer: nn.Module
    bits: int

    @property
    def table(self) -> bool:
        return isinstance(self.layer, nn.Embedding)

    @property
    def parameter(self) -> Tensor:
        return cast(Tensor, self.layer.weight)

    @property
    def weight(self) -> Tensor:
        """[outputs, inputs]"""
        return self.parameter.T if is_conv1d(self.layer) else self.parameter


class _Energy:
    """The mean square of each input of the linear layers, while data go through."""

    def __init__(self, chosen: list[_Choice]) -> None:
        linear = [one for one in chosen if not one.table]
        self._sums = {one.name: torch.zeros(one.weight.shape[1], dtype=torch.float64)
                      for one in linear}
        self._rows = {one.name: 0 for one in linear}
        self._hooks = [one.layer.register_forward_pre_hook(self._watch(one.name))
                       for one in linear]

    def _watch(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).to("cpu", torch.float64)
            self._sums[name] += x.square().sum(0)
            self._rows[name] += x.shape[0]
        return hook

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def of(self, name: str) -> Optional[Tensor]:
        """None for a layer that no data reached."""
        rows = self._rows[name]
        return None if rows == 0 else (self._sums[name] / rows).to(torch.float32)


def _measure(module: nn.Module, chosen: list[_Choice], data: Iterable[Any]) -> _Energy:
    energy = _Energy(chosen)
    try:
        with evaluating(module), torch.no_grad():
            for item in data:
                run(module, item)
    finally:
        energy.close()
    return energy


def _choose(module: nn.Module, bits: int, embedding_bits: Optional[int],
            bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]],
            kept: list[str]) -> list[_Choice]:
    """The layers to pack, linear ones first. Subclasses are left alone: nobody knows how else they
    use their weights."""
    rules = list(bits_for.items() if isinstance(bits_for, Mapping) else bits_for)
    found = []
    for name, layer in module.named_modules():
        if is_linear(layer):
            wanted: Optional[int] = bits
        elif type(layer) is nn.Embedding:
            wanted = embedding_bits
        else:
            continue
        for regex, other in rules:
            wanted = other if re.search(regex, name) else wanted
        if wanted is None or wanted == 16 or any(re.search(regex, name) for regex in kept):
            continue
        found.append(_Choice(name, layer, wanted))
    return sorted(found, key=lambda one: one.table)


def _pack(one: _Choice, activation_bits: int, energy: Optional[_Energy],
          tied: dict[tuple[int, int], Packed]) -> Packed:
    """A table that is a linear layer's weight at the same bits shares its codes."""
    packed: Packed
    key = (id(one.parameter), one.bits)
    if not one.table:
        packed = Linear.from_weight(one.weight, cast(Optional[Tensor], one.layer.bias),
                                    bits=one.bits, activation_bits=activation_bits,
                                    energy=None if energy is None else energy.of(one.name))
    elif key in tied:
        packed = Embedding.from_codes(tied[key], one.parameter.dtype)
    else:
        packed = Embedding.from_float(cast(nn.Embedding, one.layer), bits=one.bits)
    tied.setdefault(key, packed)
    return packed.train(one.layer.training)


def _replace(module: nn.Module, made: Mapping[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    changed = set()
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):  # named_children() gives each once
            if child is not None and id(child) in made:
                setattr(parent, name, made[id(child)])
                changed.add(id(parent))
    for parent in list(module.modules()):
        if isinstance(parent, nn.TransformerEncoderLayer) and id(parent) in changed:
            parent.activation_relu_or_gelu = 0  # its fast path would read weights by itself
        if isinstance(parent, nn.TransformerEncoder) and changed & {id(m) for m in parent.layers}:
            parent.use_nested_tensor = False  # and so would this one
    return module


def _take_apart(module: nn.Module, keep: list[str], whole: dict[str, str]) -> nn.Module:
    """Torch's attention modules become ours, where they can."""
    made: dict[int, nn.Module] = {}
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.MultiheadAttention):
            continue
        reason = refusal(layer)
        if type(layer) is not nn.MultiheadAttention:
            reason = f"it is a {type(layer).__name__}, of which nothing is known"
        if any(re.search(regex, name) for regex in keep):
            reason = "keep names it"
        if reason is None:
            made[id(layer)] = MultiheadAttention(layer)
        else:
            whole[name] = reason
    return _replace(module, made)


def _check_prune(prune: float, rounds: int, data: Optional[Iterable[Any]]) -> list[Any]:
    """The batches, which pruning goes through several times."""
    if not 0 <= prune < 1:
        raise refuse(f"prune is {prune}; it must be from 0 to below 1")
    if rounds < 1:
        raise refuse(f"rounds is {rounds}; it must be at least 1")
    batches = [] if data is None else list(data)
    if prune > 0 and not batches:
        raise refuse("prune needs data: batches that go through the module")
    return batches


def compress(module: nn.Module, data: Optional[Iterable[Any]] = None, *, bits: int = 8,
             prune: float = 0.0, activation_bits: int = 12, embedding_bits: Optional[int] = None,
             bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]] = (),
             keep: Union[str, Iterable[str]] = (), loss: Optional[Loss] = None, rounds: int = 3,
             seed: int = 0, inplace: bool = False,
             progress: ProgressOption = None) -> Compressed:
    """Prunes attention heads and neurons of any module, and packs its linear layers (on request its
    embedding tables, too): `nn.Linear`, `nn.MultiheadAttention`, Transformers' `Conv1D`,
    `nn.Embedding`.

    Pruning finds attention blocks (`nn.MultiheadAttention`; layers named as is usual for queries,
    keys, values and output, one by one or in one, with grouped queries whole groups) and MLP blocks
    (Linear-activation-Linear, in `nn.Sequential` or by their names; gated ones). Each is proved on
    the first batch: without some of its units, the module must give what it gives when the output
    projection does not see them. What cannot be proved stays as it is and is named in the result.
    Units go by Fisher saliency, and output projections are refitted to what is left.

    Nothing is trained: checkpoints of supported families go through `sfq.compress`, which
    recalibrates, too. A layer that is used in two places stays one layer, and is not pruned.
    Embedding tables that share their weight with a linear layer are packed with the same codes when
    both have the same bits. Attention modules of torch become `sfq.torch.MultiheadAttention`, which
    is called in the same way.

    Args:
        module: on the CPU.
        data: batches to run through the module (a tensor, a tuple of arguments, or a dict of them)
            so that errors count where inputs are large; None: all inputs count alike. Pruning
            needs some: a few hundred sequences, which go through it six times and backward thrice.
            Padding is left out where a dict's `attention_mask` or `src_key_padding_mask` says it.
        bits: per weight, 2..8.
        prune: share of the parameters of the blocks' matrices that shall go, reached within one
            unit above it. Every attention keeps a head (or group), an MLP 64 neurons, and widths
            stay multiples of 64; 16 where no MLP has 256.
        activation_bits: as for `Linear`.
        embedding_bits: per weight of `nn.Embedding` tables; None: they stay as they are.
        bits_for: other bits by regular expression over the layer's name, or 16: stays as it is.
            The last that matches counts.
        keep: regular expressions; layers that match stay as they are, and so do their blocks.
        loss: loss(output, batch), a sum over sequences, whose growth pruning shall make least;
            None: of labels drawn from the output's own `logits`, or else the squared change of
            outputs.
        rounds: in which pruning reaches its share; each measures, cuts and refits.
        seed: of what is drawn.
        inplace: change the module itself; else a copy, which takes its memory once more. After an
            error a module that was to be changed itself may be half pruned.
        progress: as for `sfq.compress`.

    Raises:
        UnsupportedError: prune is above 0, and nothing in the module can be pruned.
        InfeasibleError: the blocks' floors do not allow so much.
        NumericError: weights or gradients are not finite.
        ArgumentError: a value out of range, no data where prune needs some.

    Example:
        >>> done = sfq.torch.compress(model, batches, prune=0.3, bits=4)
        >>> model = done.module
    """
    kept = [keep] if isinstance(keep, str) else list(keep)
    if prune != 0:
        data = _check_prune(prune, rounds, data)
    before = _bytes(module)
    if not inplace:
        module = copy.deepcopy(module)
    whole: dict[str, str] = {}
    with Hooks(progress) as hooks:
        module = _take_apart(module, kept, whole)
        blocks: list[BlockReport] = []
        if prune > 0:
            blocks = cut_blocks(
                module, cast(list[Any], data), prune, loss, rounds, seed, kept, whole,
                lambda done, all_: hooks.report(Progress("prune", 1, 2, done, all_, "batches")))
        chosen = _choose(module, bits, embedding_bits, bits_for, kept)
        energy = None if data is None else _measure(module, chosen, data)
        module, reports = _pack_all(module, chosen, activation_bits, energy, hooks, prune > 0)
    after = _bytes(module)
    parameters = sum(b.parameters for b in blocks)
    return Compressed(module, reports, before, after, 1 - after / max(1, before), blocks,
                      sum(b.removed for b in blocks) / max(1, parameters), whole)


def _pack_all(module: nn.Module, chosen: list[_Choice], activation_bits: int,
              energy: Optional[_Energy], hooks: Hooks,
              pruned: bool) -> tuple[nn.Module, list[LayerReport]]:
    total = sum(one.parameter.numel() for one in chosen)
    done = 0
    made: dict[int, Packed] = {}
    tied: dict[tuple[int, int], Packed] = {}
    reports = []
    for one in chosen:
        weight = one.weight
        packed = _pack(one, activation_bits, energy, tied)
        made[id(one.layer)] = packed
        off = packed.dequantize() - weight.detach().float()
        reports.append(LayerReport(
            one.name, one.bits, _bytes(one.layer), _bytes(packed),
            float(off.norm() / weight.detach().float().norm().clamp_min(1e-30))))
        done += weight.numel()
        hooks.report(Progress("fuse", 1 + pruned, 1 + pruned, done, total, "weights"))
    return _replace(module, made), reports
