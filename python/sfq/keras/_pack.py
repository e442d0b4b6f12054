"""Matrices of NumPy through the C library, and how their codes lie in a Keras layer.

The library's own layout is made for its kernels. A Keras layer computes with plain operations of
its backend, so that an exported graph needs nothing of ours; its codes lie as the framework's
matrix does. 8 bits are one int8 matrix. Fewer are split in planes of 4, 2 and 1 bits (7 = 4 + 2 +
1), which fill bytes exactly; a byte of a plane holds codes that are a whole part of the columns
apart, so that a row is put together by joining, not by interleaving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .. import errors
from .._linear import Weight, layout, workers

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """How a stored matrix [rows, columns] shares its scales.

    Attributes:
        rows, columns: of the matrix.
        row_block, column_block: weights of a block of this size have one scale.
        planes: widths in bits of the planes; () for 8 bits.
    """

    rows: int
    columns: int
    row_block: int
    column_block: int
    planes: tuple[int, ...]

    @property
    def scales(self) -> tuple[int, int]:
        """The shape of the scales."""
        return -(-self.rows // self.row_block), -(-self.columns // self.column_block)

    def codes(self) -> list[tuple[str, str, tuple[int, int]]]:
        """Name, dtype and shape of each array of codes."""
        if not self.planes:
            return [("codes", "int8", (self.rows, self.columns))]
        return [(f"codes_{width}", "uint8", (self.rows, -(-self.columns * width // 8)))
                for width in self.planes]


def grid(rows: int, columns: int, bits: int, table: bool) -> Grid:
    """table: rows are the outputs (an embedding); else columns are (a kernel of Dense)."""
    n, k = (rows, columns) if table else (columns, rows)
    how = layout(n, k, bits)
    share, segment = 16 // how.scales[2], min(how.segment_k, k)
    planes = tuple(width for width in (4, 2, 1) if bits & width) if bits < 8 else ()
    return Grid(rows, columns, *((share, segment) if table else (segment, share)), planes)


@dataclass(frozen=True)
class Packed:
    """A fused and quantized matrix as a layer stores it."""

    grid: Grid
    bits: int
    codes: list[Array]
    scales: Array
    values: Floats
    """[rows, columns], what codes and scales stand for"""

    @property
    def nbytes(self) -> int:
        return sum(c.nbytes for c in self.codes) + self.scales.nbytes


def _aligned(shape: Sequence[int]) -> Array:
    """uint8, where the kernels may read whole cache lines."""
    size = int(np.prod(shape))
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + size].reshape(shape)


def spread(scales: Array, how: Grid) -> Floats:
    """The scale of every weight, [rows, columns] or broadcasting to it."""
    wide = np.repeat(np.repeat(scales, how.row_block, 0), how.column_block, 1)
    return wide[:how.rows, :how.columns].astype(np.float32)


def _planes(codes: Array, how: Grid) -> list[Array]:
    """Unsigned codes [rows, columns] as the bytes of the planes, the widest, which holds the high
    bits, first."""
    left, out = sum(how.planes), []
    for width in how.planes:
        left -= width
        each, per = -(-how.columns * width // 8), 8 // width
        part = np.zeros((how.rows, each * per), np.uint8)
        part[:, :how.columns] = (codes >> left) & (2 ** width - 1)
        plane = np.zeros((how.rows, each), np.uint8)
        for i in range(per):
            plane |= part[:, i * each:(i + 1) * each] << (width * i)
        out.append(plane)
    return out


def pack(matrix: Array, bits: int, *, table: bool, energy: Optional[Array] = None,
         what: str = "the matrix") -> Packed:
    """Fuses and quantizes a matrix [rows, columns] of floats.

    Args:
        bits: 2..8.
        table: rows are the outputs (an embedding), else columns are.
        energy: of each input, weighs the errors; None: all alike.
        what: for messages.

    Raises:
        ArgumentError, NumericError: named after `what`.
    """
    w = np.ascontiguousarray(matrix if table else matrix.T, np.float32)
    n, k = w.shape
    how = grid(matrix.shape[0], matrix.shape[1], bits, table)
    shape = layout(n, k, bits)
    codes, scales = _aligned(shape.codes), np.zeros(shape.scales, np.float32)
    e = None if energy is None else np.ascontiguousarray(energy, np.float32)
    try:
        f16 = workers.pack(w.ctypes.data, n, k, bits, 0 if e is None else e.ctypes.data,
                           codes.ctypes.data, scales.ctypes.data)
    except errors.NumericError as error:
        raise errors.NumericError(f"{what}: {error}", "E_NUMERIC", tensor=what) from None
    values = np.empty((n, k), np.float32)
    workers.unpack(Weight(n, k, bits, 8, codes.ctypes.data, scales.ctypes.data),
                   values.ctypes.data)
    by_row = scales.transpose(0, 2, 1).reshape(-1, shape.scales[1])
    by_row = by_row[:-(-n * shape.scales[2] // 16)]
    if not table:
        values, by_row = np.ascontiguousarray(values.T), np.ascontiguousarray(by_row.T)
    whole = np.rint(values / spread(by_row, how)).astype(np.int16)
    planes = ([whole.astype(np.int8)] if bits == 8 else
              _planes((whole + 2 ** (bits - 1)).astype(np.uint8), how))
    return Packed(how, bits, planes, by_row.astype(np.float16) if f16 else by_row, values)
