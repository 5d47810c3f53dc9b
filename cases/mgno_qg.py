"""Emulators of two-layer quasi-geostrophic turbulence: MgNO beside other networks and classical forecasts.

A model with 256 x 256 points is seen with 64 x 64 once a day. A network learns the change over --lead-days of the PV
q of both layers, or, with --correct, the error that the model with 64 x 64 points makes in that time; steps of it are
forecasts, and its climate. Beside it: persistence, that model alone, and with --train a linear inverse model (Penland &
Sardeshmukh 1995), a U-Net and neuraloperator's FNO, which have the same data, loss, and processor time to learn in.
MgNO: He, Liu & Xu 2024 (ICLR, arXiv 2310.19809).

Without --train the weights in data/weights are used. Tests are runs that no training has seen.

Expected with those weights: correlations above 0.8 for 47 and 66 days (the model with 64 x 64 points 35 and 57), ten
years without blow-up, energy within 11 % of the truth's; with --correct 55 and 74 days and 7 %.
Run time on one core: quick 40 s, default 8 minutes; with --train twenty minutes for each network more, and for truths.

Writes skill.nc, climate.nc, skill.png, spectra.png, maps.png, energy.png and summary.json; with --train the weights,
log and picture of each network.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import operators
import torch
import xarray as xr
from common import Common, Range, Refused, asked, folder, goes_with, main, make_room
from torch import Tensor

import sciml as sm
from sciml import emulation, plot, plot_emulation, score
from sciml.data import write_netcdf
from sciml.emulation import Climate, LinearInverse, Seen, Skill
from sciml.equation.presets import preset
from sciml.losses import Loss, combined, relative_l2, seen_through
from sciml.objectives import Emulation
from sciml.snapshots import DAY, runs, stepper
from sciml.surrogate import Learned, Surrogate, Windows, often
from sciml.train import same

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "data" / "weights" / "mgno_qg.safetensors"
CORRECTING = ROOT / "data" / "weights" / "mgno_qg_correct.safetensors"
SCALES: dict[str, dict[str, Any]] = {
    "quick": dict(fine=128, runs=2, days=240, horizon=60, starts=4, years=1, minutes=0.2),
    "default": dict(fine=256, runs=8, days=1080, horizon=120, starts=12, years=10, minutes=20.0),
    "full": dict(fine=256, runs=24, days=1800, horizon=120, starts=20, years=50, minutes=600.0),
}
NETS: dict[str, dict[str, Any]] = {"mgno": {}, "unet": {}, "fno": {"n_modes": (42, 42)}}
"""Options of the networks beside their channels."""
LR = {"mgno": 1e-3, "unet": 1e-3, "fno": 2e-3}
PSI = (1600.0, 340.0)
"""m2 s-1: round values of the standard deviation of psi in both layers"""
FINER = 1.5
"""How much finer the first of two finer grids is on which the classical model runs; the second is twice as fine"""
TEST = 1000
"""seed of the first run that no training sees"""
LAYERS = ("layer 1", "layer 2")
WRITTEN = ("skill.nc", "climate.nc", "skill.png", "spectra.png", "maps.png", "energy.png", "summary.json")
FORECAST = ("r>0.8 q1", "r>0.8 q2", "r>0.5 q1", "r>0.5 q2", "nrmse q1", "nrmse q2")
"""Columns of the table: days until correlations fall below a level, error of the first step."""
CLIMATE = ("stable days", "EKE1/true", "EKE2/true", "Z1/true", "Z2/true", "KE(k)1 off", "KE(k)2 off", "ms/day")
"""Energy and enstrophy over the truth's, largest relative error of spectra up to two thirds of the cutoff, cost."""


@dataclass(frozen=True)
class Options(Common):
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: this case runs on the CPU."""
    train: bool = False
    """Train --networks, then compare them."""
    networks: tuple[Literal["mgno", "unet", "fno"], ...] = ("mgno", "unet")
    """What to train; fno needs neuraloperator (make bench/.neuralop/installed)."""
    correct: bool = False
    """Networks correct what the model with --nx points does in --lead-days, instead of taking its place."""
    weights: Path | None = None
    """Surrogate to use without --train (default: the one that comes with the package)."""
    lead_days: Annotated[int, Range(1, 1_000)] = 2
    """Time step of the networks that are trained in days."""
    minutes: Annotated[float, Range(0, 1e5, open=True)] | None = None
    """Processor time for the training of each network, as a factor of a minute (default: with the preset)."""
    updates: Annotated[int, Range(2, 100_000_000)] | None = None
    """Updates of each training, instead of --minutes."""
    ahead: Annotated[int, Range(1, 100)] = 3
    """Own steps over which the last third of a training goes."""
    psi: Annotated[float, Range(0, 1e3)] = 0.5
    """Weight of the error of psi in the loss, as a factor of that of q."""
    kept: Annotated[float, Range(2 / 3, 1)] = 1.0
    """Waves that the networks step, as a factor of the largest wavenumber along an axis: 1, or 2/3."""
    batch: Annotated[int, Range(1, 100_000)] = 8
    """Stretches in an update."""
    nx: Annotated[int, Range(8, 1_024)] = 64
    """Points of the coarse grid along an axis."""
    fine: Annotated[int, Range(8, 4_096)] | None = None
    """Points of the truth along an axis (default: with the preset)."""
    days: Annotated[int, Range(2, 1_000_000)] | None = None
    """Length of each truth in days (default: with the preset)."""
    years: Annotated[int, Range(1, 100_000)] | None = None
    """Length of the climate runs in years of 360 days (default: with the preset)."""
    resume: bool = False
    """Go on with interrupted trainings in --out; networks that are there are not trained again."""
    data: Path | None = None
    """Folder of the truths, made where they are missing (default: runs/qg_snapshots)."""


def sizes(o: Options) -> dict[str, Any]:
    """Of the preset, replaced by what was asked for."""
    scale = asked(o, SCALES[o.preset])
    operators.check(o)
    if not any(np.isclose(o.kept, k, rtol=1e-3) for k in (2 / 3, 1)):
        raise Refused(f"--kept is 2/3 or 1, got {o.kept:g}")
    scale["horizon"] = min(scale["horizon"], scale["days"] // 2)
    if scale["horizon"] < o.lead_days:
        raise Refused(f"--days must be at least twice --lead-days, got {scale['days']} and {o.lead_days}")
    return scale


def fields(o: Options, scale: dict[str, Any], seeds) -> Tensor:
    """PV of truths, ``(runs, times, n, ny, nx)``, float32."""
    where = folder(o.data or Path("runs") / "qg_snapshots", "--data")
    found = runs(where, seeds, "eddy", o.nx, scale["fine"], scale["days"])
    return torch.stack([torch.as_tensor(ds["q"].values) for ds in found])


# -- training --------------------------------------------------------------------------------------------------------
def train(o: Options, scale: dict[str, Any], out: Path, truths: Tensor) -> dict[str, Surrogate]:
    """Surrogates by name; with ``--resume`` those whose weights are in ``out`` already are read."""
    windows, grid = Windows(truths, o.lead_days), preset("eddy", o.nx, dealias=o.kept).grid
    known, found = emulation.climate(preset("eddy", o.nx), truths.flatten(0, 1)), {}  # type: ignore[arg-type]
    settings = {n: getattr(o, n) for n in ("preset", "seed", "lead_days", "ahead", "psi", "kept", "batch", "nx")}
    settings |= {"correct": True} if o.correct else {}
    base, dt = corrected(o), o.lead_days * DAY
    settings |= {n: scale[n] for n in ("fine", "days")} | operators.length(o.updates, scale["minutes"])
    for name in o.networks:
        path = out / f"{name}.safetensors"
        if path.exists():
            same(path, Learned.load(path).about, settings)
        else:
            net = operators.make(name, o.seed, 4 if o.correct else 2, 2, **NETS[name])
            learned = Learned(net, *windows.scalings(step=base, times=often(base, grid, dt)))
            surrogate = Surrogate(learned, grid, dt, ("q1", "q2"), step=base)
            about = learn(o, scale, out, name, surrogate, windows, settings)
            command = operators.command(o, name, seed=o.seed, updates=about["updates"])
            truth = {"energy": known.energy.tolist(), "enstrophy": known.enstrophy.tolist(),
                     "spectrum": known.spectrum.tolist()}  # fmt: skip
            surrogate.save(path, command=command, truth=truth, settings=settings, **about)
        found[name] = Surrogate.load(path, base)
    return found


def read(o: Options) -> Surrogate:
    """The surrogate of --weights, or that which comes with the package."""
    path = o.weights or (CORRECTING if o.correct else WEIGHTS)
    if bool(Learned.load(path).about.get("surrogate", {}).get("every")) is not o.correct:
        raise Refused(f"{path} corrects {'no' if o.correct else 'the'} classical model: use it with"
                      f"{'out' * o.correct} --correct")  # fmt: skip
    return Surrogate.load(path, corrected(o))


def corrected(o: Options) -> sm.Step | None:
    """The classical step that networks correct, if they do."""
    return stepper("eddy", o.nx, dtype=torch.float32) if o.correct else None


def loss_of(surrogate: Surrogate, weight: float) -> Loss:
    """Relative L2 errors of q and, with a weight, of psi, in units of the standard deviations of each layer.

    q alone says little of the largest eddies, whose psi is large and whose q is small.
    """
    eq: Any = sm.preset("eddy", surrogate.grid.nx, dtype=torch.float32)
    std = surrogate.states.std

    def psi(z: Tensor) -> Tensor:
        found = eq.grid.ifft(eq.psi(eq.grid.fft(z * std)))
        return found / found.new_tensor(PSI)[:, None, None]

    return combined((1.0, relative_l2), (weight, seen_through(psi, relative_l2)))


def learn(
    o: Options, scale: dict[str, Any], out: Path, name: str, surrogate: Surrogate, windows: Windows, settings: dict
) -> dict:
    """Train one network."""
    loss = loss_of(surrogate, o.psi)
    probe = Emulation(surrogate, windows, loss, o.batch, lambda u: o.ahead if u else 1, autocast=True)
    net, seconds = surrogate.learned.net, 60 * scale["minutes"]
    updates = o.updates or operators.planned(out / f"{name}.json", net, probe, seconds, {0: 2 / 3, 1: 1 / 3})
    objective = Emulation(
        surrogate, windows, loss, o.batch, lambda u: 1 if u < 2 * updates // 3 else o.ahead, autocast=True,
        seed=o.seed,
    )  # fmt: skip
    return operators.trained(name, out, net, objective, updates, LR[name], o.seed, settings=settings)


# -- comparison ------------------------------------------------------------------------------------------------------
def steps(o: Options, surrogates: dict[str, Surrogate], truths: Tensor, lead: int, fine: int) -> dict[str, Any]:
    """Every forecast's step, and how many of them make ``lead`` days: surrogates; the model on the same grid, and on
    such between it and the truth's ``fine`` one, of which no more is known and seen; the linear inverse model only
    where there are ``truths`` to fit it to that are not the test's."""
    eq, coarse = preset("eddy", o.nx), stepper("eddy", o.nx)
    found: dict[str, Any] = {n: (s, 1) for n, s in surrogates.items()}
    found[f"model, {o.nx} points"] = coarse, lead * round(DAY / coarse.dt)
    for n in (round(FINER * o.nx), 2 * o.nx):
        if n < fine:
            seen = Seen(stepper("eddy", n), eq.grid)
            found[f"model, {n} points"] = seen, lead * round(DAY / seen.dt)
    if o.train:
        found["linear inverse"] = LinearInverse.of(eq, truths, lead, lead * DAY), 1  # type: ignore[arg-type]
    return found


def skills(all_steps: dict[str, tuple[Any, int]], truth: Tensor, lead: int) -> dict[str, Skill]:
    """Of forecasts of every kind, of ``truth (starts, leads + 1, n, ny, nx)``."""
    found = {name: emulation.skill(step, truth, every) for name, (step, every) in all_steps.items()}
    return found | {"persistence": emulation.persistence(truth, lead * DAY)}


def stretches(truth: Tensor, lead: int, horizon: int, starts: int) -> Tensor:
    """Evenly spaced starts of test runs ``(runs, times, ...)`` and what follows, ``lead`` days apart."""
    last = truth.shape[1] - 1 - horizon
    per_run = -(-starts // len(truth))
    first = np.linspace(0, last, per_run).round().astype(int)
    span = np.arange(0, horizon + 1, lead)
    return torch.stack([run[f + span] for run in truth for f in first])[:starts]


def sane(run: Tensor) -> Tensor:
    """Which of the fields ``(times, ...)`` are less than five times the size of the first."""
    size = run.double().flatten(1).square().mean(1)
    return size < 25 * size[0]


def climates(o: Options, all_steps, start: Tensor, years: int, lead: int) -> dict[str, tuple[Climate, float]]:
    """Of runs of ``years``, the first tenth left out; and days until a run grew to five times the size of its start."""
    eq, found, n = preset("eddy", o.nx), {}, years * 360 // lead
    for name, (step, every) in all_steps.items():
        if name == "linear inverse":
            continue  # it dies out
        run = emulation.forecast(step, start, n * every, every)
        stable = len(run) - 1 - int((~sane(run)).cumsum(0).count_nonzero())
        kept = run[max(1, n // 10) : stable + 1] if stable > n // 10 else run[:1]
        found[name] = emulation.climate(eq, kept), lead * float(stable)  # type: ignore[arg-type]
    return found


def seconds_of(step, start: Tensor, every: int, lead: int) -> float:
    """Processor time of a day's forecast of one field."""
    state, spent = step.init(start), []
    for _ in range(3):
        began = time.process_time()
        for _ in range(every):
            state = step(state)
        spent.append(time.process_time() - began)
    return min(spent) / lead


def fine_seconds(o: Options, fine: int) -> float:
    """Processor time of a day of the truth."""
    step = stepper("eddy", fine)
    eq: Any = step.equation
    return seconds_of(step, sm.random_pv(eq, seed=0), round(DAY / step.dt), 1)


def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.train, "--train", "networks", "minutes", "updates", "lead_days", "ahead", "psi", "kept", "batch",
              "resume")  # fmt: skip
    goes_with(o, not o.train, "shipped or earlier networks, without --train", "weights")
    scale = sizes(o)
    torch.set_flush_denormal(True)
    if o.train:
        make_room(out, (*WRITTEN, *operators.WRITTEN), o)
        truths = fields(o, scale, range(scale["runs"]))
        surrogates = train(o, scale, out, truths)
    else:
        surrogates = {"mgno": read(o)}
    leads = {round(s.dt / DAY) for s in surrogates.values()}
    if any(s.grid.shape != (o.nx, o.nx) for s in surrogates.values()) or len(leads) > 1:
        raise Refused(f"the weights are not of {o.nx} points along an axis, or of different steps; see --nx")
    lead = leads.pop()
    test = fields(o, scale, [TEST])
    if not o.train:
        truths = test
        make_room(out, WRITTEN, o)
    return compare(o, scale, out, steps(o, surrogates, truths, lead, scale["fine"]), surrogates, truths, test, lead)


def compare(
    o: Options, scale, out: Path, all_steps, surrogates, truths: Tensor, test: Tensor, lead: int
) -> dict[str, Any]:
    """Score, print, draw, write."""
    eq: Any = preset("eddy", o.nx)
    truth = stretches(test, lead, scale["horizon"], scale["starts"])
    found = skills(all_steps, truth, lead)
    long = climates(o, all_steps, test[0, 0], scale["years"], lead)
    true = emulation.climate(eq, truths.flatten(0, 1))
    costs = {name: seconds_of(step, test[0, 0], every, lead) for name, (step, every) in all_steps.items()}
    costs[f"truth, {scale['fine']} points"] = fine_seconds(o, scale["fine"])
    rows = {name: row(found.get(name), long.get(name), true, costs.get(name)) for name in {**found, **costs}}
    for columns in (FORECAST, CLIMATE):
        print(score.table({name: {c: r[c] for c in columns if c in r} for name, r in rows.items()}))
    write(out, found, long, true)
    pictures(out, found, long, true, truth, all_steps, lead)
    weights = {n: operators.count(s.learned.net) for n, s in surrogates.items()}
    return {"methods": rows, "weights": weights, "lead_days": lead}


def row(skill: Skill | None, long: tuple[Climate, float] | None, true: Climate, cost: float | None) -> dict[str, float]:
    """Headline numbers of a method."""
    out: dict[str, float] = {}
    if skill is not None:
        out |= {f"r>{level} q{i + 1}": skill.days_to(level, i) for level in (0.8, 0.5) for i in (0, 1)}
        out |= {f"nrmse q{i + 1}": float(skill.nrmse[1, i]) for i in (0, 1)}
    if long is not None:
        own, stable = long
        out |= {"stable days": stable}
        out |= {f"EKE{i + 1}/true": float(own.energy[i] / true.energy[i]) for i in (0, 1)}
        out |= {f"Z{i + 1}/true": float(own.enstrophy[i] / true.enstrophy[i]) for i in (0, 1)}
        out |= {f"KE(k){i + 1} off": float(emulation.worst_ratio(own, true)[i]) for i in (0, 1)}
    return out if cost is None else out | {"ms/day": 1e3 * cost}


def write(out: Path, found: dict[str, Skill], long: dict[str, tuple[Climate, float]], true: Climate) -> None:
    """skill.nc and climate.nc."""
    lev = xr.DataArray(np.array([1, 2]), dims="lev", attrs={"units": "1", "long_name": "layer, 1 = top"})
    names = xr.DataArray(list(found), dims="forecast", attrs={"units": "1"})
    lead = next(iter(found.values())).lead / DAY
    coords = {"forecast": names, "lev": lev, "lead": ("lead", lead, {"units": "days"})}
    data = {n: (("forecast", "lead", "lev"), np.stack([getattr(s, n) for s in found.values()]), {"units": "1"})
            for n in ("correlation", "nrmse")}  # fmt: skip
    write_netcdf(xr.Dataset(data, coords, {"Conventions": "CF-1.11"}), out / "skill.nc")
    every = {"truth": true} | {n: c for n, (c, _) in long.items()}
    coords = {"run": ("run", list(every), {"units": "1"}), "lev": lev, "k": ("k", true.k, {"units": "rad m-1"})}
    units = {"spectrum": "m3 s-2", "energy": "m2 s-2", "enstrophy": "s-2", "variance": "s-2"}
    dims = {"spectrum": ("k",), "energy": (), "enstrophy": (), "variance": ("y", "x")}
    data = {n: (("run", "lev", *dims[n]), np.stack([getattr(c, n) for c in every.values()]), {"units": u})
            for n, u in units.items()}  # fmt: skip
    write_netcdf(xr.Dataset(data, coords, {"Conventions": "CF-1.11"}), out / "climate.nc")


def pictures(out: Path, found, long, true: Climate, truth: Tensor, all_steps, lead: int) -> None:
    """skill.png, spectra.png, energy.png, maps.png."""
    plot.save(plot_emulation.skill(found, LAYERS), out / "skill.png")
    climate = {n: c for n, (c, _) in long.items()}
    plot.save(plot_emulation.spectra({"truth": true} | climate, LAYERS), out / "spectra.png")
    times = {n: lead / 360 * np.arange(len(c.energies)) for n, c in climate.items()}
    plot.save(plot_emulation.energy(times, {n: c.energies / true.energy for n, c in climate.items()}, LAYERS),
              out / "energy.png")  # fmt: skip
    shown = min(truth.shape[1] - 1, round(30 / lead))
    panels = {"truth": truth[0, shown]}
    for name, (step, every) in all_steps.items():
        panels[name] = emulation.forecast(step, truth[:1, 0], shown * every, every)[-1, 0]
    grid = preset("eddy", truth.shape[-1]).grid
    figure = plot_emulation.maps({n: p.double().numpy() for n, p in panels.items()}, lead * shown, grid)
    plot.save(figure, out / "maps.png")


if __name__ == "__main__":
    main(run, Options)
