"""PyTorch: linear layers whose weights are packed codes, computed by the C kernels on the CPU.

    import torch
    import sfq.torch

    layer = sfq.torch.Linear.from_float(torch.nn.Linear(1024, 4096), bits=4)
    y = layer(torch.randn(8, 1024))

The kernel is the operator `sfq::linear`, in C from PyTorch's dispatcher on: it works under
`torch.compile(fullgraph=True)` and `torch.export`, and gives gradients of its input (and of a
bias), not of the codes. Codes and scales are buffers with the names and layouts of an artifact:
NAME.codes, NAME.scales, NAME.bias.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, Callable, Optional, cast

import torch
from torch import Tensor, nn

from . import errors
from ._linear import Weight, layout, workers
from ._native import ffi, text

__all__ = ["Linear", "set_num_threads"]


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


# ---- the layer -----------------------------------------------------------------------------------


class Linear(nn.Module):
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

    codes: Tensor
    scales: Tensor
    bias: Optional[Tensor]
    _none: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, bits: int = 8,
                 activation_bits: int = 12, scale_dtype: torch.dtype = torch.float16,
                 device: Optional[torch.device] = None) -> None:
        super().__init__()
        if scale_dtype not in (torch.float16, torch.float32):
            raise _refuse(f"scales are float16 or float32, not {scale_dtype}")
        if not 8 <= activation_bits <= 14:
            raise _refuse(f"activation_bits is {activation_bits}; it must be in 8..14")
        shape = layout(out_features, in_features, bits)
        self.in_features = in_features
        self.out_features = out_features
        self.bits = bits
        self.activation_bits = activation_bits
        zeros = torch.zeros(shape.codes, dtype=torch.uint8, device=device)
        self.register_buffer("codes", zeros)
        self.register_buffer("scales", torch.zeros(shape.scales, dtype=scale_dtype, device=device))
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
        if weight.dim() != 2 or not weight.dtype.is_floating_point:
            raise _refuse(f"the weight is {weight.dtype} {tuple(weight.shape)}; expected floats "
                          "[out_features, in_features]")
        n, k = weight.shape
        if energy is not None and tuple(energy.shape) != (k,):
            raise _refuse(f"energy is {tuple(energy.shape)}; expected [{k}]")
        self = cls(k, n, bias is not None, bits=bits, activation_bits=activation_bits,
                   scale_dtype=torch.float32)
        w = weight.detach().to("cpu", torch.float32).contiguous()
        e = None if energy is None else energy.detach().to("cpu", torch.float32).contiguous()
        f16 = workers.pack(w.data_ptr(), n, k, bits, 0 if e is None else e.data_ptr(),
                           self.codes.data_ptr(), self.scales.data_ptr())
        if f16:
            self.scales = self.scales.to(torch.float16)
        if bias is not None:
            self.bias = bias.detach().to("cpu", torch.float32).clone()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] of any float type to [..., out_features] of the same type."""
        y: Tensor = _op(x, self.codes, self.scales, self._none if self.bias is None else self.bias,
                        self.out_features, self.in_features, self.bits, self.activation_bits)
        return y

    def dequantize(self) -> Tensor:
        """W as it is computed with: float32 [out_features, in_features]."""
        w: Tensor = torch.ops.sfq.unpack(self.codes, self.scales, self.out_features,
                                         self.in_features, self.bits)
        return w

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}, bits={self.bits}, "
                f"activation_bits={self.activation_bits}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear:
        """Moves go through, casts do not: scales of another type would be other weights."""
        before = dict(self._buffers)
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
