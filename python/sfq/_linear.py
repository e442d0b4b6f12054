"""Packed matrices for frameworks: memory addresses in, the C kernels behind. Who owns the memory is
the caller's business; layouts are those of an artifact (docs/FORMAT.md)."""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import dataclass
from typing import Any, Optional

from . import errors
from ._native import Hooks, ProgressOption, call, ffi, lib


@dataclass(frozen=True)
class Layout:
    """How W [outputs, inputs] is packed: codes uint8 [panels, k_blocks, 128 * bits], scales
    [panels, segments, 16 / share] for segments of segment_k inputs."""

    codes: tuple[int, int, int]
    scales: tuple[int, int, int]
    segment_k: int


@functools.lru_cache(maxsize=4096)
def layout(outputs: int, inputs: int, bits: int) -> Layout:
    """ArgumentError for bits outside 2..8 and sizes of 0."""
    if outputs < 1 or inputs < 1:
        raise errors.ArgumentError(f"a matrix of {outputs} x {inputs} weights is empty",
                                   "E_ARGUMENT")
    c = ffi.new("sfq_linear_layout *")
    call(lib.sfq_linear_layout_get, outputs, inputs, bits, c)
    return Layout((c.panels, c.k_blocks, 128 * bits), (c.panels, c.segments, 16 // c.share),
                  c.segment_k)


class Weight:
    """Where a packed matrix lies: addresses of codes (64-byte aligned), float32 scales, and a
    float32 bias or 0. What the addresses point to must outlive it."""

    __slots__ = ("c",)

    def __init__(self, outputs: int, inputs: int, bits: int, activation_bits: int, codes: int,
                 scales: int, bias: int = 0) -> None:
        self.c = ffi.new("sfq_linear_weight *", (
            outputs, inputs, bits, activation_bits, ffi.cast("const uint8_t *", codes),
            ffi.cast("const float *", scales), ffi.cast("const float *", bias)))


class Workers:
    """The threads that multiply, opened at the first use and shared by the whole process. Calls
    wait for each other in C."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: Optional[Any] = None
        self._threads = 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a forked child the threads are gone, and one of them may have held a lock."""
        self._lock = threading.Lock()
        self._handle = None

    def handle(self) -> Any:
        """sfq_workers *, the same until the process forks."""
        if self._handle is None:
            with self._lock:
                if self._handle is None:
                    out = ffi.new("sfq_workers **")
                    call(lib.sfq_workers_open, out, self._threads)
                    self._handle = out[0]
        return self._handle

    def set_threads(self, threads: int) -> None:
        """0: as many as this process may use physical cores; else 1..256."""
        call(lib.sfq_workers_set_threads, self.handle(), threads)
        self._threads = threads

    def apply(self, weight: Weight, x: int, rows: int, y: int) -> None:
        """y [rows, outputs] = x [rows, inputs] W^T + bias; addresses of float32."""
        call(lib.sfq_linear_apply, self.handle(), weight.c, ffi.cast("const float *", x), rows,
             ffi.cast("float *", y))

    def unpack(self, weight: Weight, out: int) -> None:
        """out [outputs, inputs], float32."""
        call(lib.sfq_linear_unpack, self.handle(), weight.c, ffi.cast("float *", out))

    def rows(self, weight: Weight, rows: int, count: int, out: int) -> None:
        """out [count, inputs], float32, of rows int64 [count]."""
        call(lib.sfq_linear_rows, self.handle(), weight.c, ffi.cast("const int64_t *", rows), count,
             ffi.cast("float *", out))

    def pack(self, weight: int, outputs: int, inputs: int, bits: int, energy: int, codes: int,
             scales: int, progress: ProgressOption = False) -> bool:
        """Quantizes float32 weights; whether F16 holds every scale exactly."""
        f16 = ffi.new("bool *")
        with Hooks(progress) as hooks:
            hooks.call(lib.sfq_linear_pack, self.handle(), ffi.cast("const float *", weight),
                       outputs, inputs, bits, ffi.cast("const float *", energy), hooks.c,
                       ffi.cast("uint8_t *", codes), ffi.cast("float *", scales), f16)
        return bool(f16[0])


workers = Workers()
