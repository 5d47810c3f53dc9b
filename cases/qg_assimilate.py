"""Assimilation of satellite-like observations of a two-layer ocean: the ladder of classical methods on one data set.

    background at the start of a five-day window, forecast x_b(t); observations y_i = H_i(x(t_i)) + e_i
    analysis at the end of the window from both: oi, 3dvar, enkf, etkf, letkf, 4dvar (see sciml/assim)

Data: data/qg_satellite.nc (three altimeters, a wide swath, a radiometer with clouds; data/make_qg_satellite.py makes
it), truth for scoring only. Methods: Daley (1991), Burgers et al. (1998), Hunt et al. (2007, Physica D 230, 112),
Courtier et al. (1994, QJRMS 120, 1367). Expected errors of the streamfunction over its climatological standard
deviation, perfect model, upper layer: climatology 1, oi 0.24, letkf (40 members) 0.13; docs/results.md has the whole
ladder.

Writes analysis.nc, departures.nc, pictures and summary.json, with --method all one folder for each method. Run time on
one core: quick 15 s; default (80 windows) oi 40 s, letkf 90 s, 3dvar 2 minutes, 4dvar about 15 minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from common import Common, Refused, device, folder, main, write_summary
from torch import Tensor

import sciml as sm
from sciml import plot, score, testbed
from sciml.assim import ensemble
from sciml.assim.base import Analysed, Covariance, Space, trajectory
from sciml.assim.cycle import Record, cycle
from sciml.assim.local import LETKF
from sciml.assim.optimal import OptimalInterpolation, ThreeDVar, free_run
from sciml.assim.variational import FourDVar
from sciml.data import attributes, coordinates, refusing, time_coordinate, write_netcdf
from sciml.observations import check, concatenate, counts, without
from sciml.observe import Window, windows

DATA = Path(__file__).resolve().parents[1] / "data"
METHODS = ("climatology", "free", "oi", "3dvar", "enkf", "etkf", "letkf", "4dvar")
DAY = testbed.DAY


@dataclass(frozen=True)
class Options(Common):
    method: Literal["climatology", "free", "oi", "3dvar", "enkf", "etkf", "letkf", "4dvar", "all"] = "letkf"
    """Analysis; all runs the ladder and prints it."""
    model: Literal["perfect", "imperfect"] = "perfect"
    """The model that made the truth, or one with wrong drag and deformation radius and no topography."""
    observations: Path = DATA / "qg_satellite.nc"
    """Observation file, as data/make_qg_satellite.py writes it."""
    truth: Path | None = DATA / "qg_satellite_truth.nc"
    """File with the truth, for scores only."""
    climatology: Path = DATA / "qg_satellite_climatology.nc"
    """File with snapshots of the model and its background covariance."""
    days: float | None = None
    """Length, days, in whole windows (default: all observations; quick 30)."""
    skip_days: float | None = None
    """Days at the start that scores leave out (default: a quarter of the length)."""
    members: int = 40
    """Size of ensembles."""
    radius: float = 40e3
    """Localisation length of letkf, m."""
    inflation: float = 1.05
    """Factor of the anomalies after each analysis of an ensemble filter."""
    lag: int = 1
    """Windows that 4dvar assimilates at once."""
    leave_out: str | None = None
    """Platform that is not used, to see its value."""


class Setting(NamedTuple):
    """What all methods share."""

    eq: sm.TwoLayerQG
    step: sm.Step
    windows: list[Window]
    covariance: Covariance
    climate: Tensor
    """snapshots ``(samples, n, *modes)``"""
    truth: xr.Dataset | None
    flags: dict[str, int]


# -- input -----------------------------------------------------------------------------------------------------------
def load(path: Path, what: str) -> xr.Dataset:
    """A file in memory, or one line that says which one is missing or damaged."""
    if not path.exists():
        raise Refused(f"no {what} at {path}; make it with: python data/make_qg_satellite.py")
    with refusing(path), xr.open_dataset(path, decode_times=False, engine="netcdf4") as ds:
        return ds.load()


def prepare(o: Options) -> Setting:
    """Model, windows of good observations, background statistics, truth."""
    for name, least in (("members", 2), ("lag", 1)):
        if getattr(o, name) < least:
            raise Refused(f"--{name} must be at least {least}, got {getattr(o, name)}")
    obs, climate = load(o.observations, "observations"), load(o.climatology, "climatology")
    eq = testbed.model(o.model, device=device(o.device))
    step = testbed.stepper(eq)
    H = testbed.operator_of(obs, eq)
    length = testbed.WINDOW * step.dt
    available = int(obs.attrs.get("windows", np.floor(float(obs["time"].max()) / length)))
    n = min(6, available) if o.preset == "quick" else available
    if o.days is not None:
        n = int(o.days * DAY / length)
        if not 1 <= n <= available:
            raise Refused(f"--days must be from {length / DAY:g} to {available * length / DAY:g}, got {o.days:g}")
    if o.leave_out:
        obs = without(obs, o.leave_out)
    grid = eq.grid
    box = (grid.x0, grid.x0 + grid.Lx, grid.y0, grid.y0 + grid.Ly)
    obs = check(obs, 0.0, n * length, box)
    cut = windows(obs, H, 0.0, step.dt, testbed.WINDOW, n)
    z = eq.init(torch.as_tensor(climate["q"].values, dtype=grid.dtype))
    B = Covariance(grid, grid.real(torch.as_tensor(climate["background_root"].values)))
    truth = None if o.truth is None else load(o.truth, "truth").isel(time=slice(1, n + 1))
    if truth is not None and truth.sizes["time"] < n:
        raise Refused(f"{o.truth} ends before the observations: {truth.sizes['time']} windows of {n}")
    return Setting(eq, step, cut, B, z, truth, counts(obs))


# -- methods ---------------------------------------------------------------------------------------------------------
def of_climate(climate: Tensor, background, window: Window, step, memory=None) -> Analysed:
    """The mean of the climatology, whatever is observed."""
    state = background._replace(z=climate.mean(0), time=window.start + window.steps * window.dt)
    states, _ = trajectory(step, background._replace(z=climate.mean(0)), window.steps)
    return Analysed(state, state, window.equivalents(states))


def build(o: Options, s: Setting) -> dict[str, tuple[Callable[..., Analysed], sm.State]]:
    """Analysis and first state of every method."""
    grid, eq = s.eq.grid, s.eq
    one = sm.State(s.climate.mean(0))
    generator = torch.Generator().manual_seed(o.seed)
    order = torch.randperm(len(s.climate), generator=generator)
    if o.members > len(order):
        raise Refused(f"--members {o.members}: the climatology has {len(order)} snapshots to start from")
    many = sm.State(s.climate[order[: o.members]])
    space = Space(grid, lambda z: grid.ifft(eq.psi(z)), eq.pv)
    local = LETKF(space, o.radius, o.inflation, every=2, seed=o.seed)
    return {
        "climatology": (partial(of_climate, s.climate), one),
        "free": (free_run, sm.State(s.climate[order[0]])),
        "oi": (OptimalInterpolation(s.covariance, tolerance=1e-3), one),
        "3dvar": (ThreeDVar(s.covariance, tolerance=1e-2), one),
        "enkf": (ensemble.EnKF(ensemble.perturbed_observations, o.inflation, seed=o.seed), many),
        "etkf": (ensemble.EnKF(ensemble.square_root, o.inflation, rotate=True, seed=o.seed), many),
        "letkf": (local, many),
        "4dvar": (FourDVar(s.covariance, o.lag), one),
    }


# -- output ----------------------------------------------------------------------------------------------------------
def scores(o: Options, s: Setting, record: Record) -> dict[str, Any]:
    """Errors over the climatological standard deviation, with intervals, and spreads."""
    n = len(record.time)
    skip = n // 4 if o.skip_days is None else min(n - 1, int(o.skip_days * DAY / (testbed.WINDOW * s.step.dt)))
    d = torch.cat([d for d, _ in record.departures[skip:]]) / torch.cat([w.sigma for w in s.windows[skip:]])
    out: dict[str, Any] = {"scored_windows": n - skip, "innovation_rms_over_sigma": float(d.pow(2).mean().sqrt())}
    if s.truth is None:
        return out
    eq = s.eq
    std = eq.grid.ifft(eq.psi(s.climate - s.climate.mean(0))).std((0, 2, 3))
    true = eq.init(torch.as_tensor(s.truth["q"].values, dtype=eq.grid.dtype))
    for name, z in (("analysis", record.analysis), ("background", record.background)):
        error = eq.grid.ifft(eq.psi(z - true))[skip:].pow(2).mean((-2, -1)).sqrt() / std
        out[f"{name}_psi"] = error.mean(0).tolist()
        out[f"{name}_psi_interval"] = [score.block_bootstrap(e.numpy(), block=6, seed=0) for e in error.mT]
        q = (eq.read(z - true)[skip:].pow(2).mean((-2, -1)).sqrt() / eq.read(s.climate).std((0, 2, 3))).mean(0)
        out[f"{name}_q"] = q.tolist()
    if record.spread is not None:
        out["spread_psi"] = (record.spread[skip:].pow(2).mean((-2, -1)).sqrt() / std).mean(0).tolist()
    return out


def dataset(s: Setting, record: Record) -> xr.Dataset:
    """Background, analysis and spread at the ends of the windows."""
    eq = s.eq
    data = {}
    for kind, z in (("background", record.background), ("analysis", record.analysis)):
        for name, values in (("q", eq.read(z)), ("psi", eq.grid.ifft(eq.psi(z)))):
            data[f"{name}_{kind}"] = (
                ("time", "lev", "y", "x"),
                values.cpu().numpy().astype(np.float32),
                attributes(name),
            )
    if record.spread is not None:
        spread = record.spread.cpu().numpy().astype(np.float32)
        data["psi_spread"] = (
            ("time", "lev", "y", "x"),
            spread,
            {"units": "m2 s-1", "long_name": "ensemble spread of psi"},
        )
    coords = coordinates(eq) | {"time": time_coordinate(record.time)}
    return xr.Dataset(data, coords, {"Conventions": "CF-1.11", "title": "assimilation of satellite-like observations"})


def departures(s: Setting, record: Record) -> xr.Dataset:
    """All used observations with observation minus background."""
    about = {"units": "1", "long_name": "observation minus background, in channel_units of the channel"}
    parts = [
        w.obs.assign(omb=("obs", d.cpu().numpy(), about))
        for w, (d, _) in zip(s.windows, record.departures, strict=True)
    ]
    return concatenate([p for p in parts if p.sizes["obs"]])


def pictures(s: Setting, record: Record, ds: xr.Dataset, out: Path) -> None:
    """Maps of the last window, error against time, spectra of the error."""
    if s.truth is None:
        return
    eq = s.eq
    true = eq.init(torch.as_tensor(s.truth["q"].values, dtype=eq.grid.dtype))
    psi = eq.grid.ifft(eq.psi(true))
    last = ds.isel(time=-1)
    plot.save(plot.analysis(psi[-1].numpy(), last, s.windows[-1].obs), out / "maps.png")
    error = eq.grid.ifft(eq.psi(record.analysis - true)).pow(2).mean((-2, -1)).sqrt()
    std = eq.grid.ifft(eq.psi(s.climate - s.climate.mean(0))).std((0, 2, 3))
    labels = ["layer 1", "layer 2 (seen by the radiometer only)"]
    plot.save(plot.series(record.time / DAY, error / std, labels, "error of ψ / climatological std"), out / "error.png")
    plot.save(plot.error_spectra(eq.grid, eq.psi(record.analysis - true), eq.psi(true)), out / "error_spectra.png")


def one_method(o: Options, s: Setting, method: str, out: Path) -> dict[str, Any]:
    """Run a method and write its folder."""
    started = time.monotonic()
    analysis, start = build(o, s)[method]
    eq = s.eq
    record = cycle(s.step, analysis, s.windows, start, lambda z: eq.grid.ifft(eq.psi(z)), progress=method)
    results = scores(o, s, record) | {
        "flags": s.flags,
        "seconds_per_window": (time.monotonic() - started) / len(s.windows),
    }
    ds = dataset(s, record)
    write_netcdf(ds, out / "analysis.nc")
    write_netcdf(departures(s, record), out / "departures.nc")
    pictures(s, record, ds, out)
    write_summary(out / "summary.json", o, results | {"method": method}, started)
    return results


def row(results: dict[str, Any]) -> dict[str, float]:
    """A line of the printed ladder."""
    out = {}
    for name in ("analysis_psi", "background_psi", "analysis_q", "spread_psi"):
        out |= {f"{name}{i + 1}": v for i, v in enumerate(results.get(name, []))}
    return out | {"innov/sigma": results["innovation_rms_over_sigma"], "s/window": results["seconds_per_window"]}


def run(o: Options) -> None:
    out = folder(o.out or Path("runs") / f"qg_assimilate-{o.method}")
    s = prepare(o)
    build(o, s)  # refuses what no method can use before anything is written
    used, days = sum(len(w) for w in s.windows), testbed.WINDOW * s.step.dt / DAY
    print(f"{used} observations in {len(s.windows)} windows of {days:g} days; flags: {s.flags}")
    chosen = METHODS if o.method == "all" else (o.method,)
    ladder, diverged = {}, []
    for method in chosen:
        try:
            ladder[method] = one_method(o, s, method, folder(out / method) if o.method == "all" else out)
        except sm.BlowUp as error:
            if o.method != "all":
                raise
            diverged.append(f"{method}: {error}")
    if o.method == "all":
        write_summary(out / "summary.json", o, {"ladder": ladder, "diverged": diverged}, time.monotonic())
    print(score.table({m: row(r) for m, r in ladder.items()}))
    print("\n".join([*diverged, f"results in {out}"]))


if __name__ == "__main__":
    main(run, Options)
