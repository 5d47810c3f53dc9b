"""Scores against values by hand and against scipy."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from scores import probability
from scores.continuous.correlation import pearsonr

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
    assert score.correlation(np.ones((4, 4)), np.arange(16.0).reshape(4, 4)) == 0


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


# -- scores of analyses ----------------------------------------------------------------------------------------------
def test_block_bootstrap_covers_the_mean_of_a_correlated_series():
    """Nine in ten 90 % intervals of AR(1) series hold the true mean; blocks of one are far too narrow."""
    rng = np.random.default_rng(0)
    held = {1: 0, 25: 0}
    for seed in range(60):
        e = rng.standard_normal(400)
        for i in range(1, 400):
            e[i] += 0.8 * e[i - 1]
        for block in held:
            low, high = score.block_bootstrap(e, block, seed, samples=400, level=0.9)
            held[block] += low < 0 < high
    assert 0.75 < held[25] / 60 <= 1
    assert held[1] / 60 < 0.6


def test_crps_of_a_normal_distribution_is_its_integral():
    """Of ``(F(x) - [x >= y])^2`` over x; of many members it is that of the ensemble."""
    x = np.linspace(-30, 30, 600001)
    for mean, std, truth in ((0.0, 1.0, 0.3), (2.0, 0.5, -1.0), (-1.0, 3.0, 5.0)):
        integrand = (stats.norm.cdf(x, mean, std) - (x >= truth)) ** 2
        assert score.crps_gaussian(mean, std, truth) == pytest.approx(np.trapezoid(integrand, x), abs=1e-4)
    members = 1.0 + 2.0 * np.random.default_rng(0).standard_normal((100000, 1))
    assert score.crps_gaussian(1.0, 2.0, 0.0) == pytest.approx(float(score.crps(members, np.zeros(1))[0]), rel=0.01)


def test_crps_of_a_normal_ensemble():
    """sigma (2 phi(z) - 1/sqrt(pi) + z (2 Phi(z) - 1)) for a normal forecast (Gneiting et al. 2005, eq. 5)."""
    rng = np.random.default_rng(0)
    ensemble = rng.standard_normal((4000, 3))
    z = np.array([0.0, 1.0, -2.0])
    expected = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(score.crps(ensemble, z), expected, atol=0.03)
    few = np.mean([score.crps(rng.standard_normal((3, 1)), np.zeros(1)) for _ in range(20000)])
    assert few == pytest.approx(expected[0], abs=0.01), "the fair version has no bias for small ensembles"


def test_crps_and_correlation_are_those_of_scores():
    """The package ``scores`` (Leeuwenburg et al. 2024, JOSS 9, 6889), which takes more time and memory."""
    rng = np.random.default_rng(1)
    ensemble, truth = rng.standard_normal((12, 6, 7)), rng.standard_normal((6, 7))
    members, obs = xr.DataArray(ensemble, dims=("member", "y", "x")), xr.DataArray(truth, dims=("y", "x"))
    expected = probability.crps_for_ensemble(members, obs, "member", method="fair", preserve_dims="all")
    np.testing.assert_allclose(score.crps(ensemble, truth), expected.values, rtol=1e-12)
    assert float(score.correlation(ensemble[0], truth)) == pytest.approx(float(pearsonr(members[0], obs)), rel=1e-12)


def test_ranks_are_flat_for_a_reliable_ensemble_and_u_shaped_for_a_narrow_one():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(20000)
    flat = score.rank_histogram(rng.standard_normal((9, 20000)), truth)
    assert flat.sum() == 20000
    assert flat.shape == (10,)
    assert abs(flat - 2000).max() < 200
    narrow = score.rank_histogram(0.3 * rng.standard_normal((9, 20000)), truth)
    assert min(narrow[0], narrow[-1]) > 2 * narrow[4]
    low = score.rank_histogram(rng.standard_normal((9, 20000)), truth - 1)
    assert low[0] > 5 * low[-1]  # a truth below the members has the first ranks
    with pytest.raises(ValueError, match="no rank"):
        score.rank_histogram(np.full((3, 2), np.nan), truth[:2])


def test_crps_without_spread_and_with_one_member():
    assert score.crps_gaussian([1.0, 1.0], [0.0, 1e-9], 3.0) == pytest.approx([2.0, 2.0])
    with pytest.raises(ValueError, match="not be negative"):
        score.crps_gaussian(0.0, -1.0, 0.0)
    with pytest.raises(ValueError, match="at least two members"):
        score.crps(np.zeros((1, 4)), np.zeros(4))


def test_density_keeps_leakage_of_a_wave_between_two_frequencies_near_them():
    """A wave of 10.5 periods: by a Hann window all but 1e-5 of its power is within 4 frequencies (without, 0.02)."""
    t, x = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    power = score.density(np.cos(2 * np.pi * (10.5 * t + 10.5 * x) / 64)[:, None])
    near = power[5:15, 5:15].sum()
    assert near > (1 - 1e-4) * power.sum()


def test_desroziers_finds_the_observation_error():
    """For the optimal gain B / (B + R) of scalars, mean(omb oma) = R."""
    rng = np.random.default_rng(0)
    B, R = 2.0, 0.5
    omb = np.sqrt(R) * rng.standard_normal(100000) - np.sqrt(B) * rng.standard_normal(100000)
    found = score.desroziers(omb, omb * R / (B + R), np.sqrt(R))
    assert found["observation"] == pytest.approx(1.0, abs=0.02)
    assert found["innovation"] == pytest.approx((B + R) / R, rel=0.02)


def test_data_challenge_finds_the_scales_that_an_estimate_has_lost():
    """White noise in space and time; the estimate lacks all wavelengths below 8 steps or all periods below 10."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((120, 60, 160))
    for axis, d, cut, name in ((2, 5e3, 8, "lambda_x"), (0, 2.0, 10, "lambda_t")):
        f = np.abs(np.fft.fftfreq(truth.shape[axis])).reshape([-1 if a == axis else 1 for a in range(3)])
        kept = np.fft.ifft(np.fft.fft(truth, axis=axis) * (f <= 1 / cut), axis=axis).real
        found = score.data_challenge(kept, truth, 2.0, 5e3)
        assert found[name] == pytest.approx(cut * d, rel=0.05)
        other = {"lambda_x": "lambda_t", "lambda_t": "lambda_x"}[name]
        assert found[other] == pytest.approx({"lambda_x": 1e4, "lambda_t": 4.0}[other], rel=0.05)


def test_data_challenge_mu_and_sigma():
    truth = np.random.default_rng(1).standard_normal((20, 8, 16))
    half = score.data_challenge(truth / 2, truth, 1.0, 1.0)
    assert half == pytest.approx({"mu": 0.5, "sigma": 0.0, "lambda_x": 2.0, "lambda_t": 2.0}, abs=1e-12)
    nothing = score.data_challenge(-truth, truth, 1.0, 1.0)
    assert (nothing["mu"], nothing["lambda_x"], nothing["lambda_t"]) == (pytest.approx(-1), np.inf, np.inf)
    with pytest.raises(ValueError, match="two series of maps"):
        score.data_challenge(truth[0], truth, 1.0, 1.0)


@pytest.mark.parametrize("n", [50, 200])
def test_intervals_of_short_correlated_series_cover_the_mean(n):
    """First-order autoregression of 0.5: nine of ten intervals at least hold the true mean, blocks of 15."""
    rng, held = np.random.default_rng(0), 0
    for k in range(100):
        x = rng.standard_normal(n + 50)
        for i in range(1, len(x)):
            x[i] += 0.5 * x[i - 1]
        low, high = score.block_bootstrap(x[50:], 15, k, samples=300)
        held += low <= 0 <= high
    assert held >= 90


def test_maps_with_gaps_have_no_score():
    truth = np.random.default_rng(0).standard_normal((8, 8, 8))
    with pytest.raises(ValueError, match="not finite everywhere"):
        score.data_challenge(np.where(truth > 2, np.nan, truth), truth, 1.0, 1.0)
