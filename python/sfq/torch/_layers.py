"""Layers whose weights are packed codes: Linear and Embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional, TypeVar, cast

import torch
from torch import Tensor, nn

from .._linear import layout, workers
from . import _ops
from ._ops import dense, refuse

_Self = TypeVar("_Self", bound="Packed")


class Packed(nn.Module):
    """Codes and scales of a matrix [rows, columns] as buffers."""

    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, bits: int, scale_dtype: torch.dtype,
                 device: Optional[torch.device]) -> None:
        super().__init__()
        if scale_dtype not in (torch.float16, torch.float32):
            raise refuse(f"scales are float16 or float32, not {scale_dtype}")
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
            raise refuse(f"energy is {tuple(energy.shape)}; expected [{k}]")
        w = dense(weight.detach().cpu())
        e = None if energy is None else dense(energy.detach().cpu())
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


def check_matrix(weight: Tensor) -> None:
    if weight.dim() != 2 or not weight.is_floating_point():
        raise refuse(f"the weight is {weight.dtype} {tuple(weight.shape)}; expected floats of 2 "
                      "dimensions")


class Linear(Packed):
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
            raise refuse(f"activation_bits is {activation_bits}; it must be in 8..14")
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
        check_matrix(weight)
        n, k = weight.shape
        self = cls(k, n, bias is not None, bits=bits, activation_bits=activation_bits,
                   scale_dtype=torch.float32)
        self._fill(weight, energy)
        if bias is not None:
            self.bias = bias.detach().to("cpu", torch.float32).clone()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] of any float type to [..., out_features] of the same type."""
        return _ops.linear(x, self.codes, self.scales,
                           self._none if self.bias is None else self.bias, self.out_features,
                           self.in_features, self.bits, self.activation_bits)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}, bits={self.bits}, "
                f"activation_bits={self.activation_bits}")


class Embedding(Packed):
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
        check_matrix(table.weight)
        self = cls(*table.weight.shape, bits=bits, scale_dtype=torch.float32)
        self._fill(table.weight, None)
        self._like = torch.empty(0, dtype=table.weight.dtype)
        return self

    @classmethod
    def from_codes(cls, packed: Packed, dtype: torch.dtype = torch.float32) -> Embedding:
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
