"""What PyTorch and Keras prune with: which units go, and the matrix behind them refitted, against
NumPy's own least squares; bad arrays are refused by name."""

import math

import numpy as np
import pytest

from package import sfq  # noqa: F401: skips where the package is not installed

from sfq import _prune
from sfq.errors import ArgumentError, InfeasibleError, LimitError, NumericError

HEADS, WIDTH = 4, 96


def units(seed=0):
    """Two layers of heads (groups 0, 2) and neurons (1, 3)."""
    rng = np.random.default_rng(seed)
    layer = [np.full(HEADS, 0), np.full(WIDTH, 1)]
    group = np.concatenate([g + 2 * i for i in range(2) for g in layer])
    heads = group % 2 == 0
    cost = np.where(heads, 160, 10)
    return rng.random(group.size) * np.where(heads, 16, 1), cost, group, [1, 16, 1, 16], [1, 0] * 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.75])
def test_choose(share):
    saliency, cost, group, floor, multiple = units()
    keep = _prune.choose(saliency, cost, group, floor, multiple, share)
    assert keep.dtype == np.bool_ and keep.shape == group.shape
    gone = cost[~keep].sum() / cost.sum()
    assert share <= gone < share + 160 / cost.sum()
    for g in range(4):
        stay = keep[group == g]
        assert stay.sum() % 16 == 0 if g % 2 else stay.sum() >= 1
        if not stay.all():
            assert saliency[group == g][stay].min() >= saliency[group == g][~stay].max()
    assert (keep == _prune.choose(saliency, cost, group, floor, multiple, share)).all()


def test_choose_is_refused():
    saliency, cost, group, floor, multiple = units()
    with pytest.raises(InfeasibleError, match="let 80.00 % go"):
        _prune.choose(saliency, cost, group, floor, multiple, 0.9)
    with pytest.raises(NumericError, match="unit 3"):
        bad = saliency.copy()
        bad[3] = np.nan
        _prune.choose(bad, cost, group, floor, multiple, 0.1)
    with pytest.raises(LimitError, match="2\\^64"):
        _prune.choose(saliency, np.full(group.size, 2**63, np.uint64), group, floor, multiple, 0.1)
    for wrong, what in [((saliency, cost[1:], group, floor, multiple), "cost"),
                        ((saliency, -cost, group, floor, multiple), "cost"),
                        ((saliency, cost / 3, group, floor, multiple), "cost"),
                        ((saliency, cost, group + 1, floor, multiple), "group 4"),
                        ((saliency, cost, group, floor, multiple[:2]), "multiple"),
                        ((["x"] * 200, cost, group, floor, multiple), "saliency"),
                        ((3.0, cost, group, floor, multiple), "saliency")]:
        with pytest.raises(ArgumentError, match=what):
            _prune.choose(*wrong, 0.1)
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ArgumentError, match="share"):
            _prune.choose(saliency, cost, group, floor, multiple, share)


def test_refit():
    """Against the normal equations of ridge regression towards the weights, by NumPy."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 40)) @ rng.standard_normal((40, 60)) + 0.5
    x = np.concatenate([x, np.ones((400, 1))], 1)
    w = rng.standard_normal((7, 61)).astype(np.float32)
    keep = np.arange(61) % 4 != 1
    gram = x.T @ x
    got = _prune.refit(gram, w, keep, 0.01, constants=1)
    assert got.dtype == np.float32 and got.shape == (7, keep.sum())
    h = gram[keep][:, keep]
    damp = np.full(len(h), 0.01 * np.diag(h)[:-1].mean())
    damp[-1] = 1e-6 * h[-1, -1]
    change = np.linalg.solve(h + np.diag(damp), gram[keep][:, ~keep] @ w[:, ~keep].T)
    np.testing.assert_allclose(got, w[:, keep] + change.T, rtol=1e-5, atol=1e-6)
    before = x[:, ~keep] @ w[:, ~keep].T
    assert np.linalg.norm(x[:, keep] @ got.T - x @ w.T) < 0.25 * np.linalg.norm(before)
    single = _prune.refit(gram.astype(np.float32), w, keep, 0.01, constants=1)
    np.testing.assert_allclose(single, got, rtol=1e-3, atol=1e-3)


def test_refit_is_refused():
    gram, w, keep = np.eye(4), np.ones((3, 4)), np.array([True, True, False, True])
    for wrong, what in [((gram[:3], w, keep, 0.1), "gram"), ((gram, w[0], keep, 0.1), "weight"),
                        ((gram, w, keep[1:], 0.1), "keep"), ((gram, w, keep, -1.0), "ridge"),
                        ((gram, w, keep, math.nan), "ridge"),
                        ((gram, w, ~(keep | True), 0.1), "none of the 4 inputs"),
                        ((gram, w, keep, 0.1, 2), "input 2"), ((gram, w, keep, 0.1, 5), "0..4"),
                        ((gram, w, keep, 0.1, -1), "0..4"),
                        ((gram[:0, :0], w[:, :0], keep[:0], 0.1), "empty")]:
        with pytest.raises(ArgumentError, match=what):
            _prune.refit(*wrong)
    for bad_gram, bad_w in [(gram * math.nan, w), (gram, w * math.inf), (-gram, w)]:
        with pytest.raises(NumericError):
            _prune.refit(bad_gram, bad_w, keep, 0.1)
