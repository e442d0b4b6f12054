"""The two decisions of structured pruning, for frameworks that measure and cut their own modules:
which units go, and what the weights behind them become. NumPy in and out; the method is the
library's (sfq/prune.h, docs/METHOD.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import errors
from ._linear import workers
from ._native import call, ffi, lib


def _refuse(what: str) -> errors.ArgumentError:
    return errors.ArgumentError(what, "E_ARGUMENT")


def _array(values: ArrayLike, dtype: Any, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Contiguous, of this type and shape; whole numbers must fit as they are."""
    try:
        given = np.asarray(values)
        if np.issubdtype(dtype, np.integer):
            if given.size and not np.issubdtype(given.dtype, np.integer):
                raise _refuse(f"{name} is {given.dtype}; expected integers")
            most = int(np.iinfo(dtype).max)
            if given.size and (int(given.min()) < 0 or int(given.max()) > most):
                raise _refuse(f"{name} holds a number outside 0..{most}")
        array = np.ascontiguousarray(given, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as reason:
        raise _refuse(f"{name}: {reason}") from None
    if array.shape != shape:
        raise _refuse(f"{name} is {list(array.shape)}; expected {list(shape)}")
    return array


def _length(values: Any, name: str) -> int:
    try:
        return len(values)
    except TypeError:
        raise _refuse(f"{name} is {type(values).__name__}; expected an array") from None


def _pointer(kind: str, array: NDArray[Any]) -> Any:
    return ffi.cast(kind, array.ctypes.data)


def choose(saliency: ArrayLike, cost: ArrayLike, group: ArrayLike, floor: ArrayLike,
           multiple: ArrayLike, share: float) -> NDArray[np.bool_]:
    """Which units stay when those that cost least go.

    Args:
        saliency: [n] what the loss grows by when the unit goes; finite, not negative.
        cost: [n] parameters that go with it, above 0.
        group: [n] which heads, or neurons, of which layer it is one of: 0..groups-1.
        floor: [groups] so many of its units stay, or what there is.
        multiple: [groups] those that stay are a multiple of it, or all: 1 for heads; 0 for
            neurons, which is 64, or 16 where no such group has 256.
        share: of all parameters that shall go, from 0 to below 1; reached within one unit (one
            multiple) above it.

    Returns:
        [n] true where the unit stays. Ties go to the lower group, then to the lower unit.

    Raises:
        InfeasibleError: the floors do not allow so much.
        NumericError: a saliency is not finite.
        ArgumentError: shapes that do not fit, and numbers out of range.
    """
    n, groups = _length(saliency, "saliency"), _length(floor, "floor")
    held = (_array(saliency, np.float64, (n,), "saliency"), _array(cost, np.uint64, (n,), "cost"),
            _array(group, np.uint32, (n,), "group"), _array(floor, np.uintp, (groups,), "floor"),
            _array(multiple, np.uintp, (groups,), "multiple"))
    kinds = ("const double *", "const uint64_t *", "const uint32_t *", "const size_t *",
             "const size_t *")
    units = ffi.new("sfq_prune_units *",
                    (n, groups, *(_pointer(k, a) for k, a in zip(kinds, held))))
    keep = np.ones(n, dtype=np.bool_)
    call(lib.sfq_prune_choose_units, units, float(share), _pointer("bool *", keep))
    return keep


def refit(gram: ArrayLike, weight: ArrayLike, keep: ArrayLike, ridge: float,
          constants: int = 0) -> NDArray[np.float32]:
    """A matrix some of whose inputs were cut: the weights with which its outputs differ least in
    mean square from what they were with all inputs.

    Args:
        gram: [k, k] sum of x x^T over the inputs x before the cut (each times its weight where
            they do not count alike), float32 or float64; its lower triangle is read.
        weight: [n, k] before the cut.
        keep: [k] bools, inputs that stay.
        ridge: pull towards `weight`, as a share of the mean square of the inputs that stay: 0.01
            where the tokens outnumber the inputs by far, up to 1 where they are few.
        constants: the last so many inputs are constants and stay: the bias, as a weight.

    Returns:
        [n, kept] float32, the same at any thread count.

    Raises:
        NumericError: values that are not finite, and moments that no data have.
        ArgumentError: shapes that do not fit, nothing kept, and numbers out of range.
    """
    w = np.asarray(weight)
    if w.ndim != 2:
        raise _refuse(f"weight is {list(w.shape)}; expected [n, k]")
    n, k = w.shape
    w = _array(weight, np.float32, (n, k), "weight")
    moments = _array(gram, np.float64, (k, k), "gram")
    flags = _array(keep, np.bool_, (k,), "keep")
    if not 0 <= constants <= k:
        raise _refuse(f"constants is {constants}; it must be in 0..{k}")
    out = np.empty((n, int(np.count_nonzero(flags))), dtype=np.float32)
    matrix = ffi.new("sfq_prune_matrix *", (
        n, k, _pointer("const float *", w), _pointer("const double *", moments),
        _pointer("const bool *", flags), constants, float(ridge)))
    call(lib.sfq_prune_refit_matrix, workers.handle(), matrix, _pointer("float *", out))
    return out
