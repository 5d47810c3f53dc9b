"""Reference tables of data assimilation: the Lorenz systems, with every method of this library that has a row.

    Lorenz (1996): dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + 8, 40 variables, all observed each 0.05 or 0.2, R = I
    the same with 10 variables, every other one observed each 0.05, R = 1.5 I or 2.25 I
    Lorenz (1963): three variables, all observed each 0.25, R = 2 I

Twin experiments with a perfect model; the time mean of the root-mean-square error of the analysis, beside the values
that DAPPER (Raanes et al. 2024, JOSS 9, 5150) lists for the set-ups of Sakov & Oke (2008, Tellus A 60, 361), Bocquet &
Sakov (2013, NPG 20, 803), Bocquet et al. (2010, MWR 138, 2997) and Sakov, Oliver & Bertino (2012, MWR 140, 1988).
Expected: all rows within 0.02 or 5 % of the table, as means over seeds.

Writes table.nc (seeds and rows), errors.png and summary.json. Run time on one core: quick 2 minutes (one seed, 300
cycles), default about 50 minutes (three seeds, 2000 cycles); --only selects rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from common import Common, Range, Refused, main, make_room
from torch import Tensor

import sciml as sm
from sciml import plot
from sciml.assim import ensemble
from sciml.assim.base import Analysed, Analysis, forecast, trajectory
from sciml.assim.cycle import cycle
from sciml.data import write_netcdf
from sciml.observations import observations
from sciml.observe import Window, level

CYCLES = {"quick": 300, "default": 2000, "full": 10000}
SEEDS = {"quick": 1, "default": 3, "full": 10}
SPIN_UP = 0.2
"""part of the cycles that is not scored"""


WRITTEN = ("table.nc", "errors.png", "summary.json")


@dataclass(frozen=True)
class Options(Common):
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: systems as small as these run on the CPU."""
    cycles: Annotated[int, Range(10, 1_000_000)] | None = None
    """Number of analyses (default: 300, 2000 or 10000 with the preset)."""
    seeds: Annotated[int, Range(1, 1_000)] | None = None
    """Number of truths, with observations and ensembles of their own (default: 1, 3 or 10 with the preset)."""
    only: str = ""
    """Part of the names of the rows to run, such as "LETKF" or "Lorenz 63"."""


class System(NamedTuple):
    """A model, how often it is observed and how well."""

    eq: sm.equation.Lorenz96 | sm.equation.Lorenz63
    dt: float
    steps: int
    variance: float
    every: int = 1
    """each so many variables one is observed"""

    @property
    def n(self) -> int:
        return len(self.eq.prognostic)

    @property
    def space(self) -> sm.Space:
        """Variables as points of a periodic line, at distances of 1."""
        line = sm.Grid(self.n, 1, Lx=float(self.n), Ly=1.0, dealias=1.0, x0=0.0, y0=0.0)
        return sm.Space(line, lambda z: self.eq.read(z)[..., None, None, :], lambda f: self.eq.init(f[..., 0, 0, :]))


SYSTEMS = {
    "Lorenz 96": System(sm.equation.Lorenz96(), 0.05, 1, 1.0),
    "Lorenz 96 each 0.2": System(sm.equation.Lorenz96(), 0.05, 4, 1.0),
    "Lorenz 96 of 10, half observed, R 1.5": System(sm.equation.Lorenz96(n=10), 0.05, 1, 1.5, 2),
    "Lorenz 96 of 10, half observed, R 2.25": System(sm.equation.Lorenz96(n=10), 0.05, 1, 2.25, 2),
    "Lorenz 63": System(sm.equation.Lorenz63(), 0.01, 25, 2.0),
}


class Row(NamedTuple):
    """A line of the table."""

    system: str
    name: str
    reference: float
    members: int
    build: Callable[[System, Tensor, int], Analysis]
    """from system, climatological states ``(samples, n)`` and seed"""


def ensemble_row(system, name, reference, members, weights, inflation=1.0, rotate=False) -> Row:
    """A row of a global ensemble filter."""
    return Row(system, name, reference, members, lambda s, c, seed: sm.EnKF(weights, inflation, rotate, seed))


def of_climatology(system: System, climate: Tensor, seed: int, observed: bool = False) -> Analysis:
    """The climatological mean, or its update by the observations alone (DAPPER's OptInterp)."""
    mean, P = climate.mean(0), torch.cov(climate.mT)
    gain = torch.linalg.solve(P + system.variance * torch.eye(system.n, dtype=P.dtype), P)

    def analysis(background, window: Window, step, memory=None) -> Analysed:
        _, end, equivalents = forecast(step, background, window)
        new = mean + (window.value - mean) @ gain if observed else mean
        return Analysed(end._replace(z=system.eq.init(new)), end, equivalents)

    return analysis


def three_d_var(scale: float) -> Callable[[System, Tensor, int], Analysis]:
    """3D-Var at the end of the window, B a part of the climatological covariance."""

    def build(system: System, climate: Tensor, seed: int) -> Analysis:
        root = torch.linalg.cholesky(scale * torch.cov(climate.mT))[..., None, None]
        return sm.ThreeDVar(sm.Covariance(system.eq.grid, root), middle=1.0)

    return build


def four_d_var(scale: float, lag: int) -> Callable[[System, Tensor, int], Analysis]:
    """4D-Var over ``lag`` windows of which the newest is assimilated, B a part of the climatological covariance."""

    def build(system: System, climate: Tensor, seed: int) -> Analysis:
        root = torch.linalg.cholesky(scale * torch.cov(climate.mT))[..., None, None]
        return sm.FourDVar(sm.Covariance(system.eq.grid, root), lag, outer=2, inner=15, newest=True)

    return build


def letkf(system: System, climate: Tensor, seed: int) -> Analysis:
    """Localised with the taper of half-width 4."""
    return sm.LETKF(system.space, 4.0, 1.04, rotate=True, seed=seed)


TABLE = (
    Row("Lorenz 96", "climatology", 3.6, 1, of_climatology),
    Row("Lorenz 96", "OI of climatology", 0.95, 1, lambda s, c, seed: of_climatology(s, c, seed, observed=True)),
    Row("Lorenz 96", "3D-Var, 0.02 B", 0.41, 1, three_d_var(0.02)),
    ensemble_row("Lorenz 96", "EnKF, 40 members", 0.22, 40, ensemble.perturbed_observations, 1.06),
    ensemble_row("Lorenz 96", "EnKF, 28 members", 0.24, 28, ensemble.perturbed_observations, 1.08),
    ensemble_row("Lorenz 96", "DEnKF, 40 members", 0.18, 40, ensemble.deterministic, 1.01),
    ensemble_row("Lorenz 96", "square root, 24 members", 0.18, 24, ensemble.square_root, 1.013, True),
    ensemble_row("Lorenz 96", "square root, 28 members", 0.18, 28, ensemble.square_root, 1.02, True),
    ensemble_row("Lorenz 96", "EnKF-N, 24 members", 0.21, 24, ensemble.finite_size(), rotate=True),
    ensemble_row("Lorenz 96", "EnKF-N, xN 2", 0.18, 24, ensemble.finite_size(certainty=2.0), rotate=True),
    Row("Lorenz 96", "LETKF, 7 members", 0.22, 7, letkf),
    Row("Lorenz 96 each 0.2", "4D-Var, 0.02 B, lag 1", 0.46, 1, four_d_var(0.02, 1)),
    Row("Lorenz 96 each 0.2", "4D-Var, 0.007 B, lag 2", 0.39, 1, four_d_var(0.007, 2)),
    Row("Lorenz 96 each 0.2", "4D-Var, 0.002 B, lag 4", 0.37, 1, four_d_var(0.002, 4)),
    ensemble_row("Lorenz 96 of 10, half observed, R 1.5", "EnKF-N, 8 members", 0.31, 8,
                 ensemble.finite_size(certainty=1.3), rotate=True),
    ensemble_row("Lorenz 96 of 10, half observed, R 2.25", "EnKF-N, 8 members", 0.44, 8,
                 ensemble.finite_size(certainty=1.3), rotate=True),
    Row("Lorenz 63", "climatology", 7.6, 1, of_climatology),
    Row("Lorenz 63", "OI of climatology", 1.25, 1, lambda s, c, seed: of_climatology(s, c, seed, observed=True)),
    Row("Lorenz 63", "3D-Var, 0.1 B", 1.04, 1, three_d_var(0.1)),
    ensemble_row("Lorenz 63", "square root, 3 members", 0.80, 3, ensemble.square_root, 1.30),
    ensemble_row("Lorenz 63", "square root, 10 members", 0.60, 10, ensemble.square_root, 1.02, True),
    ensemble_row("Lorenz 63", "EnKF, 100 members", 0.56, 100, ensemble.perturbed_observations, 1.01),
    ensemble_row("Lorenz 63", "EnKF, 10 members", 0.65, 10, ensemble.perturbed_observations, 1.04),
    ensemble_row("Lorenz 63", "EnKF-N, 3 members", 0.60, 3, ensemble.finite_size()),
    ensemble_row("Lorenz 63", "EnKF-N, 10 members", 0.54, 10, ensemble.finite_size(), rotate=True),
)  # fmt: skip


# -- twin experiments ------------------------------------------------------------------------------------------------
class Twin(NamedTuple):
    """A truth at the times of its observations, ``(cycles, n)``, and the windows that hold one time each."""

    start: sm.State
    truth: Tensor
    windows: list[Window]


def free_run(system: System, start: sm.State, n: int) -> Tensor:
    """States ``(n, n_variables, 1, 1)`` at the times of observations."""
    step, states = sm.rk4(system.eq, system.dt), []
    with torch.no_grad():
        for _ in range(n):
            start = trajectory(step, start, system.steps)[1]
            states.append(start.z)
    return torch.stack(states)


def on_attractor(system: System, seed: int, members: int = 1) -> Tensor:
    """States ``(members, n, 1, 1)`` after a while."""
    generator = torch.Generator().manual_seed(seed)
    z = system.eq.init(2 + torch.randn(members, system.n, generator=generator, dtype=torch.float64))
    return trajectory(sm.rk4(system.eq, system.dt), sm.State(z), round(25 / system.dt))[1].z


def twin(system: System, cycles: int, seed: int) -> Twin:
    """Truth and observations of a seed."""
    start = sm.State(on_attractor(system, seed)[0])
    truth = system.eq.read(free_run(system, start, cycles))
    seen = truth[:, :: system.every]
    noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(seed + 10**6), dtype=torch.float64)
    sigma, length = system.variance**0.5, system.steps * system.dt
    when = np.repeat(length * np.arange(1, cycles + 1), seen.shape[1])
    where = np.tile(np.arange(0.0, system.n, system.every), cycles)
    obs = observations((seen + sigma * noise).flatten().numpy(), sigma, when, where, 0.0, channels=["x"])
    space = system.space
    H = sm.Operator(space.grid, space.read, (sm.Channel("x", level(1), sigma),))
    return Twin(start, truth, sm.windows(obs, H, 0.0, system.dt, system.steps, cycles))


def climatology(system: System) -> Tensor:
    """States ``(samples, n)`` of runs that are not observed."""
    return system.eq.read(free_run(system, sm.State(on_attractor(system, 9, 20)), 200).flatten(0, 1))


def first(row: Row, seed: int, one: Twin) -> sm.State:
    """The truth, or an ensemble near it."""
    if row.members == 1:
        return one.start
    system, generator = SYSTEMS[row.system], torch.Generator().manual_seed(seed + 2 * 10**6)
    near = 0.03 * torch.randn(row.members, system.n, generator=generator, dtype=torch.float64)
    return sm.State(one.start.z + system.eq.init(near))


def run_row(row: Row, seed: int, one: Twin, climate: Tensor) -> tuple[float, float]:
    """Time means of error and spread of the analysis; NaN where the filter diverged."""
    system, start = SYSTEMS[row.system], first(row, seed, one)
    try:
        run = cycle(
            sm.rk4(system.eq, system.dt), row.build(system, climate, seed), one.windows, start, progress=row.name
        )
    except (sm.BlowUp, torch.linalg.LinAlgError):
        return float("nan"), float("nan")
    skip = round(SPIN_UP * len(one.windows))
    error = (system.eq.read(run.analysis) - one.truth).pow(2).mean(-1).sqrt()[skip:].mean()
    spread = float("nan") if run.spread is None else float(run.spread.pow(2).mean(-1).sqrt()[skip:].mean())
    return float(error), spread


def meets(found: np.ndarray, reference: float) -> bool:
    """Whether the mean over seeds is within 0.02 or 5 % of the reference, on either side."""
    return bool(abs(found.mean() - reference) <= max(0.02, 0.05 * reference))


# -- output ----------------------------------------------------------------------------------------------------------
def picture(rows: list[Row], errors: np.ndarray):
    """Errors of all seeds over the reference."""
    figure, ax = plot.pyplot().subplots(figsize=(8, 0.8 + 0.3 * len(rows)), layout="constrained")
    reference = np.array([r.reference for r in rows])
    for column in errors.T:
        ax.plot(column / reference, range(len(rows)), "o", c="C0", alpha=0.6)
    ax.axvline(1, color="k", lw=0.8)
    ax.set(yticks=range(len(rows)), yticklabels=[f"{r.system}: {r.name}" for r in rows], xlabel="error / reference")
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    return figure


def run(o: Options, out: Path) -> dict[str, Any]:
    cycles, seeds = CYCLES[o.preset] if o.cycles is None else o.cycles, SEEDS[o.preset] if o.seeds is None else o.seeds
    rows = [r for r in TABLE if o.only.lower() in f"{r.system}: {r.name}".lower()]
    if not rows:
        raise Refused(f"--only {o.only!r} fits no row; there are {', '.join(f'{r.system}: {r.name}' for r in TABLE)}")
    make_room(out, WRITTEN, o)
    needed = {r.system for r in rows}
    numbers = range(o.seed, o.seed + seeds)
    twins = {(s, i): twin(SYSTEMS[s], cycles, 100 * i + 1) for s in needed for i in numbers}
    climates = {s: climatology(SYSTEMS[s]) for s in needed}
    found = np.full((len(rows), seeds, 2), np.nan)
    for i, row in enumerate(rows):
        for j, seed in enumerate(numbers):
            found[i, j] = run_row(row, seed, twins[row.system, seed], climates[row.system])
        within = "" if meets(found[i, :, 0], row.reference) else "   off"
        values, spread = (" ".join(f"{v:.3f}" for v in found[i, :, k]) for k in (0, 1))
        spread = f"   spread {spread}" if row.members > 1 else ""
        print(f"{row.system}: {row.name:24s} table {row.reference:<5g} found {values}{spread}{within}", flush=True)
    write(out, rows, found)
    plot.save(picture(rows, found[..., 0]), out / "errors.png")
    results: dict[str, Any] = {
        f"{r.system}: {r.name}": {
            "reference": r.reference, "error": e[:, 0].tolist(), "spread": e[:, 1].tolist(),
            "within": meets(e[:, 0], r.reference),
        }
        for r, e in zip(rows, found, strict=True)
    }  # fmt: skip
    right = sum(meets(e[:, 0], r.reference) for r, e in zip(rows, found, strict=True))
    print(f"{right} of {len(rows)} rows within 0.02 or 5 % of the table, whose runs are longer than the preset quick's")
    return {"cycles": cycles, "rows": results}


def write(out: Path, rows: list[Row], found: np.ndarray) -> None:
    """The table as a file: errors of all rows, spreads of the ensembles."""
    names = np.array([f"{r.system}: {r.name}" for r in rows])
    many = np.array([r.members > 1 for r in rows])
    about = {"units": "1", "long_name": "time mean of the analysis"}
    data = {
        "error": (("row", "seed"), found[..., 0], about),
        "spread": (("ensemble", "seed"), found[many, :, 1], about),
        "reference": ("row", [r.reference for r in rows], {"units": "1", "long_name": "error listed by DAPPER"}),
    }
    named = {"units": "1", "long_name": "system and method"}
    coords = {"row": ("row", names, named), "ensemble": ("ensemble", names[many], named)}
    attrs = {"Conventions": "CF-1.11", "title": "errors of analyses of the Lorenz systems"}
    write_netcdf(xr.Dataset(data, coords, attrs), out / "table.nc")


if __name__ == "__main__":
    main(run, Options)
