"""Optimal interpolation against Gaussian-process regression and against its own exact form."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cdist

from sciml.interpolate import RADIUS, Prior, arhan_colin, estimate, interpolated, map_axes
from sciml.observations import check, observations

DAY = 86400.0
PRIOR = Prior(std=0.3, length=100e3, time=10 * DAY)


def scattered(rng, n=60, size=5e5, noise=0.05):
    """Observations of noise at random places and times."""
    x, y = rng.uniform(0, size, (2, n))
    return observations(rng.normal(0, 0.3, n), noise, np.sort(rng.uniform(0, 20 * DAY, n)), x, y)


def at(x, y, time) -> xr.Dataset:
    return xr.Dataset({n: ("obs", np.asarray(a, dtype=float)) for n, a in (("x", x), ("y", y), ("time", time))})


def test_equals_gaussian_process_regression():
    """scikit-learn's kernel is exp(-r^2 / (2 l^2)): its lengths are L / sqrt(2) and T / sqrt(2)."""
    process = pytest.importorskip("sklearn.gaussian_process")
    rng = np.random.default_rng(0)
    obs, wanted = scattered(rng), at(*rng.uniform(0, 5e5, (2, 40)), rng.uniform(0, 20 * DAY, 40))
    value, variance = estimate(obs, wanted, PRIOR, reach=1e3)
    kernel = process.kernels.RBF(np.array([100e3, 100e3, 10 * DAY]) / np.sqrt(2), "fixed")
    regression = process.GaussianProcessRegressor(0.3**2 * kernel, alpha=0.05**2, optimizer=None)
    columns = [np.column_stack([ds[n].values for n in ("x", "y", "time")]) for ds in (obs, wanted)]
    mean, std = regression.fit(columns[0], obs["value"].values).predict(columns[1], return_std=True)
    np.testing.assert_allclose(value, mean, atol=1e-9)
    np.testing.assert_allclose(variance, std**2, atol=1e-9)


def test_on_the_sphere_with_another_correlation_and_a_mean():
    """A dense solve with chords between places across Greenwich."""
    rng = np.random.default_rng(1)
    n, time = 50, np.datetime64("2020-01-01", "ns") + (rng.uniform(0, 5, 50) * 86400e9).astype("timedelta64[ns]")
    lon, lat = rng.uniform(358, 362, n) % 360, rng.uniform(40, 43, n)
    obs = observations(rng.normal(1, 0.3, n), 0.1, np.sort(time), lon=lon, lat=lat)
    prior = Prior(0.3, 150e3, 10 * DAY, mean=1.0, correlation=arhan_colin)
    where = xr.Dataset(
        {"lon": ("obs", [359.9, 0.1]), "lat": ("obs", [41.0, 42.0]), "time": ("obs", obs["time"].values[:2])}
    )
    value, variance = estimate(obs, where, prior, reach=1e3)

    def unit(ds):
        a, b = np.radians(ds["lon"].values), np.radians(ds["lat"].values)
        return RADIUS * np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], 1)

    def seconds(ds):
        return ((ds["time"].values - time.min()) / np.timedelta64(1, "s"))[:, None]

    def C(a, b):
        return 0.09 * arhan_colin(cdist(unit(a), unit(b)) / 150e3, cdist(seconds(a), seconds(b)) / (10 * DAY))

    S = C(obs, obs) + 0.01 * np.eye(n)
    np.testing.assert_allclose(value, 1 + C(where, obs) @ np.linalg.solve(S, obs["value"].values - 1), atol=1e-10)
    expected = 0.09 - np.einsum("ij,ji->i", C(where, obs), np.linalg.solve(S, C(obs, where)))
    np.testing.assert_allclose(variance, expected, atol=1e-10)


def test_nearby_observations_are_enough():
    rng = np.random.default_rng(2)
    obs, wanted = scattered(rng, 800, 1e6), at(*rng.uniform(0, 1e6, (2, 60)), rng.uniform(0, 20 * DAY, 60))
    exact, exact_variance = estimate(obs, wanted, PRIOR, reach=1e3, most=10**6)
    near, variance = estimate(obs, wanted, PRIOR)
    few, _ = estimate(obs, wanted, PRIOR, most=40)
    assert np.std(near - exact) < 0.05 * np.std(exact)
    assert np.std(few - exact) > np.std(near - exact)
    np.testing.assert_allclose(variance, exact_variance, atol=0.02 * 0.09)
    assert ((variance >= 0) & (variance <= 0.09)).all()


def test_exact_observations_are_met_and_far_places_are_unknown():
    rng = np.random.default_rng(3)
    obs = scattered(rng, 20, noise=1e-6)
    value, variance = estimate(obs, obs, PRIOR)
    np.testing.assert_allclose(value, obs["value"], atol=1e-5)
    assert variance.max() < 1e-6
    value, variance = estimate(obs, at([9e6], [9e6], [0]), PRIOR)
    assert (value[0], variance[0]) == (0.0, pytest.approx(0.09))


def test_stated_error_is_the_actual_error():
    """Fields drawn from the prior itself: errors over their stated standard deviation have variance 1."""
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, 6e5, (2, 250))
    time = np.sort(rng.uniform(0, 20 * DAY, 250))
    points = np.column_stack([x / 100e3, y / 100e3, time / (10 * DAY)])
    C = 0.09 * np.exp(-cdist(points, points, "sqeuclidean"))
    root = np.linalg.cholesky(C + 1e-10 * np.eye(250))
    known = np.arange(250) % 2 == 0
    ratios = []
    for _ in range(20):
        field = root @ rng.normal(size=250)
        obs = observations(field[known] + 0.1 * rng.normal(size=125), 0.1, time[known], x[known], y[known])
        value, variance = estimate(obs, at(x[~known], y[~known], time[~known]), PRIOR, reach=10)
        ratios.append((value - field[~known]) / np.sqrt(variance))
    assert np.std(ratios) == pytest.approx(1, abs=0.06)


def test_maps_have_coordinates_and_ignore_flagged_observations():
    lon, lat = map_axes((-2.0, 2.0, 40.0, 43.0), 9)
    assert len(lat) == 9, "here 3 degrees north are longer than 4 east"
    assert len(lon) == pytest.approx(9 * 4 * np.cos(np.radians(41.5)) / 3, abs=1)
    time = np.datetime64("2020-01-01", "ns")
    obs = observations([0.3, 50.0], 0.01, time, lon=[0.0, 0.5], lat=[41.5, 41.5], channels=["ssh"], units=["m"])
    obs["sigma"][1] = -1.0
    ds = interpolated(check(obs), lon, lat, time, PRIOR)
    assert ds["value"].dims == ("time", "lat", "lon")
    assert float(ds["value"].max()) < 0.31
    assert float(ds["error"].min()) < 0.1 < float(ds["error"].max()) <= 0.3
    assert ds["value"].attrs["units"] == "m"


@pytest.mark.parametrize(("call", "message"), [
    (lambda o: Prior(0.0, 1.0, 1.0), "std of the prior must be a positive number, got 0"),
    (lambda o: Prior(1.0, 1.0, np.inf), "time of the prior must be a positive number"),
    (lambda o: estimate(o, o, PRIOR, reach=0.0), "reach must be positive and most at least 1"),
    (lambda o: estimate(check(o.assign(sigma=-o["sigma"])), o, PRIOR), "no good observation"),
    (lambda o: estimate(o.assign(sigma=-o["sigma"]), o, PRIOR), "sigmas must be positive"),
    (lambda o: map_axes((2.0, 1.0, 0.0, 1.0), 10), "west < east"),
])  # fmt: skip
def test_requests_without_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(scattered(np.random.default_rng(5)))
