"""PyTorch: layers whose weights are packed codes, computed by the C kernels on the CPU.

    import torch
    import sfq.torch

    layer = sfq.torch.Linear.from_float(torch.nn.Linear(1024, 4096), bits=4)
    y = layer(torch.randn(8, 1024))
    model = sfq.torch.compress(model, [batch], bits=4).module      # all linear layers of a module

The kernel is the operator `sfq::linear`, in C from PyTorch's dispatcher on: it works under
`torch.compile(fullgraph=True)` and `torch.export`, and gives gradients of its input (and of a
bias), not of the codes. Codes and scales are buffers with the names and layouts of an artifact:
NAME.codes, NAME.scales, NAME.bias.
"""

from __future__ import annotations

import copy
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional, TypeVar, Union, cast

import torch
from torch import Tensor, nn

from . import errors
from ._linear import Weight, layout, workers
from ._native import Hooks, ProgressOption, ffi, text
from .progress import Progress

__all__ = ["Compressed", "Embedding", "LayerReport", "Linear", "compress", "set_num_threads"]

_Self = TypeVar("_Self", bound="_Packed")


def set_num_threads(threads: int) -> None:
    """How many threads the packed layers of this process use; 0: as many as it may use physical
    cores. They are apart from torch's own."""
    workers.set_threads(threads)


# ---- operators -----------------------------------------------------------------------------------


def _refuse(what: str) -> errors.ArgumentError:
    return errors.ArgumentError(f"sfq.torch: {what}", "E_ARGUMENT")


def _dense(x: Tensor) -> Tensor:
    """Contiguous float32, itself where it is that already: calls in a decode loop count."""
    x = x if x.dtype is torch.float32 else x.to(torch.float32)
    return x if x.is_contiguous() else x.contiguous()


def _address(codes: Tensor) -> tuple[int, Tensor]:
    """Where the codes lie, and what keeps them there. The kernels read whole cache lines: a view
    in the middle of something is copied."""
    address = codes.data_ptr()
    if address % 64 == 0 and codes.is_contiguous():
        return address, codes
    codes = codes.clone(memory_format=torch.contiguous_format)
    return codes.data_ptr(), codes


def _check(codes: Tensor, scales: Tensor, outputs: int, inputs: int, bits: int) -> None:
    want = layout(outputs, inputs, bits)
    if codes.dtype is not torch.uint8 or codes.shape != want.codes:
        raise _refuse(f"codes are {codes.dtype} {tuple(codes.shape)}; {outputs} x {inputs} weights "
                      f"of {bits} bits have uint8 {want.codes}")
    if not scales.is_floating_point() or scales.shape != want.scales:
        raise _refuse(f"scales are {scales.dtype} {tuple(scales.shape)}; {outputs} x {inputs} "
                      f"weights have floats {want.scales}")


# The kernel of sfq::linear is C (python/torch_op.c). A bias without elements is none.
_library: Any = cast(Any, torch.library.Library)("sfq", "DEF")
_library.define("linear(Tensor x, Tensor codes, Tensor scales, Tensor bias, int outputs, "
                "int inputs, int bits, int activation_bits) -> Tensor")


def _fake(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor, outputs: int, inputs: int,
          bits: int, activation_bits: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


torch.library.register_fake("sfq::linear", _fake, lib=_library)


def _register() -> None:
    folder = pathlib.Path(__file__).parent
    kernel = ffi.dlopen(str(folder / "_torch.so"))
    libtorch = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    lacking = kernel.sfq_torch_register(os.fsencode(libtorch))
    if lacking != ffi.NULL:
        raise errors.UnsupportedError(
            f"torch {torch.__version__} lacks {text(lacking)}; sfq.torch needs torch 2.10 or newer",
            "E_UNSUPPORTED")

    def give_workers() -> None:
        kernel.sfq_torch_workers(workers.handle())

    give_workers()
    os.register_at_fork(after_in_child=give_workers)


_register()
_op: Any = torch.ops.sfq.linear.default


@torch.library.custom_op("sfq::unpack", mutates_args=(), device_types="cpu")
def _unpack(codes: Tensor, scales: Tensor, outputs: int, inputs: int, bits: int) -> Tensor:
    _check(codes, scales, outputs, inputs, bits)
    scales = _dense(scales)
    address, codes = _address(codes)
    w = torch.empty((outputs, inputs), dtype=torch.float32)
    workers.unpack(Weight(outputs, inputs, bits, 8, address, scales.data_ptr()), w.data_ptr())
    return w


@_unpack.register_fake
def _(codes: Tensor, scales: Tensor, outputs: int, inputs: int, bits: int) -> Tensor:
    return codes.new_empty((outputs, inputs), dtype=torch.float32)


@torch.library.custom_op("sfq::embedding", mutates_args=(), device_types="cpu")
def _embedding(ids: Tensor, codes: Tensor, scales: Tensor, rows: int, width: int,
               bits: int) -> Tensor:
    _check(codes, scales, rows, width, bits)
    if ids.dtype not in (torch.int64, torch.int32):
        raise _refuse(f"the ids are {ids.dtype}; expected int64 or int32")
    wanted, scales = ids.to(torch.int64).contiguous(), _dense(scales)
    address, codes = _address(codes)
    out = torch.empty((*ids.shape, width), dtype=torch.float32)
    workers.rows(Weight(rows, width, bits, 8, address, scales.data_ptr()), wanted.data_ptr(),
                 wanted.numel(), out.data_ptr())
    return out


@_embedding.register_fake
def _(ids: Tensor, codes: Tensor, scales: Tensor, rows: int, width: int, bits: int) -> Tensor:
    return codes.new_empty((*ids.shape, width), dtype=torch.float32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, codes, scales, bias, n, k, bits, _activation_bits = inputs
    ctx.save_for_backward(codes, scales)
    ctx.sizes = (n, k, bits)
    ctx.dtypes = (x.dtype, bias.dtype)


def _backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
    """Straight through the rounding of the input: the gradient of x W^T + b with W as decoded."""
    codes, scales = ctx.saved_tensors
    n, k, bits = ctx.sizes
    x_dtype, bias_dtype = ctx.dtypes
    dx = db = None
    grad = grad.to(torch.float32)
    if ctx.needs_input_grad[0]:
        dx = (grad @ torch.ops.sfq.unpack(codes, scales, n, k, bits)).to(x_dtype)
    if ctx.needs_input_grad[3]:
        db = grad.reshape(-1, n).sum(0).to(bias_dtype)
    return dx, None, None, db, None, None, None, None


torch.library.register_autograd("sfq::linear", _backward, setup_context=_setup, lib=_library)


# ---- layers --------------------------------------------------------------------------------------


class _Packed(nn.Module):
    """Codes and scales of a matrix [rows, columns] as buffers."""

    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, bits: int, scale_dtype: torch.dtype,
                 device: Optional[torch.device]) -> None:
        super().__init__()
        if scale_dtype not in (torch.float16, torch.float32):
            raise _refuse(f"scales are float16 or float32, not {scale_dtype}")
        shape = layout(rows, columns, bits)
        self.bits = bits
        self._rows, self._columns = rows, columns
        zeros = torch.zeros(shape.codes, dtype=torch.uint8, device=device)
        self.register_buffer("codes", zeros)
        self.register_buffer("scales", torch.zeros(shape.scales, dtype=scale_dtype, device=device))

    def _fill(self, weight: Tensor, energy: Optional[Tensor]) -> None:
        """Fuses and quantizes; scales are float32 so far."""
        n, k = weight.shape
        if energy is not None and tuple(energy.shape) != (k,):
            raise _refuse(f"energy is {tuple(energy.shape)}; expected [{k}]")
        w = _dense(weight.detach().cpu())
        e = None if energy is None else _dense(energy.detach().cpu())
        f16 = workers.pack(w.data_ptr(), n, k, self.bits, 0 if e is None else e.data_ptr(),
                           self.codes.data_ptr(), self.scales.data_ptr())
        if f16:
            self.scales = self.scales.to(torch.float16)

    def dequantize(self) -> Tensor:
        """The matrix as it is computed with: float32 [rows, columns]."""
        w: Tensor = torch.ops.sfq.unpack(self.codes, self.scales, self._rows, self._columns,
                                         self.bits)
        return w

    @property
    def weight(self) -> Tensor:
        """As `dequantize`, for code that looks at a layer's weight: decoded anew each time."""
        return self.dequantize()

    def _apply(self: _Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Self:
        """Moves go through, casts do not: scales of another type would be other weights."""
        before = {name: self._buffers[name] for name in ("codes", "scales", "bias")
                  if self._buffers.get(name) is not None}
        cast(Any, super())._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Scales are taken in the type that they come in."""
        scales = state_dict.get(prefix + "scales")
        if isinstance(scales, Tensor) and scales.dtype in (torch.float16, torch.float32):
            self.scales = self.scales.to(scales.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _check_matrix(weight: Tensor) -> None:
    if weight.dim() != 2 or not weight.is_floating_point():
        raise _refuse(f"the weight is {weight.dtype} {tuple(weight.shape)}; expected floats of 2 "
                      "dimensions")


class Linear(_Packed):
    """y = x W^T + b with W [out_features, in_features] in packed codes.

    Buffers: `codes` uint8 [panels, k_blocks, 128 * bits], `scales` float16 (float32 where float16
    would over- or underflow) [panels, segments, 16 / share], `bias` [out_features] or None. They
    keep their types under `.half()`, `.to(torch.bfloat16)` and the like: inputs of any float type
    are computed in integers with float32 sums, and the result has the input's type.

    Args:
        in_features, out_features: K and N.
        bias: whether there is one.
        bits: per weight, 2..8.
        activation_bits: integer width of the input, 8..14, chosen anew for each row and segment.
            12 costs next to nothing in accuracy; 8 is faster where the processor multiplies bytes.
        scale_dtype: torch.float16 or torch.float32.

    A new layer is all zeros; `from_float` and `load_state_dict` fill it.
    """

    bias: Optional[Tensor]
    _none: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, bits: int = 8,
                 activation_bits: int = 12, scale_dtype: torch.dtype = torch.float16,
                 device: Optional[torch.device] = None) -> None:
        super().__init__(out_features, in_features, bits, scale_dtype, device)
        if not 8 <= activation_bits <= 14:
            raise _refuse(f"activation_bits is {activation_bits}; it must be in 8..14")
        self.in_features = in_features
        self.out_features = out_features
        self.activation_bits = activation_bits
        self.register_buffer("bias", torch.zeros(out_features, device=device) if bias else None)
        self.register_buffer("_none", torch.empty(0, device=device), persistent=False)

    @classmethod
    def from_float(cls, linear: nn.Linear, *, bits: int = 8, activation_bits: int = 12,
                   energy: Optional[Tensor] = None) -> Linear:
        """Fuses and quantizes a layer of floats.

        Args:
            linear: weights of any float type; not changed.
            bits, activation_bits: as for the class.
            energy: [in_features], the mean square of each input over some data: errors where it is
                large count more. None: all alike.

        Raises:
            NumericError: a weight is not finite.
            KeyboardInterrupt: on Ctrl-C.
        """
        return cls.from_weight(linear.weight, linear.bias, bits=bits,
                               activation_bits=activation_bits, energy=energy)

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Optional[Tensor] = None, *, bits: int = 8,
                    activation_bits: int = 12, energy: Optional[Tensor] = None) -> Linear:
        """As `from_float`, of a matrix [out_features, in_features]."""
        _check_matrix(weight)
        n, k = weight.shape
        self = cls(k, n, bias is not None, bits=bits, activation_bits=activation_bits,
                   scale_dtype=torch.float32)
        self._fill(weight, energy)
        if bias is not None:
            self.bias = bias.detach().to("cpu", torch.float32).clone()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] of any float type to [..., out_features] of the same type."""
        y: Tensor = _op(x, self.codes, self.scales, self._none if self.bias is None else self.bias,
                        self.out_features, self.in_features, self.bits, self.activation_bits)
        return y

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}, bits={self.bits}, "
                f"activation_bits={self.activation_bits}")


class Embedding(_Packed):
    """A table [num_embeddings, embedding_dim] in packed codes, decoded row by row.

    Buffers `codes` and `scales` as in `Linear`. The rows come in the type of the module: float32,
    or what `.to(torch.bfloat16)` and the like made it.
    """

    _like: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, *, bits: int = 8,
                 scale_dtype: torch.dtype = torch.float16,
                 device: Optional[torch.device] = None) -> None:
        super().__init__(num_embeddings, embedding_dim, bits, scale_dtype, device)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.register_buffer("_like", torch.empty(0, device=device), persistent=False)

    @classmethod
    def from_float(cls, table: nn.Embedding, *, bits: int = 8) -> Embedding:
        """Fuses and quantizes a table; its type becomes that of the rows."""
        _check_matrix(table.weight)
        self = cls(*table.weight.shape, bits=bits, scale_dtype=torch.float32)
        self._fill(table.weight, None)
        self._like = torch.empty(0, dtype=table.weight.dtype)
        return self

    @classmethod
    def from_codes(cls, packed: _Packed, dtype: torch.dtype = torch.float32) -> Embedding:
        """The matrix of another layer as a table: shares its codes and scales."""
        self = cls(packed._rows, packed._columns, bits=packed.bits, device=torch.device("meta"))
        self.codes, self.scales = packed.codes, packed.scales
        self._like = torch.empty(0, dtype=dtype)
        return self

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] (int64 or int32) to [..., embedding_dim].

        Raises:
            DataError: an id is not in the table.
        """
        rows: Tensor = torch.ops.sfq.embedding(ids, self.codes, self.scales, self.num_embeddings,
                                               self.embedding_dim, self.bits)
        return rows.to(self._like.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}"


# ---- modules -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerReport:
    """One layer that `compress` packed.

    Attributes:
        name: in the module.
        bits: per weight.
        original_bytes, bytes: of weight and bias, in their own type and packed.
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
    """

    module: nn.Module
    layers: list[LayerReport]
    original_bytes: int
    bytes: int
    reduction: float


def _bytes(module: nn.Module) -> int:
    """Shared tensors once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _is_conv1d(layer: nn.Module) -> bool:
    """GPT-2's linear layer in Transformers, which keeps its weight as [inputs, outputs]."""
    kind = type(layer)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


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
        return self.parameter.T if _is_conv1d(self.layer) else self.parameter


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


def _run(module: nn.Module, item: Any) -> None:
    if isinstance(item, Mapping):
        module(**item)
    elif isinstance(item, (tuple, list)):
        module(*item)
    else:
        module(item)


def _measure(module: nn.Module, chosen: list[_Choice], data: Iterable[Any]) -> _Energy:
    training = [m for m in module.modules() if m.training]
    energy = _Energy(chosen)
    try:
        module.eval()
        with torch.no_grad():
            for item in data:
                _run(module, item)
    finally:
        energy.close()
        for m in training:
            m.training = True
    return energy


def _choose(module: nn.Module, bits: int, embedding_bits: Optional[int],
            bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]],
            keep: Union[str, Iterable[str]]) -> list[_Choice]:
    """The layers to pack, linear ones first. Subclasses are left alone: nobody knows how else they
    use their weights (torch.nn.MultiheadAttention does)."""
    rules = list(bits_for.items() if isinstance(bits_for, Mapping) else bits_for)
    kept = [keep] if isinstance(keep, str) else list(keep)
    found = []
    for name, layer in module.named_modules():
        if type(layer) is nn.Linear or _is_conv1d(layer):
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
          tied: dict[tuple[int, int], _Packed]) -> _Packed:
    """A table that is a linear layer's weight at the same bits shares its codes."""
    packed: _Packed
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


def _replace(module: nn.Module, made: dict[int, _Packed]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):  # named_children() gives each once
            if child is not None and id(child) in made:
                setattr(parent, name, made[id(child)])
    return module


def compress(module: nn.Module, data: Optional[Iterable[Any]] = None, *, bits: int = 8,
             activation_bits: int = 12, embedding_bits: Optional[int] = None,
             bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]] = (),
             keep: Union[str, Iterable[str]] = (), inplace: bool = False,
             progress: ProgressOption = None) -> Compressed:
    """Packs the linear layers (and on request the embedding tables) of any module: `nn.Linear`,
    Transformers' `Conv1D`, `nn.Embedding`.

    Layers are fused and quantized one by one, nothing is pruned; checkpoints of supported families
    go through `sfq.compress`, which prunes and recalibrates too. A layer that is used in two places
    stays one layer. Embedding tables that share their weight with a linear layer are packed with
    the same codes when both have the same bits.

    Args:
        module: on the CPU.
        data: batches to run through the module (a tensor, a tuple of arguments, or a dict of them)
            so that errors count where inputs are large; None: all inputs count alike.
        bits: per weight, 2..8.
        activation_bits: as for `Linear`.
        embedding_bits: per weight of `nn.Embedding` tables; None: they stay as they are.
        bits_for: other bits by regular expression over the layer's name, or 16: stays as it is.
            The last that matches counts.
        keep: regular expressions; layers that match stay as they are.
        inplace: change the module itself; else a copy, which takes its memory once more.
        progress: as for `sfq.compress`.

    Example:
        >>> done = sfq.torch.compress(model, [batch], bits=4)
        >>> model = done.module
    """
    before = _bytes(module)
    if not inplace:
        module = copy.deepcopy(module)
    chosen = _choose(module, bits, embedding_bits, bits_for, keep)
    energy = None if data is None else _measure(module, chosen, data)
    total = sum(one.parameter.numel() for one in chosen)
    done = 0
    made: dict[int, _Packed] = {}
    tied: dict[tuple[int, int], _Packed] = {}
    reports = []
    with Hooks(progress) as hooks:
        for one in chosen:
            weight = one.weight
            packed = _pack(one, activation_bits, energy, tied)
            made[id(one.layer)] = packed
            off = packed.dequantize() - weight.detach().float()
            reports.append(LayerReport(
                one.name, one.bits, _bytes(one.layer), _bytes(packed),
                float(off.norm() / weight.detach().float().norm().clamp_min(1e-30))))
            done += weight.numel()
            hooks.report(Progress("fuse", 1, 1, done, total, "weights"))
    module = _replace(module, made)
    after = _bytes(module)
    return Compressed(module, reports, before, after, 1 - after / max(1, before))
