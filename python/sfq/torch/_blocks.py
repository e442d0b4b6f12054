"""Attention and MLP blocks in a module that somebody else wrote: found by structure and by the
names that are usual, and cut. Nothing is known of the code between the layers, so whether a block
is what it looks like is proved with the module itself (_prune.py): without some of the units it
must give what it gives when the output projection does not see them.

A unit is a neuron, or a head: with grouped queries a key-value head and all query heads of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional, cast

import torch
from torch import Tensor, nn

from ._attention import MultiheadAttention

QUERIES = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q_lin", "k_lin", "v_lin"),
           ("wq", "wk", "wv"), ("to_q", "to_k", "to_v"), ("q", "k", "v"),
           ("linear_q", "linear_k", "linear_v"), ("query_proj", "key_proj", "value_proj"))
FUSED_QUERIES = ("c_attn", "qkv", "qkv_proj", "Wqkv", "in_proj", "query_key_value")
OUTPUTS = ("o_proj", "out_proj", "out_lin", "wo", "to_out.0", "to_out", "o", "c_proj", "proj",
           "dense", "linear_out", "output_proj", "Wo")
GATED = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("wi_0", "wi_1", "wo"),
         ("gate", "up", "down"))
PLAIN = (("fc1", "fc2"), ("linear1", "linear2"), ("up_proj", "down_proj"), ("c_fc", "c_proj"),
         ("dense_h_to_4h", "dense_4h_to_h"), ("lin1", "lin2"), ("wi", "wo"), ("w1", "w2"),
         ("up", "down"), ("w_1", "w_2"), ("fc_in", "fc_out"), ("gate_up_proj", "down_proj"),
         ("w12", "w3"), ("Wi", "Wo"), ("intermediate.dense", "output.dense"))
HEAD_WIDTHS = ("head_dim", "attention_head_size", "dim_head", "d_head", "head_size", "d_kv",
               "key_value_proj_dim")
HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
GROUP_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head")
WIDTHS = ("all_head_size", "inner_dim", "split_size")

# ---- linear layers of both kinds -----------------------------------------------------------------


def is_conv1d(layer: Optional[nn.Module]) -> bool:
    """GPT-2's linear layer in Transformers, which keeps its weight as [inputs, outputs]."""
    kind = type(layer)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def is_linear(layer: Optional[nn.Module]) -> bool:
    """Subclasses are somebody's own: nobody knows how else they use their weights."""
    return type(layer) is nn.Linear or is_conv1d(layer)


def matrix(layer: nn.Module) -> Tensor:
    """Its weight as [outputs, inputs]."""
    weight = cast(Tensor, layer.weight)
    return weight.T if is_conv1d(layer) else weight


def set_matrix(layer: nn.Module, weight: Tensor, bias: Optional[Tensor]) -> None:
    """Other weights [outputs, inputs] of any widths, in the type of the old ones."""
    rows, columns = weight.shape
    old = cast(nn.Parameter, layer.weight)
    kept = (weight.T if is_conv1d(layer) else weight).to(old.dtype).contiguous()
    any_layer = cast(Any, layer)
    any_layer.weight = nn.Parameter(kept, requires_grad=old.requires_grad)
    if bias is not None:
        was = cast(nn.Parameter, layer.bias)
        any_layer.bias = nn.Parameter(bias.to(was.dtype).contiguous(),
                                      requires_grad=was.requires_grad)
    names = ("nf", "nx") if is_conv1d(layer) else ("out_features", "in_features")
    for name, size in zip(names, (rows, columns)):
        setattr(layer, name, size)


# ---- blocks --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Part:
    """A layer some of whose outputs belong to each unit: rows int64 [units, n]."""

    layer: nn.Module
    rows: Tensor


@dataclass(eq=False)
class Block:
    """One attention or MLP.

    Attributes:
        name, kind: in the module; "attention" or "mlp".
        units: how many there are.
        inputs: layers whose rows go with a unit.
        output: the layer whose columns int64 [units, n] go.
        owner: where counts of heads are kept; None for an MLP.
        axis: of the sequences in what the output projection reads.
        fixed: nothing of it may go.
        others: where else the rows of the first of `inputs` may lie; the proof decides.
    """

    name: str
    kind: str
    units: int
    inputs: list[Part]
    output: nn.Module
    columns: Tensor
    owner: Optional[nn.Module] = None
    axis: int = 0
    fixed: bool = False
    others: list[Tensor] = field(default_factory=list)
    original: int = field(init=False)

    def __post_init__(self) -> None:
        self.original = self.units

    @property
    def cost(self) -> int:
        """Parameters of the matrices of one unit."""
        return self.columns.shape[1] * matrix(self.output).shape[0] + sum(
            part.rows.shape[1] * matrix(part.layer).shape[1] for part in self.inputs)

    def column_mask(self, keep: Tensor) -> Tensor:
        """bool [inputs of the output projection] of keep [units]."""
        mask = torch.zeros(matrix(self.output).shape[1], dtype=torch.bool)
        mask[self.columns[keep].flatten()] = True
        return mask

    def cut(self, keep: Tensor, weight: Optional[Tensor] = None,
            bias: Optional[Tensor] = None) -> Callable[[], None]:
        """Leaves the units of keep [units]; weight and bias: what the output projection becomes.
        Returns what undoes it."""
        undo = _Undo(self)
        with torch.no_grad():
            for part in self.inputs:
                gone = torch.zeros(matrix(part.layer).shape[0], dtype=torch.bool)
                gone[part.rows[~keep].flatten()] = True
                old = cast(Optional[Tensor], part.layer.bias)
                set_matrix(part.layer, matrix(part.layer)[~gone],
                           None if old is None else old[~gone])
                part.rows = _renumber(part.rows[keep], ~gone)
            columns = self.column_mask(keep)
            set_matrix(self.output,
                       matrix(self.output)[:, columns] if weight is None else weight, bias)
            self.columns = _renumber(self.columns[keep], columns)
        self._tell_owner(keep)
        self.units = int(keep.sum())
        return undo

    def _tell_owner(self, keep: Tensor) -> None:
        """Counts of heads that the module keeps, where they are what they seem."""
        if self.owner is None:
            return
        left, width = int(keep.sum()), self.columns.shape[1]
        per_unit = width // _head_width(self.owner, self.units * width)
        if isinstance(self.owner, MultiheadAttention):
            self.owner.heads = tuple(h for h, k in zip(self.owner.heads, keep.tolist()) if k)
        for names, size in ((HEAD_COUNTS, per_unit), (GROUP_COUNTS, 1), (WIDTHS, width)):
            for name in names:
                if getattr(self.owner, name, None) == self.units * size:
                    setattr(self.owner, name, left * size)


class _Undo:
    """Puts a block back as it was."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._fields = dict(block.__dict__, inputs=[Part(p.layer, p.rows) for p in block.inputs])
        layers = {id(m): m for m in (*(p.layer for p in block.inputs), block.output)}
        self._layers = [(m, dict(m._parameters), _numbers(m)) for m in layers.values()]
        self._owner = {} if block.owner is None else _numbers(block.owner)

    def __call__(self) -> None:
        for layer, parameters, numbers in self._layers:
            layer._parameters.update(parameters)
            layer.__dict__.update(numbers)
        if self._block.owner is not None:
            self._block.owner.__dict__.update(self._owner)
        self._block.__dict__.update(self._fields)


def _numbers(module: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in module.__dict__.items() if isinstance(v, (int, tuple))}


def _renumber(places: Tensor, kept: Tensor) -> Tensor:
    return (kept.long().cumsum(0) - 1)[places]


def _head_width(owner: nn.Module, width: int) -> int:
    """Of one head in `width` of queries; 0: it cannot be told."""
    for name in HEAD_WIDTHS:
        size = getattr(owner, name, None)
        if isinstance(size, int) and size > 0 and width % size == 0:
            return size
    for holder in (owner, getattr(owner, "config", None)):
        for name in HEAD_COUNTS:
            count = getattr(holder, name, None)
            if isinstance(count, int) and count > 0 and width % count == 0:
                return width // count
    return 0


# ---- finding them --------------------------------------------------------------------------------


def _at(module: nn.Module, path: str) -> Optional[nn.Module]:
    at: Optional[nn.Module] = module
    for name in path.split("."):
        at = None if at is None else at._modules.get(name)
    return at


def _grid(units: int, width: int, first: int = 0) -> Tensor:
    return first + torch.arange(units * width).reshape(units, width)


def _output_of(owner: nn.Module, parent: Optional[nn.Module]) -> Optional[nn.Module]:
    for name in OUTPUTS:
        if is_linear(_at(owner, name)):
            return _at(owner, name)
    beside = None if parent is None else _at(parent, "output.dense")
    return beside if is_linear(beside) else None


def _attention(name: str, owner: nn.Module, parent: Optional[nn.Module]) -> Iterator[Block]:
    output = _output_of(owner, parent)
    if output is None:
        return
    width = matrix(output).shape[1]
    head = _head_width(owner, width)
    for names in QUERIES:
        layers = [_at(owner, n) for n in names]
        if head == 0 or not all(map(is_linear, layers)):
            continue
        q, k, v = (cast(nn.Module, layer) for layer in layers)
        kv = matrix(k).shape[0]
        groups = kv // head
        if matrix(q).shape[0] == width and matrix(v).shape[0] == kv and (
                groups > 0 and kv % head == 0 and width % kv == 0):
            parts = [Part(q, _grid(groups, width // groups))]
            parts += [Part(layer, _grid(groups, head)) for layer in (k, v)]
            yield Block(name, "attention", groups, parts, output, _grid(groups, width // groups),
                        owner)
            return
    for fused in FUSED_QUERIES:
        layer = _at(owner, fused)
        if head > 0 and is_linear(layer) and matrix(cast(nn.Module, layer)).shape[0] == 3 * width:
            units = width // head
            rows = torch.cat([_grid(units, head, i * width) for i in range(3)], 1)
            yield Block(name, "attention", units, [Part(cast(nn.Module, layer), rows)], output,
                        _grid(units, head), owner, others=[_grid(units, 3 * head)])
            return


def _mlp(name: str, owner: nn.Module) -> Iterator[Block]:
    axis = 0
    if isinstance(owner, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        axis = 0 if cast(Any, owner.self_attn).batch_first else 1
    for names in (*GATED, *PLAIN):
        layers = [_at(owner, n) for n in names]
        if all(map(is_linear, layers)):
            block = _of_layers(name, [cast(nn.Module, layer) for layer in layers], axis)
            if block is not None:
                yield block
                return
    if isinstance(owner, nn.Sequential):
        steps = [m for m in owner if is_linear(m)]
        for up, down in zip(steps, steps[1:]):
            block = _of_layers(f"{name}.{_child_name(owner, up)}".lstrip("."), [up, down], 0)
            if block is not None:
                yield block


def _child_name(owner: nn.Module, child: nn.Module) -> str:
    return next(n for n, m in owner._modules.items() if m is child)


def _of_layers(name: str, layers: list[nn.Module], axis: int) -> Optional[Block]:
    """Layers of equal width, or one of twice the width (gate and up in one), and one behind."""
    *ups, down = layers
    width = matrix(down).shape[1]
    widths = [matrix(up).shape[0] for up in ups]
    if widths == [2 * width]:
        rows = torch.stack([torch.arange(width), width + torch.arange(width)], 1)
    elif set(widths) == {width}:
        rows = _grid(width, 1)
    else:
        return None
    return Block(name, "mlp", width, [Part(up, rows) for up in ups], down, _grid(width, 1),
                 axis=axis)


def _shared(module: nn.Module) -> set[int]:
    """Layers that are in several places, or whose parameters are."""
    places: dict[int, int] = {}
    holders: dict[int, set[int]] = {}
    for parent in module.modules():
        for child in parent._modules.values():
            places[id(child)] = places.get(id(child), 0) + 1
        for parameter in parent._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), set()).add(id(parent))
    several = {layer for layer, count in places.items() if count > 1}
    return several.union(*(held for held in holders.values() if len(held) > 1))


def leave(whole: dict[str, str], block: Block, reason: str) -> None:
    """Notes that a block stays as it is; a module may be two of them."""
    before = f"{whole[block.name]}; " if block.name in whole else ""
    whole[block.name] = f"{before}{block.kind}: {reason}"


def find(module: nn.Module, keep: list[str], whole: dict[str, str]) -> list[Block]:
    """Blocks whose shapes fit, in the order of the module. whole: gets the names of those that
    stay as they are, and why."""
    names = dict(module.named_modules())
    layer_names = {id(m): n for n, m in names.items()}
    shared = _shared(module)
    used: set[tuple[int, str]] = set()
    found = []
    for name, owner in names.items():
        parent = names.get(name.rpartition(".")[0]) if name else None
        for block in (*_attention(name, owner, parent), *_mlp(name, owner)):
            parts = [(id(p.layer), "rows") for p in block.inputs] + [(id(block.output), "columns")]
            layers = {layer for layer, _ in parts}
            taken = bool(used & set(parts))
            used.update(parts)
            block.name = block.name or type(owner).__name__
            if layers & shared:
                leave(whole, block, "a layer of it is used in more than one place")
            if taken or layers & shared:
                continue
            block.fixed = any(re.search(regex, layer_names[layer]) for regex in keep
                              for layer in layers)
            if block.units < 2:
                leave(whole, block, "it has one head of keys and values")
                continue
            found.append(block)
    known = {layer for layer, _ in used}
    for name, layer in names.items():
        if is_linear(layer) and id(layer) not in known:
            whole[name] = "it is in no attention or MLP that is known"
    return found
