"""Fewer observations: thinning, and means of those that lie close together (superobservations)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sciml.grid import Grid
from sciml.observations import QC, good


def thin(obs: xr.Dataset, every: int) -> xr.Dataset:
    """Keep each ``every``-th good observation of each platform and channel; the others are flagged ``thinned``."""
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    qc = obs["qc"].values.copy()
    key = obs["platform"].values.astype(int) * 1000 + obs["channel"].values
    for one in np.unique(key):
        own = np.flatnonzero((key == one) & (qc == 0))
        qc[np.delete(own, np.s_[::every])] = QC["thinned"]
    return obs.assign(qc=("obs", qc, obs["qc"].attrs))


def superob(
    obs: xr.Dataset, dx: float, dt: float, correlated: float = 0.0, grid: Grid | None = None, start=None
) -> xr.Dataset:
    """Means of the good observations of a platform and channel in cells of ``dx`` (in units of the places) and ``dt``
    (seconds), weighted by ``1 / sigma^2``, at their mean place and time; the others are left out.

    ``correlated`` is the part of the error variance that all observations of a cell share:
    ``sigma^2 = correlated sigma_0^2 + (1 - correlated) / sum(1 / sigma_i^2)``, with ``sigma_0^2`` their harmonic mean.
    ``count`` is the number of observations in a mean, those in means of which it is one included.
    Cells end at ``start + n dt``, as windows do (default: they begin at the first observation).
    Places are brought into the periodic box of ``grid``, where one is given, and longitudes within 180 degrees of the
    first one, so that 359 and -1 are one place; they come back from 0 to 360, or from -180 where some were negative.
    """
    if not (dx > 0 and dt > 0 and 0 <= correlated <= 1):
        raise ValueError("superobbing needs dx > 0, dt > 0 and correlated between 0 and 1")
    used = good(obs, sound=True)
    if used.sizes["obs"] == 0:
        return used
    first, second = ("lon", "lat") if "lon" in obs.variables else ("x", "y")
    seconds = used["time"].values
    is_date = np.issubdtype(seconds.dtype, np.datetime64)
    origin = seconds.min() if start is None else start
    seconds = (seconds - origin) / np.timedelta64(1, "s") if is_date else seconds - origin
    places = {c: used[c].values for c in (first, second)}
    if first == "lon":
        west = -180.0 if places["lon"].min() < 0 else 0.0
        places["lon"] = places["lon"][0] + (places["lon"] - places["lon"][0] + 180.0) % 360.0 - 180.0
    elif grid is not None:
        places = {"x": grid.x0 + (places["x"] - grid.x0) % grid.Lx, "y": grid.y0 + (places["y"] - grid.y0) % grid.Ly}
    part = np.floor(seconds / dt) if start is None else np.ceil(seconds / dt)
    keys = [used["platform"].values, used["channel"].values, part,
            *(np.floor(a / dx) for a in places.values())]  # fmt: skip
    _, foremost, cell = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
    cell = cell.ravel()
    weight = used["sigma"].values ** -2.0
    total, n = np.bincount(cell, weight), np.bincount(cell)
    measured = np.bincount(cell, used["count"].values) if "count" in used else n

    def mean(a: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weight * a) / total

    out = used.isel(obs=foremost)
    when = mean(seconds)
    when = origin + (when * 1e9).astype("timedelta64[ns]") if is_date else origin + when
    out = out.assign_coords(time=("obs", when, used["time"].attrs))
    places = {c: mean(a) for c, a in places.items()}
    if first == "lon":
        places["lon"] = west + (places["lon"] - west) % 360.0
    out = out.assign_coords({c: ("obs", a, used[c].attrs) for c, a in places.items()})
    variance = correlated * n / total + (1 - correlated) / total
    new = {"sigma": np.sqrt(variance)} | {c: mean(used[c].values) for c in ("value", "omb", "oma") if c in used}
    out = out.assign({c: ("obs", v, used[c].attrs) for c, v in new.items()})
    out = out.assign(count=("obs", measured.astype(np.int32), {"units": "1", "long_name": "observations in the mean"}))
    return out.isel(obs=np.argsort(out["time"].values, kind="stable"))
