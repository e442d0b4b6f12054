"""From a model as Transformers builds it, without weights, to one that an artifact fits: packed
modules, the widths that each layer keeps, heads that share the table of the embeddings. What
config.json says and what the files hold is compared before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Optional, Union

import torch
from safetensors import safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

from .. import errors
from .._linear import layout
from ._config import LIMIT, SfqConfig
from ._layers import Embedding, Linear, TiedLinear

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCK_ATTENTION = {  # where a layer's attention is, under the base model
    "gpt2": "h.{}.attn",
    "bert": "encoder.layer.{}.attention.self",
    "distilbert": "transformer.layer.{}.attention",
}
_LLAMA_ATTENTION = "layers.{}.self_attn"


@dataclass(frozen=True)
class Stored:
    """A tensor as a file's header describes it."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def read_headers(files: list[str]) -> dict[str, Stored]:
    """Every tensor of some safetensors files, by name."""
    out: dict[str, Stored] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                part = opened.get_slice(name)
                out[name] = Stored(file, part.get_dtype(), tuple(part.get_shape()))
    return out


def _need(name: str, stored: dict[str, Stored], dtypes: tuple[str, ...],
          shape: tuple[int, ...]) -> Stored:
    tensor = stored.get(name)
    if tensor is None:
        file = next(iter(stored.values())).file if stored else ""
        raise errors.FormatError(f"{file}: tensor {name} is missing", "E_FORMAT", file, name)
    if tensor.dtype not in dtypes or tensor.shape != shape:
        raise errors.FormatError(
            f"{tensor.file}: tensor {name} is {tensor.dtype} {list(tensor.shape)}, expected "
            f"{' or '.join(dtypes)} {list(shape)}", "E_FORMAT", tensor.file, name)
    return tensor


def _module(model: nn.Module, name: str) -> Optional[nn.Module]:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _place(model: Any, name: str) -> Optional[str]:
    """A checkpoint's module in this model, which may have the base model's prefix or lack it; None:
    this class has no such module."""
    prefix = model.base_model_prefix + "."
    bare = name[len(prefix):] if name.startswith(prefix) else name
    for candidate in (name, bare, prefix + bare):
        if _module(model, candidate) is not None:
            return candidate
    return None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    module.train(model.training)
    setattr(model.get_submodule(parent), leaf, module)


# ---- packed matrices -----------------------------------------------------------------------------


def _spec(name: str, entry: Any) -> tuple[int, int, int, int]:
    """Rows, columns, bits and activation bits."""
    try:
        rows, columns = entry["shape"]
        numbers = (rows, columns, entry["bits"], entry["activation_bits"])
    except (TypeError, KeyError, ValueError):
        numbers = (0, 0, 0, 0)
    if not all(isinstance(n, int) for n in numbers) or not 2 <= numbers[2] <= 8 \
            or not 1 <= min(numbers[:2]) <= max(numbers[:2]) < LIMIT or not 8 <= numbers[3] <= 14:
        raise errors.FormatError(f"quantization_config.tensors: {name} has no shape, bits and "
                                 "activation_bits", "E_FORMAT", "", name)
    return numbers


def _pack(model: Any, place: str, name: str, entry: Any, stored: dict[str, Stored]) -> None:
    rows, columns, bits, activation_bits = _spec(name, entry)
    want = layout(rows, columns, bits)
    _need(name + ".codes", stored, ("U8",), want.codes)
    scales = _need(name + ".scales", stored, ("F16", "F32"), want.scales)
    old = model.get_submodule(place)
    new: Union[Linear, Embedding]
    if isinstance(old, nn.Embedding):
        if (old.num_embeddings, old.embedding_dim) != (rows, columns):
            raise errors.FormatError(
                f"{scales.file}: {name} has {rows} rows of {columns}, the model's config says "
                f"{old.num_embeddings} of {old.embedding_dim}", "E_FORMAT", scales.file, name)
        new = Embedding(rows, columns, bits=bits, scale_dtype=_DTYPES[scales.dtype])
        new.activation_bits = activation_bits
    elif isinstance(old, (nn.Linear, Conv1D)):
        bias = None
        if name + ".bias" in stored:
            bias = _need(name + ".bias", stored, tuple(_DTYPES), (rows,))
        new = Linear(columns, rows, bias is not None, bits=bits, activation_bits=activation_bits,
                     scale_dtype=_DTYPES[scales.dtype])
        if bias is not None:
            new.bias = torch.empty(rows, dtype=_DTYPES[bias.dtype], device="meta")
    else:
        raise errors.UnsupportedError(
            f"{name} is packed, but {type(model).__name__} has a {type(old).__name__} there",
            "E_UNSUPPORTED", scales.file, name)
    _replace(model, place, new)


# ---- what is not packed --------------------------------------------------------------------------


def _fit(model: Any, name: str, tensor: Stored) -> None:
    """A dense matrix or bias that pruning made narrower, a bias that compression added."""
    module_name, _, leaf = name.rpartition(".")
    place = _place(model, module_name)
    module = None if place is None else model.get_submodule(place)
    if leaf not in ("weight", "bias") or not isinstance(module, (nn.Linear, Conv1D)):
        return
    old = getattr(module, leaf)
    if old is not None and tuple(old.shape) == tensor.shape:
        return
    if len(tensor.shape) != (2 if leaf == "weight" else 1):
        return
    new = nn.Parameter(torch.empty(tensor.shape, device="meta"))
    module.register_parameter(leaf, new)
    if leaf == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = tensor.shape
    elif leaf == "weight":
        module.nx, module.nf = tensor.shape


def _fit_attention(model: Any, layers: list[dict[str, int]], file: str) -> None:
    """Head counts of each layer. The forward pass takes most of them from the shapes."""
    base = model.base_model
    count = getattr(model.config, "num_hidden_layers", len(layers))
    if len(layers) != count:
        raise errors.FormatError(f"{file}: quantization_config has {len(layers)} layers, the model "
                                 f"{count}", "E_FORMAT", file)
    pattern = _BLOCK_ATTENTION.get(model.config.model_type, _LLAMA_ATTENTION)
    for i, layer in enumerate(layers):
        heads, kv_heads = layer.get("heads", 0), layer.get("kv_heads", 0)
        if min(heads, kv_heads, layer.get("ffn", 0)) < 1:
            raise errors.UnsupportedError(
                f"{file}: layer {i} has lost its attention or its MLP, which this plug-in does not "
                "support; use sfq.Model", "E_UNSUPPORTED", file)
        module = _module(base, pattern.format(i))
        if module is None:
            raise errors.UnsupportedError(
                f"{file}: {type(model).__name__} has no {pattern.format(i)}", "E_UNSUPPORTED", file)
        head_dim = getattr(module, "head_dim", getattr(module, "attention_head_size", 0))
        facts = {"num_key_value_groups": heads // kv_heads, "num_heads": heads, "n_heads": heads,
                 "num_attention_heads": heads, "all_head_size": heads * head_dim,
                 "split_size": heads * head_dim}
        for key, value in facts.items():
            if hasattr(module, key):
                setattr(module, key, value)


def _parameter(bias: Any) -> Optional[nn.Parameter]:
    return bias if isinstance(bias, nn.Parameter) else None


def _tie(model: Any) -> None:
    """Heads tied to a packed table read the table's codes; Transformers ties only parameters."""
    gone = set()
    for target, source in model.all_tied_weights_keys.items():
        table = _module(model, source.rpartition(".")[0])
        head = _module(model, target.rpartition(".")[0])
        if isinstance(table, Embedding):
            gone.add(target)
            if isinstance(head, nn.Linear):
                _replace(model, target.rpartition(".")[0],
                         TiedLinear(table, _parameter(head.bias)))
    for target in gone:
        del model.all_tied_weights_keys[target]
    if gone:
        tied = model._tied_weights_keys or {}
        model._tied_weights_keys = {k: v for k, v in tied.items() if k not in gone}


def build(model: Any, config: SfqConfig, files: list[str]) -> None:
    """Changes a model on the meta device so that the files' tensors are its own. Called inside
    Transformers' loading, where torch's default type is the model's: new parameters get it.

    Raises:
        FormatError: config.json and the files contradict each other.
        UnsupportedError: a packed matrix where the model has none, a layer without attention.
    """
    stored = read_headers(files)
    names: dict[str, str] = {}
    for name, entry in config.tensors.items():
        place = _place(model, name)
        if place is not None:
            _pack(model, place, name, entry, stored)
            names[name] = place
    for name, tensor in stored.items():
        if name.rpartition(".")[0] not in config.tensors:
            _fit(model, name, tensor)
    _fit_attention(model, config.layers, os.path.dirname(files[0]))
    _tie(model)
    config.rename(names)
