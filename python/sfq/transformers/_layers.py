"""The packed modules of a Transformers model: those of `sfq.torch` with what Transformers asks of
its modules, and a head that shares the table of the embeddings."""

from __future__ import annotations

from typing import Any, Optional, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import torch as sfq_torch


def _settled(weight: Tensor) -> Tensor:
    """Transformers' initialization leaves tensors with this mark alone."""
    cast(Any, weight)._is_hf_initialized = True
    return weight


class Linear(sfq_torch.Linear):
    """`sfq.torch.Linear` inside a Transformers model.

    Attributes:
        exact: multiply with decoded weights in floats instead of integers.
    """

    exact: bool = False

    @property
    def weight(self) -> Tensor:
        """A decoded copy, float32 [out_features, in_features]: changing it changes nothing."""
        return _settled(self.dequantize())

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] to [..., out_features] of the same type."""
        if not self.exact:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.dequantize().to(x.dtype), bias)


class Embedding(sfq_torch.Embedding):
    """`sfq.torch.Embedding` inside a Transformers model, where an output head may share it.

    Attributes:
        activation_bits: of that head's input.
        exact: as for `Linear`, in that head.
    """

    activation_bits: int = 12
    exact: bool = False

    @property
    def weight(self) -> Tensor:
        """A decoded copy, float32 [num_embeddings, embedding_dim]: changing it changes nothing."""
        return _settled(self.dequantize())

    def multiply(self, x: Tensor) -> Tensor:
        """x [..., embedding_dim] to [..., num_embeddings] of the same type."""
        if self.exact:
            return functional.linear(x, self.dequantize().to(x.dtype))
        y: Tensor = torch.ops.sfq.linear(x, self.codes, self.scales, self._like,
                                         self.num_embeddings, self.embedding_dim, self.bits,
                                         self.activation_bits)
        return y


class TiedLinear(nn.Module):
    """An output head over the packed table of the embeddings; it holds no matrix of its own."""

    bias: Optional[nn.Parameter]

    def __init__(self, table: Embedding, bias: Optional[nn.Parameter] = None) -> None:
        super().__init__()
        self._table = (table,)  # in a tuple, so that it is no submodule: it is saved once
        self.register_parameter("bias", bias)

    @property
    def table(self) -> Embedding:
        """The embeddings."""
        return self._table[0]

    @property
    def weight(self) -> Tensor:
        """A decoded copy, float32 [num_embeddings, embedding_dim]: changing it changes nothing."""
        return self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        """x [..., embedding_dim] to [..., num_embeddings] of the same type."""
        y = self._table[0].multiply(x)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.table.embedding_dim}, {self.table.num_embeddings}"
