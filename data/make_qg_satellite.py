"""Make the sample satellite-like data set from a seed.

    python data/make_qg_satellite.py [--seed 0] [--days 400] [--spinup-days 3600] [--out data]

Writes ``qg_satellite.nc`` (observations), ``qg_satellite_truth.nc`` (used for scoring only) and
``qg_satellite_climatology.nc`` (snapshots of other truths: climatology, first ensembles, error covariances). Other
seeds make truths for tuning and training; the shipped files are those of seed 0. About ten minutes on one core.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
import xarray as xr

from sciml import testbed
from sciml.assim.base import covariance, trajectory
from sciml.assim.optimal import refitted
from sciml.assim.variational import FourDVar
from sciml.data import coordinates, model_attributes, time_coordinate, write_netcdf
from sciml.instruments import simulate
from sciml.observe import windows
from sciml.step import State
from sciml.testbed import DAY, WINDOW


@dataclass(frozen=True)
class Options:
    seed: int = 0
    """Seed of truth and observation errors."""
    days: float = 400.0
    """Length, in whole windows of five days."""
    spinup_days: float = 3600.0
    """Days from random eddies to the first observation."""
    climatology: bool = True
    """Also make the climatology, from the seeds 1001 to 1008."""
    out: Path = Path(__file__).parent
    """Folder for the files."""


PACKED = {"zlib": True, "complevel": 6, "shuffle": True}


def fields(q: torch.Tensor, eq, times, dim: str, attrs: dict) -> xr.Dataset:
    """PV ``(dim, lev, y, x)`` in single precision."""
    coords = coordinates(eq) | ({"time": time_coordinate(times)} if dim == "time" else {})
    data = {
        "q": (
            (dim, "lev", "y", "x"),
            q.numpy().astype(np.float32),
            {"units": "s-1", "long_name": "potential vorticity anomaly"},
        )
    }
    ds = xr.Dataset(data, coords, {"Conventions": "CF-1.11", **model_attributes(eq), **attrs})
    ds["q"].encoding = PACKED
    return ds


def true_states(seed: int, days: float, spinup: float) -> torch.Tensor:
    """States of the perfect model at every step."""
    step = testbed.stepper(testbed.model())
    n = round(days * DAY / (WINDOW * step.dt)) * WINDOW
    with torch.no_grad():
        return trajectory(step, testbed.spun_up(step, seed, spinup), n)[0]


def observed(states: torch.Tensor, seed: int, command: str) -> xr.Dataset:
    """Simulated observations of the network of the test bed, as they are written."""
    eq = testbed.model()
    H = testbed.operator(eq)
    obs = simulate(H, testbed.network(H), states, 0.0, testbed.DT, seed)
    obs = obs.assign_attrs(
        source_command=command,
        title="sample satellite-like observations of a quasi-geostrophic ocean",
        channels=json.dumps(testbed.CHANNELS),
        dt=testbed.DT,
        window_steps=WINDOW,
        windows=(len(states) - 1) // WINDOW,
    )
    for name in ("value", "sigma", "x", "y"):
        obs[name] = obs[name].astype(np.float32)
    for name in obs.variables:
        obs[name].encoding = PACKED
    return obs


def truth_file(states: torch.Tensor, command: str) -> xr.Dataset:
    """The truth at the ends of the windows, and the bottom that it flows over."""
    eq, ends = testbed.model(), states[::WINDOW]
    times = WINDOW * testbed.DT * np.arange(len(ends))
    about = {"units": "s-1", "long_name": "f0 h / H2 of the perfect model"}
    found = fields(eq.read(ends), eq, times, "time", {"source_command": command})
    return found.assign(topography=(("y", "x"), testbed.topography(eq.grid).numpy().astype(np.float32), about))


def snapshots(seeds, spinup: float) -> torch.Tensor:
    """PV of other truths, 50 days apart."""
    eq = testbed.model()
    step = testbed.stepper(eq)
    found = []
    for seed in seeds:
        state = testbed.spun_up(step, seed, spinup)
        for _ in range(12):
            state = State(trajectory(step, state, round(50 * DAY / step.dt))[1].z)
            found.append(eq.read(state.z))
    return torch.stack(found)


def run(o: Options) -> None:
    torch.set_num_threads(1)
    states = true_states(o.seed, o.days, o.spinup_days)
    command = f"python data/make_qg_satellite.py --seed {o.seed} --days {o.days:g} --spinup-days {o.spinup_days:g}"
    write_netcdf(observed(states, o.seed + 7, command), o.out / "qg_satellite.nc")
    write_netcdf(truth_file(states, command), o.out / "qg_satellite_truth.nc")
    if o.climatology:
        q = snapshots(range(1001, 1009), o.spinup_days)
        ds = fields(q, testbed.model(), None, "sample", {"source_command": command})
        for kind, suffix in (("perfect", ""), ("imperfect", "_imperfect")):
            for name, root in zip(("background", "analysis"), roots(q, o.spinup_days, kind), strict=True):
                text = f"square root of the {name} error covariance of q, {kind} model, for white noise on the grid"
                attrs = {"long_name": text, "units": "s-1"}
                ds[f"{name}_root{suffix}"] = (("i", "j", "k", "l"), root.numpy().astype(np.float32), attrs)
        write_netcdf(ds, o.out / "qg_satellite_climatology.nc")


LAGS = {"perfect": (2, 3, 4), "imperfect": (1, 2, 2)}
"""windows of the 4D-Var with which the covariance of analyses is found, again and again"""


def roots(q: torch.Tensor, spinup: float, kind: str, seed: int = 2001) -> tuple[torch.Tensor, torch.Tensor]:
    """B of the backgrounds of optimal interpolation and of the analyses of 4D-Var, fitted to the errors of a cycled
    model of that kind on a training truth of its own."""
    eq, states = testbed.model(kind), true_states(seed, 250.0, spinup)
    obs = observed(states, seed + 7, "")
    step, ends = testbed.stepper(eq), testbed.states(eq, testbed.model().read(states[WINDOW::WINDOW]))
    cut = windows(obs, testbed.operator(eq), 0.0, testbed.DT, WINDOW, len(ends))
    z = testbed.states(eq, q)
    start, first = State(z.mean(0)), covariance(eq.grid, z - z.mean(0))
    background = refitted(first, step, cut, start, ends)
    methods = [partial(FourDVar, lag=lag, outer=1, inner=10) for lag in LAGS[kind]]
    analysis = refitted(background, step, cut, start, ends, methods, skip=15, of_analysis=True)
    return background.root, analysis.root


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
