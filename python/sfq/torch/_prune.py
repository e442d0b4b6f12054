"""Pruning a module: prove the blocks, then in rounds measure, choose, cut and refit. Which units
go and what the weights behind them become is the library's (sfq/prune.h); a cut costs less when it
is made in steps, because what a unit is worth depends on which others are left."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import _prune, errors
from ._attention import MultiheadAttention
from ._blocks import Block, find, leave, matrix
from ._saliency import Loss, Moments, Scores, evaluating, outputs_of, run

MOST_MOMENTS = 1 << 30  # bytes of second moments held at a time

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class BlockReport:
    """One attention or MLP that `compress` looked at to prune it.

    Attributes:
        name, kind: in the module; "attention" or "mlp".
        units, kept: heads (with grouped queries: key-value heads, each with its queries) or neurons
            before and after.
        parameters, removed: of its matrices before, and how many of them are gone.
    """

    name: str
    kind: str
    units: int
    kept: int
    parameters: int
    removed: int


# ---- proof ---------------------------------------------------------------------------------------


class _Mask:
    """The output projections do not see the units that are not kept."""

    def __init__(self, masks: list[tuple[Block, Tensor]]) -> None:
        self._handles = [block.output.register_forward_pre_hook(self._hook(block.column_mask(keep)))
                         for block, keep in masks]

    @staticmethod
    def _hook(mask: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (inputs[0].masked_fill(~mask, 0), *inputs[1:]) if inputs else inputs
        return hook

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _answer(module: nn.Module, item: Any) -> Tensor:
    with evaluating(module), torch.no_grad():
        return torch.cat([y.double().flatten() for y in outputs_of(run(module, item))]
                         or [torch.zeros(0, dtype=torch.float64)])


def _fails(module: nn.Module, item: Any, blocks: list[Block]) -> Optional[str]:
    """Why these blocks cannot be cut all at once; None: they can."""
    masks = [(block, torch.arange(block.units) % 2 == 0) for block in blocks]
    whole = _answer(module, item)
    mask = _Mask(masks)
    try:
        wanted = _answer(module, item)
    finally:
        mask.close()
    undo = [block.cut(keep) for block, keep in masks]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = _answer(module, item)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as why:
        return f"its code does not follow narrower layers: {str(why).splitlines()[0][:120]}" \
            if str(why) else "its code does not follow narrower layers"
    finally:
        for back in reversed(undo):
            back()
    if got.shape != wanted.shape:
        return "its code does not follow narrower layers"
    off, change = float((got - wanted).norm()), float((wanted - whole).norm())
    if not off <= 1e-3 * change + 1e-5 * float(whole.norm()):
        return "without some of its units it computes something else"
    return None


def prove(module: nn.Module, item: Any, blocks: list[Block], whole: dict[str, str]) -> list[Block]:
    """Those that can be cut; whole gets the others. Our own attention needs no proof, and would
    not stand it where the weights that it returns are the module's output."""
    others = [b for b in blocks if not isinstance(b.owner, MultiheadAttention)]
    if not others or _fails(module, item, others) is None:
        return blocks
    proved = []
    for block in blocks:
        reason = _fails(module, item, [block]) if block in others else None
        for rows in block.others if reason is not None else []:
            block.inputs[0].rows = rows
            reason = _fails(module, item, [block]) if reason is not None else None
        if reason is None:
            proved.append(block)
        else:
            leave(whole, block, reason)
    return proved


# ---- rounds --------------------------------------------------------------------------------------


def _choose(blocks: list[Block], scores: Scores, remove: float) -> list[Tensor]:
    """keep [units] of each block, for a share of what is there now."""
    widths = [b.original for b in blocks if b.kind == "mlp"]
    least = 64 if max(widths, default=0) >= 256 else 16
    floor = [b.units if b.fixed else 1 if b.kind == "attention" else least for b in blocks]
    keep = _prune.choose(
        torch.cat(scores.worth).numpy(),
        np.repeat([b.cost for b in blocks], [b.units for b in blocks]),
        np.repeat(np.arange(len(blocks)), [b.units for b in blocks]), floor,
        [1 if b.kind == "attention" else least for b in blocks], remove)
    return list(torch.split(torch.from_numpy(keep), [b.units for b in blocks]))


def _refitted(block: Block, keep: Tensor, gram: Any, tokens: float) -> tuple[Tensor, Any]:
    """Weight and bias of the output projection without the inputs of the units that go."""
    columns = block.column_mask(keep)
    weight = matrix(block.output).detach().float()
    bias = cast(Optional[Tensor], block.output.bias)
    flags = columns
    if bias is not None:
        weight = torch.cat([weight, bias.detach().float()[:, None]], 1)
        flags = torch.cat([columns, torch.ones(1, dtype=torch.bool)])
    constants = int(bias is not None)
    ridge = _prune.ridge(weight.shape[1] - constants, tokens)
    made = torch.from_numpy(_prune.refit(gram, weight.numpy(), flags.numpy(), ridge, constants))
    return (made[:, :-1], made[:, -1]) if bias is not None else (made, None)


def _chunks(jobs: list[tuple[int, Block]]) -> list[list[tuple[int, Block]]]:
    """As many blocks at a time as their second moments leave room for."""
    out: list[list[tuple[int, Block]]] = []
    held = 0
    for job in jobs:
        size = Moments.bytes(job[1])
        if not out or held + size > MOST_MOMENTS:
            out.append([])
            held = 0
        out[-1].append(job)
        held += size
    return out


def _cut(module: nn.Module, data: list[Any], blocks: list[Block], scores: Scores,
         keeps: list[Tensor], tick: Callable[[], None]) -> None:
    """Cuts and refits; blocks further up see what became of those below only between chunks."""
    jobs = [(i, b) for i, b in enumerate(blocks) if not bool(keeps[i].all())]
    for chunk in _chunks(jobs):
        moments = Moments([b for _, b in chunk], [scores.weights[i] for i, _ in chunk])
        moments.measure(module, data, tick)
        made = [_refitted(b, keeps[i], moments.gram[at], moments.tokens(at))
                for at, (i, b) in enumerate(chunk)]
        for (i, block), (weight, bias) in zip(chunk, made):
            block.cut(keeps[i], weight, bias)


def prune(module: nn.Module, data: list[Any], share: float, loss: Optional[Loss], rounds: int,
          seed: int, keep: list[str], whole: dict[str, str], report: Report) -> list[BlockReport]:
    """Cuts the module in place. whole: gets the names of blocks that stay, and why."""
    blocks = prove(module, data[0], find(module, keep, whole), whole)
    total = sum(b.units * b.cost for b in blocks)
    if total == 0:
        seen = "; ".join(f"{name}: {reason}" for name, reason in list(whole.items())[:4])
        raise errors.UnsupportedError(
            "nothing in the module can be pruned" + (f" ({seen})" if seen else
            ": it has no attention with q, k, v and output projections and no Linear-activation-"
            "Linear that sfq.torch knows"), "E_UNSUPPORTED")
    costs = [b.units * b.cost for b in blocks]
    steps = 0

    def tick() -> None:
        nonlocal steps
        steps += 1
        report(min(steps, 2 * rounds * len(data)), 2 * rounds * len(data))

    for r in range(rounds):
        left = sum(b.units * b.cost for b in blocks)
        goal = share * (r + 1) / rounds * total
        remove = (goal - (total - left)) / left
        if remove <= 0:
            continue
        scores = Scores(blocks)
        scores.measure(module, data, loss, seed + r, tick)
        keeps = _choose(blocks, scores, remove * (1 - 1e-12))
        _cut(module, data, blocks, scores, keeps, tick)
    return [BlockReport(b.name, b.kind, b.original, b.units, cost, cost - b.units * b.cost)
            for b, cost in zip(blocks, costs)]
