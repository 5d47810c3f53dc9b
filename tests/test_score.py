"""Scores against values by hand and against scipy."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from sciml import score

A = np.array([[1.0, 2.0], [3.0, 6.0]])
B = np.array([[1.0, 0.0], [3.0, 2.0]])
KINDS = pytest.mark.parametrize(
    "kind", [np.asarray, torch.as_tensor, lambda a: xr.DataArray(a, dims=("t", "y", "x")[-a.ndim :])]
)


@KINDS
def test_by_hand(kind):
    """Differences 0, 2, 0, 4; the truth's mean square is 14 / 4."""
    a, b = kind(A), kind(B)
    assert score.rmse(a, b) == pytest.approx(5**0.5)
    assert score.nrmse(a, b) == pytest.approx((5 / 3.5) ** 0.5)
    assert score.correlation(a, b) == pytest.approx(4 / 70**0.5)  # anomalies (-2 -1 0 3), (-.5 -1.5 1.5 .5)
    assert score.distribution_distance(a, b) == pytest.approx(1.5)  # sorted 1 2 3 6 and 0 1 2 3


@KINDS
def test_leading_axes_are_kept(kind):
    a, b = np.random.default_rng(0).normal(size=(2, 4, 5, 6))
    for f in (score.rmse, score.nrmse, score.correlation):
        found = np.asarray(f(kind(a), kind(b)))
        assert found.shape == (4,)
        assert np.allclose(found, [f(x, y) for x, y in zip(a, b, strict=True)])
    assert np.allclose(score.rmse(kind(a), kind(b[0])), [score.rmse(x, b[0]) for x in a]), "one truth for all"


def test_against_scipy():
    a, b = np.random.default_rng(1).normal(size=(2, 8, 9)) * [[[1.0]], [[3.0]]] + 2
    assert score.correlation(a, b) == pytest.approx(stats.pearsonr(a.ravel(), b.ravel()).statistic, rel=1e-12)
    assert score.distribution_distance(a, b) == pytest.approx(np.abs(np.sort(a.ravel()) - np.sort(b.ravel())).mean())
    assert score.distribution_distance(a, b) == pytest.approx(stats.wasserstein_distance(a.ravel(), b.ravel()))
    assert score.distribution_distance(a, a[:, ::-1]) == 0


def test_correlation_ignores_mean_and_scale():
    a = np.random.default_rng(2).normal(size=(3, 7))
    assert score.correlation(5 * a + 3, a) == pytest.approx(1)
    assert score.correlation(1 - a, a) == pytest.approx(-1)


def test_spectral_distance():
    k = np.arange(5.0)
    a, b = np.zeros((2, 5)), np.array([[0.0, 1, 2, 3, 100], [0, 1, 2, 3, 100]])
    assert score.spectral_distance(k, a, b, k_max=4.0) == pytest.approx((14 / 4) ** 0.5)
    assert score.spectral_distance(k, a, b) == pytest.approx((10014 / 5) ** 0.5)
    assert score.spectral_distance(xr.DataArray(k), torch.as_tensor(a), b, 1.0) == 0


def test_similarity():
    assert score.similarity(0.0, 2.0) == 1
    assert score.similarity(2.0, 2.0) == 0
    assert score.similarity(3.0, 2.0) == -0.5


def test_table():
    text = score.table({"a": {"EKE": 1 / 3, "a very long heading": 2}, "layer 2": {"x": 1e-10, "EKE": -12345678.0}})
    head, one, two = text.splitlines()
    assert head.split("  ")[-1].strip() == "x"
    assert [w.strip() for w in head.split("  ") if w.strip()] == ["EKE", "a very long heading", "x"]
    assert one.split() == ["a", "0.33333", "2"]
    assert two.split() == ["layer", "2", "-1.2346e+07", "1e-10"]
    for word, cell in (("EKE", "0.33333"), ("heading", "2")):
        assert head.index(word) + len(word) == one.rindex(cell) + len(cell), "right-aligned"
    assert score.table({}) == ""
