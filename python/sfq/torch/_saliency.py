"""What each unit of a module's blocks is worth, and the second moments behind it, while data go
through: the diagonal Fisher information of a mask on the unit's output, from gradients of
activations alone (Kwon et al. 2022, "A fast post-training pruning framework for transformers";
docs/METHOD.md). The answers that the gradients are of are drawn from the module's own output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import errors
from ._blocks import Block, matrix

Loss = Callable[[Any, Any], Tensor]
Tick = Callable[[], None]

ENOUGH_DRAWS = 256  # of answers, over all sequences
MOST_DRAWS = 8  # for one sequence


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode, without torch's fast path, which calls no layer; as it was before after that.
    """
    training = [m for m in module.modules() if m.training]
    path = torch.backends.mha.get_fastpath_enabled()
    try:
        module.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(path)
        for m in training:
            m.training = True


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients of weights."""
    learning = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in learning:
            p.requires_grad_(False)
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


def run(module: nn.Module, item: Any) -> Any:
    """The module's output for a batch of any kind."""
    if isinstance(item, Mapping):
        return module(**item)
    if isinstance(item, (tuple, list)):
        return module(*item)
    return module(item)


# ---- answers -------------------------------------------------------------------------------------


def outputs_of(output: Any) -> list[Tensor]:
    """The floats in what a module returned: itself, or those of a dict, tuple or list."""
    if isinstance(output, Tensor):
        given: list[Any] = [output]
    elif isinstance(output, Mapping):
        given = list(output.values())
    else:
        given = list(output) if isinstance(output, (tuple, list)) else []
    return [t for t in given if isinstance(t, Tensor) and t.is_floating_point()]


def _seen(item: Any, shape: Sequence[int]) -> Optional[Tensor]:
    """Which of the output's tokens are no padding: [batch, T], as the batch's mask says."""
    if not isinstance(item, Mapping):
        return None
    mask, padding = item.get("attention_mask"), item.get("src_key_padding_mask")
    if isinstance(padding, Tensor) and padding.dtype is torch.bool:
        mask = ~padding
    if not isinstance(mask, Tensor) or mask.dim() != 2 or list(mask.shape) != list(shape[:2]):
        return None
    return mask != 0


def _logits(output: Any) -> Optional[Tensor]:
    logits = output.get("logits") if isinstance(output, Mapping) else None
    return logits if isinstance(logits, Tensor) and logits.dim() > 1 else None


def _closed_loss(output: Any) -> Optional[Tensor]:
    """Where a sequence has one answer, of two classes or a number: something whose squared
    gradient is the mean over all answers, so that none need be drawn."""
    logits = _logits(output)
    if logits is None or logits.dim() != 2 or logits.shape[1] > 2:
        return None
    if logits.shape[1] == 1:
        return logits.sum()
    p = logits.detach().softmax(1)
    return ((logits[:, 1] - logits[:, 0]) * (p[:, 0] * p[:, 1]).sqrt()).sum()


def _drawn_loss(output: Any, item: Any, generator: torch.Generator) -> Tensor:
    """Logits: the negative log likelihood of labels drawn from them. Anything else: the squared
    distance to itself with noise of variance 1, so that its Fisher information is the square of
    the change of outputs."""
    logits = _logits(output)
    if logits is not None:
        log_p = functional.log_softmax(logits.float(), -1).flatten(0, -2)
        labels = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
        loss = -log_p.gather(1, labels).reshape(logits.shape[:-1])
        seen = _seen(item, loss.shape) if loss.dim() > 1 else None
        return loss.sum() if seen is None else (loss * seen).sum()
    total = torch.zeros(())
    for y in outputs_of(output):
        if y.requires_grad:
            noise = torch.randn(y.shape, generator=generator)
            seen = _seen(item, y.shape) if y.dim() > 2 else None
            if seen is not None:
                noise = noise * seen.reshape(*seen.shape, *([1] * (y.dim() - 2)))
            total = total + (noise * y.float()).sum()
    return total


# ---- one pass with gradients ---------------------------------------------------------------------


class Scores:
    """Of each block: what its units are worth (float64 [units]), and for each batch what the loss
    sees of each token (float32 [tokens])."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks
        self.worth = [torch.zeros(b.units, dtype=torch.float64) for b in blocks]
        self.weights: list[list[Tensor]] = [[] for _ in blocks]
        self._x: list[list[Tensor]] = [[] for _ in blocks]
        self._y: list[list[Tensor]] = [[] for _ in blocks]

    def measure(self, module: nn.Module, data: list[Any], loss: Optional[Loss], seed: int,
                tick: Tick) -> None:
        """One pass forward for each batch, and one or more backward. Raises NumericError where a
        gradient is not finite, ArgumentError where the loss depends on no block."""
        generator = torch.Generator().manual_seed(seed)
        handles = []
        for i, block in enumerate(self._blocks):
            handles.append(block.output.register_forward_pre_hook(self._before(i)))
            handles.append(block.output.register_forward_hook(self._behind(i)))
        try:
            with evaluating(module), _frozen(module), torch.enable_grad():
                for item in data:
                    self._batch(module, item, loss, generator, len(data))
                    tick()
        finally:
            for handle in handles:
                handle.remove()
        for block, worth in zip(self._blocks, self.worth):
            if not bool(torch.isfinite(worth).all()):
                raise errors.NumericError(f"gradients in {block.name} are not finite", "E_NUMERIC")

    def _before(self, i: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x = inputs[0]
            if not x.requires_grad:
                x = x.detach().requires_grad_(True)
            self._x[i].append(x)
            return (x, *inputs[1:])
        return hook

    def _behind(self, i: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._y[i].append(output)
        return hook

    def _batch(self, module: nn.Module, item: Any, loss: Optional[Loss],
               generator: torch.Generator, batches: int) -> None:
        for kept in (*self._x, *self._y):
            kept.clear()
        output = run(module, item)
        xs = [x for kept in self._x for x in kept]
        ys = [y for kept in self._y for y in kept]
        sequences = max((x.shape[0] for x in xs), default=1) * batches
        closed = loss(output, item) if loss is not None else _closed_loss(output)
        draws = min(MOST_DRAWS, -(-ENOUGH_DRAWS // max(1, sequences))) if closed is None else 1
        sight = [torch.zeros(y.shape[:-1]) for y in ys]
        for draw in range(draws):
            value = _drawn_loss(output, item, generator) if closed is None else closed
            if not isinstance(value, Tensor) or not value.requires_grad:
                raise errors.ArgumentError(
                    "the loss does not depend on any block that could be pruned", "E_ARGUMENT")
            grads = torch.autograd.grad(value.sum(), xs + ys, retain_graph=draw + 1 < draws,
                                        allow_unused=True)
            self._add(xs, grads[:len(xs)], draws)
            for seen, dy in zip(sight, grads[len(xs):]):
                if dy is not None:
                    seen += dy.float().square().sum(-1) / draws
        at = 0
        for i, kept in enumerate(self._y):
            parts = [seen.flatten() for seen in sight[at:at + len(kept)]]
            self.weights[i].append(torch.cat(parts) if parts else torch.zeros(0))
            at += len(kept)

    def _add(self, xs: list[Tensor], grads: Sequence[Optional[Tensor]], draws: int) -> None:
        """Half the squares of the mask's gradients, of each sequence by itself."""
        at = 0
        for i, block in enumerate(self._blocks):
            total: Optional[Tensor] = None
            for x, dx in zip(xs[at:at + len(self._x[i])], grads[at:]):
                if dx is not None:
                    part = _by_sequence(x.detach().double() * dx.double(), block)
                    total = part if total is None or total.shape != part.shape else total + part
            at += len(self._x[i])
            if total is not None:
                self.worth[i] += total.square().sum(0) / (2 * draws)


def _by_sequence(product: Tensor, block: Block) -> Tensor:
    """[..., inputs] summed over the tokens of a sequence and the inputs of a unit: [batch, units].
    """
    if product.dim() > 2:
        axis = block.axis if product.dim() == 3 else 0
        product = product.movedim(axis, 0).flatten(1, -2).sum(1)
    else:
        product = product.reshape(-1, product.shape[-1])
    return product[:, block.columns].sum(2)


# ---- second moments ------------------------------------------------------------------------------


class Moments:
    """Of each block the sum of w a a^T over what its output projection reads, with a column of
    ones where that has a bias, and how many tokens of equal weight say as much."""

    def __init__(self, blocks: list[Block], weights: list[list[Tensor]]) -> None:
        self._weights = weights
        self._batch = 0
        self.gram = [np.zeros((self._width(b),) * 2) for b in blocks]
        self._sums = [0.0] * len(blocks)
        self._squares = [0.0] * len(blocks)
        self._seen = [0] * len(blocks)
        self._blocks = blocks

    @staticmethod
    def _width(block: Block) -> int:
        return matrix(block.output).shape[1] + (block.output.bias is not None)

    @staticmethod
    def bytes(block: Block) -> int:
        return 8 * Moments._width(block) ** 2

    def tokens(self, i: int) -> float:
        """(sum w)^2 / sum w^2 (Kish 1965, "Survey sampling")."""
        return self._sums[i] ** 2 / self._squares[i] if self._squares[i] > 0 else 0.0

    def measure(self, module: nn.Module, data: list[Any], tick: Tick) -> None:
        """The same data as the scores, in the same order."""
        handles = [b.output.register_forward_pre_hook(self._hook(i))
                   for i, b in enumerate(self._blocks)]
        try:
            with evaluating(module), torch.no_grad():
                for self._batch, item in enumerate(data):
                    self._seen = [0] * len(self._blocks)
                    run(module, item)
                    tick()
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, i: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().float().flatten(0, -2)
            first = self._seen[i]
            self._seen[i] = first + x.shape[0]
            weight = self._weights[i][self._batch][first:first + x.shape[0]]
            if weight.shape[0] != x.shape[0] or not bool((weight > 0).any()):
                return
            if layer.bias is not None:
                x = torch.cat([x, torch.ones(x.shape[0], 1)], 1)
            counts = weight > 0
            x, weight = x[counts], weight[counts]
            self._sums[i] += float(weight.double().sum())
            self._squares[i] += float(weight.double().square().sum())
            self.gram[i] += ((x * weight[:, None]).T @ x).numpy()
        return hook
