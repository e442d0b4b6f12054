"""The operators sfq::linear, sfq::unpack and sfq::embedding: C kernels as PyTorch sees them, with
shapes for tracing and gradients of what is no code."""

from __future__ import annotations

import os
import pathlib
from typing import Any, Optional, cast

import torch
from torch import Tensor

from .. import errors
from .._linear import Weight, layout, workers
from .._native import ffi, text


def set_num_threads(threads: int) -> None:
    """How many threads the packed layers of this process use; 0: as many as it may use physical
    cores. They are apart from torch's own."""
    workers.set_threads(threads)


def refuse(what: str) -> errors.ArgumentError:
    return errors.ArgumentError(f"sfq.torch: {what}", "E_ARGUMENT")


def dense(x: Tensor) -> Tensor:
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
        raise refuse(f"codes are {codes.dtype} {tuple(codes.shape)}; {outputs} x {inputs} weights "
                      f"of {bits} bits have uint8 {want.codes}")
    if not scales.is_floating_point() or scales.shape != want.scales:
        raise refuse(f"scales are {scales.dtype} {tuple(scales.shape)}; {outputs} x {inputs} "
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
    folder = pathlib.Path(__file__).parent.parent
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
    scales = dense(scales)
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
        raise refuse(f"the ids are {ids.dtype}; expected int64 or int32")
    wanted, scales = ids.to(torch.int64).contiguous(), dense(scales)
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


# ---- calls ---------------------------------------------------------------------------------------

_below_autograd: Any = cast(Any, torch._C)._AutoDispatchBelowAutograd


def linear(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor, outputs: int, inputs: int,
           bits: int, activation_bits: int) -> Tensor:
    """x [..., inputs] times the packed matrix [outputs, inputs]. Under no_grad straight to the
    kernel: the dispatcher's step for gradients is Python, and takes a third of a small call."""
    y: Tensor
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        y = _op(x, codes, scales, bias, outputs, inputs, bits, activation_bits)
    else:
        with _below_autograd():
            y = _op(x, codes, scales, bias, outputs, inputs, bits, activation_bits)
    return y
