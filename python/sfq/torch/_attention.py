"""torch.nn.MultiheadAttention with its four projections as layers of their own: torch's module
keeps them as one matrix and reads the weights directly, so that neither a packed layer nor a
narrower one fits into it. The call is torch's, and so is what comes out."""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._ops import refuse


def refusal(attention: nn.MultiheadAttention) -> Optional[str]:
    """Why this module cannot be taken apart; None: it can."""
    if not attention._qkv_same_embed_dim:
        return "its keys or values have widths of their own (kdim, vdim)"
    if attention.bias_k is not None or attention.bias_v is not None:
        return "it adds a key and a value of its own (add_bias_kv)"
    if attention.add_zero_attn:
        return "it adds a key of zeros (add_zero_attn)"
    return None


def _additive(mask: Optional[Tensor], dtype: torch.dtype) -> Optional[Tensor]:
    """True is what shall not be seen; floats are added to the scores."""
    if mask is None or mask.is_floating_point():
        return mask if mask is None else mask.to(dtype)
    if mask.dtype is not torch.bool:
        raise refuse(f"an attention mask is {mask.dtype}; expected bool or floats")
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)


class MultiheadAttention(nn.Module):
    """`torch.nn.MultiheadAttention` with `q_proj`, `k_proj`, `v_proj` and `out_proj` as layers.

    Called as torch's own, with its defaults, masks and layouts. Heads may be fewer than they were:
    `heads` are the numbers of those that are left, and a mask that differs by head is given for
    all that there were. Weights that come out (`need_weights`) are those of the heads left.

    Attributes:
        embed_dim: width of query and output; keys and values have it, too.
        num_heads, head_dim: heads that are left, and the width of each.
        original_heads, heads: how many there were, and which of them are left.
        dropout, batch_first: as in torch.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module

    # What torch.nn.TransformerEncoderLayer asks before it would read weights by itself.
    _qkv_same_embed_dim = False
    in_proj_weight = None
    in_proj_bias = None

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        reason = refusal(attention)
        if reason is not None:
            raise refuse(f"this attention cannot be taken apart: {reason}")
        self.embed_dim = attention.embed_dim
        self.num_heads = self.original_heads = attention.num_heads
        self.heads = tuple(range(self.num_heads))
        self.head_dim = attention.head_dim
        self.dropout = attention.dropout
        self.batch_first = attention.batch_first
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        biases = (None,) * 3 if bias is None else bias.detach().chunk(3)
        for name, w, b in zip("qkv", weight.detach().chunk(3), biases):
            setattr(self, f"{name}_proj", _layer(w, b))
        out = attention.out_proj
        self.out_proj = _layer(out.weight.detach(), None if out.bias is None else out.bias.detach())
        self.train(attention.training)

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                key_padding_mask: Optional[Tensor] = None, need_weights: bool = True,
                attn_mask: Optional[Tensor] = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Optional[Tensor]]:
        """query [batch, L, embed_dim], key and value [batch, S, embed_dim] (batch second without
        batch_first; none at all is fine, too) to the output, as query, and the weights
        [batch, L, S] ([batch, heads, L, S] unless averaged; None unless needed).

        Args:
            key_padding_mask: [batch, S], bool (true: not seen) or added to the scores.
            attn_mask: [L, S], or [batch * original_heads, L, S].
            is_causal: attn_mask is the causal one, which is made where it is not given.
        """
        alone = query.dim() == 2
        if alone:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._split(x) for x in (self.q_proj(query), self.k_proj(key),
                                            self.v_proj(value)))
        mask = self._mask(q, k, key_padding_mask, attn_mask, is_causal)
        mixed, weights = self._attend(q, k, v, mask, need_weights)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if alone:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _split(self, x: Tensor) -> Tensor:
        """[batch, T, heads * head_dim] to [batch, heads, T, head_dim]."""
        return x.view(*x.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Optional[Tensor], mask: Optional[Tensor],
              is_causal: bool) -> Optional[Tensor]:
        """What is added to the scores [batch, heads, L, S]: of a shape that broadcasts to them."""
        batch, _, length, _ = q.shape
        keys = k.shape[2]
        mask = _additive(mask, q.dtype)
        if mask is None and is_causal:
            mask = torch.full((length, keys), -math.inf, dtype=q.dtype, device=q.device).triu(1)
        if mask is not None and mask.dim() == 3:
            mask = mask.view(batch, self.original_heads, length, keys)
            if self.num_heads < self.original_heads:
                mask = mask[:, list(self.heads)]
        padding = _additive(padding, q.dtype)
        if padding is None:
            return mask
        padding = padding.view(batch, 1, 1, keys)
        return padding if mask is None else mask + padding

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Optional[Tensor],
                need_weights: bool) -> tuple[Tensor, Optional[Tensor]]:
        drop = self.dropout if self.training else 0.0
        if not need_weights:
            return functional.scaled_dot_product_attention(q, k, v, mask, drop), None
        scores = (q * (1 / math.sqrt(self.head_dim))) @ k.transpose(-2, -1)
        weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
        if drop > 0:
            weights = functional.dropout(weights, drop)
        return weights @ v, weights

    def extra_repr(self) -> str:
        return (f"{self.embed_dim}, {self.num_heads} of {self.original_heads} heads, "
                f"batch_first={self.batch_first}")


def _layer(weight: Tensor, bias: Optional[Tensor]) -> nn.Linear:
    """A linear layer of these weights, which stay where they are."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
