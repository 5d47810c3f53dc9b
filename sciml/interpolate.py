r"""Space-time optimal interpolation of scattered observations, at any places or on a map.

.. math:: \hat\eta = m + C_{xo} (C_{oo} + R)^{-1} (y - m), \qquad
          e^2 = \sigma^2 - C_{xo} (C_{oo} + R)^{-1} C_{ox}

(Gandin 1963; Bretherton, Davis & Fandry 1976, Deep-Sea Res. 23, 559, equations 6 and 7), with covariances
:math:`C = \sigma^2 \rho(r / L, \Delta t / T)` and uncorrelated errors, :math:`R_{ii} = \sigma_i^2`. It is the posterior
of a Gaussian process. As in Le Traon, Nadal & Ducet (1998, JTECH 15, 522), each place uses only the observations near
it in space and time. Distances on the sphere are chords, for which these correlations stay positive definite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import cho_factor, cho_solve

from sciml.observations import good

RADIUS = 6371e3
"""m; mean radius of the Earth"""
Correlation = Callable[[np.ndarray, np.ndarray], np.ndarray]


# -- covariances -----------------------------------------------------------------------------------------------------
def gaussian(r: np.ndarray, t: np.ndarray) -> np.ndarray:
    """``exp(-r^2 - t^2)``: the baseline of the ocean data challenges."""
    return np.exp(-(r**2) - t**2)


def arhan_colin(r: np.ndarray, t: np.ndarray) -> np.ndarray:
    """``(1 + a + a^2/6 - a^3/6) exp(-a - t^2)`` with ``a = 3.34 r``, so that L is the first zero crossing (Arhan &
    Colin de Verdiere 1985; Le Traon et al. 1998, equation 8)."""
    a = 3.34 * r
    return (1 + a + a**2 / 6 - a**3 / 6) * np.exp(-a - t**2)


@dataclass(frozen=True)
class Prior:
    """What is known before observing.

    Parameters
    ----------
    std : standard deviation of the signal, in units of the observations
    length, time : scales L [m] and T [s] of the correlation
    mean : of the signal; None stands for the mean of the observations, weighted by ``1 / (std^2 + sigma^2)``
    correlation : function of distance over L and time over T
    """

    std: float
    length: float
    time: float
    mean: float | None = 0.0
    correlation: Correlation = gaussian

    def __post_init__(self):
        for name in ("std", "length", "time"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} of the prior must be a positive number, got {getattr(self, name)}")

    def mean_of(self, obs: xr.Dataset) -> float:
        """The prior mean for these observations."""
        if self.mean is not None:
            return self.mean
        return float(np.average(obs["value"].values, weights=1 / (self.std**2 + obs["sigma"].values ** 2)))


class Places(NamedTuple):
    """Positions ``(n, 2 or 3)`` over L and times ``(n,)`` over T."""

    position: np.ndarray
    time: np.ndarray

    def __getitem__(self, rows) -> Places:  # type: ignore[override]
        return Places(self.position[rows], self.time[rows])


def places(ds: xr.Dataset, prior: Prior) -> Places:
    """Places of a Dataset with 1-D ``time`` and either ``lon, lat`` or ``x, y``; dates count from 1970."""
    time = ds["time"].values
    if np.issubdtype(time.dtype, np.datetime64):
        time = (time - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    if "lon" in ds.variables:
        lon, lat = np.radians(ds["lon"].values), np.radians(ds["lat"].values)
        unit = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
        position = RADIUS * np.stack(unit, -1)
    else:
        position = np.stack([ds["x"].values, ds["y"].values], -1)
    return Places(position / prior.length, time / prior.time)


def correlations(prior: Prior, a: Places, b: Places) -> np.ndarray:
    """``(len(a), len(b))``."""
    square = ((a.position[:, None] - b.position[None]) ** 2).sum(-1)
    return prior.correlation(np.sqrt(square), a.time[:, None] - b.time[None])


# -- estimates -------------------------------------------------------------------------------------------------------
def estimate(
    obs: xr.Dataset, wanted: xr.Dataset, prior: Prior, reach: float = 3.0, most: int = 600
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and error variance at the places ``wanted`` (1-D ``time`` and ``lon, lat`` or ``x, y``).

    Places are taken together in cells of size L and T. Each cell uses the good observations within ``reach`` scales of
    it, or the nearest ``most`` of them; with all observations in reach the result is the exact one.

    Raises ``ValueError`` where no observation is good or a sigma is not positive.
    """
    used = good(obs)
    if used.sizes["obs"] == 0:
        raise ValueError("there is no good observation to interpolate; see sciml.observations.counts")
    if not reach > 0 or most < 1:
        raise ValueError(f"reach must be positive and most at least 1, got {reach} and {most}")
    sigma = used["sigma"].values / prior.std
    if not np.all(sigma > 0):
        raise ValueError("sigmas must be positive; flag others with sciml.observations.check")
    mean = prior.mean_of(used)
    y = (used["value"].values - mean) / prior.std
    source, target = places(used, prior), places(wanted, prior)
    value, error = np.zeros(len(target.time)), np.ones(len(target.time))
    key = np.floor(np.column_stack([target.position, target.time]))
    _, cell = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(cell.ravel(), kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cell.ravel()[order])) + 1):
        here = target[rows]
        near = nearby(source, here, reach, most)
        if near.size:
            value[rows], error[rows] = solve(prior, source[near], y[near], sigma[near], here)
    return mean + prior.std * value, prior.std**2 * np.clip(error, 0.0, 1.0)


def nearby(source: Places, here: Places, reach: float, most: int) -> np.ndarray:
    """Numbers of the sources within ``reach`` of the box around some places, at most the ``most`` nearest ones."""
    square = np.zeros(len(source.time))
    for a, b in zip((*source.position.T, source.time), (*here.position.T, here.time), strict=True):
        square += np.clip(np.maximum(b.min() - a, a - b.max()), 0, None) ** 2
    inside = np.flatnonzero(square <= reach**2)
    if inside.size <= most:
        return inside
    axes = zip((*source[inside].position.T, source[inside].time), (*here.position.T, here.time), strict=True)
    centre = sum((a - (b.min() + b.max()) / 2) ** 2 for a, b in axes)
    return inside[np.argpartition(centre, most)[:most]]


def solve(prior: Prior, source: Places, y: np.ndarray, sigma: np.ndarray, wanted: Places):
    """Mean and error variance over ``std^2`` from scaled observations."""
    factor = cho_factor(correlations(prior, source, source) + np.diag(sigma**2), lower=True)
    cross = correlations(prior, wanted, source)
    return cross @ cho_solve(factor, y), 1.0 - np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))


# -- maps ------------------------------------------------------------------------------------------------------------
def interpolated(obs: xr.Dataset, lon, lat, time, prior: Prior, reach: float = 3.0, most: int = 600) -> xr.Dataset:
    """Map ``(time, lat, lon)`` of the one channel of the good observations: ``value`` and ``error``, the standard
    deviation of its error.

    ``lon`` and ``lat`` are 1-D [degrees], ``time`` one or several times of the kind that the observations have. See
    :func:`estimate`.
    """
    if len(np.unique(good(obs)["channel"])) > 1:
        raise ValueError("a map is made of one channel; select it, for example with obs.isel(obs=...)")
    time = np.atleast_1d(time)
    T, Y, X = (a.ravel() for a in np.meshgrid(time, np.asarray(lat), np.asarray(lon), indexing="ij"))
    wanted = xr.Dataset({"time": ("obs", T), "lon": ("obs", X), "lat": ("obs", Y)})
    value, variance = estimate(obs, wanted, prior, reach, most)
    shape = (len(time), len(lat), len(lon))
    units = {"units": obs["value"].attrs.get("units", "1")}
    data = {"value": (value, "optimally interpolated value"),
            "error": (np.sqrt(variance), "standard deviation of the error of value")}  # fmt: skip
    coords = {"time": ("time", time, obs["time"].attrs)} | {
        n: (n, np.asarray(a, dtype=np.float64), obs[n].attrs) for n, a in (("lat", lat), ("lon", lon))
    }
    maps = {n: (("time", "lat", "lon"), a.reshape(shape), {"long_name": t, **units}) for n, (a, t) in data.items()}
    about = {"prior_std": prior.std, "prior_length": prior.length, "prior_time": prior.time}
    return xr.Dataset(maps, coords, {"Conventions": "CF-1.11", "prior_mean": prior.mean_of(good(obs)), **about})


def map_axes(box: tuple[float, float, float, float], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes over ``box`` = west, east, south, north, about equally far apart in metres, ``points``
    along the longer side; edges are included."""
    west, east, south, north = box
    if points < 4 or not (west < east and south < north):
        raise ValueError(f"a map needs west < east, south < north and at least 4 points, got {box} and {points}")
    wide = (east - west) * np.cos(np.radians((south + north) / 2))
    nx, ny = (max(4, round(points * a / max(wide, north - south))) for a in (wide, north - south))
    return np.linspace(west, east, nx), np.linspace(south, north, ny)
