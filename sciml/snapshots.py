"""Runs of a fine quasi-geostrophic model as a coarse grid sees them, once a day: what emulators learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciml.data import DIMS, coordinates, open_run, time_coordinate, write_netcdf
from sciml.equation.presets import preset
from sciml.initial import random_pv
from sciml.rollout import rollout
from sciml.step import Step, ab3

DAY = 86400.0
STEPS = 12
"""of a day with 64 points along x; with n times the points, n / 2 times as many, but no fewer"""


def stepper(config: str, nx: int, **changes) -> Step:
    """The model ``config`` (see :data:`sciml.equation.presets.PRESETS`) with ``nx`` points and ``changes``, and its
    time step: 7200 s with 64 points and 128, 3600 s with 256."""
    return ab3(preset(config, nx, **changes), DAY / max(STEPS, round(STEPS * nx / 128)))


def seen(config: str, nx: int, fine: int, days: int, seed: int, years: float = 6.0) -> xr.Dataset:
    """PV ``q (time, lev, y, x)`` [s-1], float32, on ``nx`` points each day of a run with ``fine`` points.

    Modes that the coarse grid has are kept, others dropped. Statistical equilibrium is reached from noise in ``years``
    with ``nx`` points, one more with twice as many, and so on to ``fine``, where it is a tenth of one.
    """
    if fine < nx or nx < 16 or days < 1:
        raise ValueError(f"need 16 <= nx <= fine and at least a day, got nx = {nx}, fine = {fine}, {days} days")
    points = [nx]
    while points[-1] < fine:
        points.append(min(2 * points[-1], fine))
    grid, q = preset(config, nx).grid, random_pv(preset(config, nx), seed=seed)  # type: ignore[arg-type]
    spans = [years, *[1.0] * (len(points) - 2), 0.1][: len(points)]
    for n, span in zip(points, spans, strict=True):
        step = stepper(config, n)
        steps = round(span * 360 * DAY / step.dt)
        q = rollout(step, steps, max(steps, 1), progress=f"spin-up, {n} points")(
            grid.resample(q, step.equation.grid)).fields[-1]  # fmt: skip
        grid = step.equation.grid
    step, coarse = stepper(config, fine), preset(config, nx)
    every = round(DAY / step.dt)

    def save(state):
        return grid.resample(step.read(state), coarse.grid).float()

    run = rollout(step, days * every, every, save, progress=f"run {seed}")(q)
    attrs = {"units": "s-1", "long_name": "potential vorticity anomaly"}
    coords = coordinates(coarse) | {"time": time_coordinate(np.round(run.time.numpy()))}
    about = {"Conventions": "CF-1.11", "title": f"{config} with {fine} x {fine} points, seen with {nx} x {nx}"}
    data = {"q": (DIMS[1:], torch.as_tensor(run.fields).numpy(), attrs)}
    return xr.Dataset(data, coords, about | {"config": config, "fine": fine, "seed": seed, "spin_up_years": years})


def runs(folder: Path, seeds, config: str, nx: int, fine: int, days: int) -> list[xr.Dataset]:
    """:func:`seen` by several seeds; those that are files in ``folder`` already are read."""
    found = []
    for seed in seeds:
        name = f"{config}_{fine}_{nx}_{days}d_{seed}"
        if not (folder / f"{name}.nc").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_netcdf(seen(config, nx, fine, days, seed), folder / f"{name}.nc")
        found.append(open_run(folder, name))
    return found
