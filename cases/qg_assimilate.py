"""Assimilation of satellite-like observations of a two-layer ocean: the ladder of classical methods on one data set.

    background at the start of a five-day window, forecast x_b(t); observations y_i = H_i(x(t_i)) + e_i
    analysis at the end of the window from both: oi, 3dvar, enkf, etkf, enkfn, letkf, 4dvar, and learned: corr (which
    sees no observations), fuxida and its hybrids with an ensemble and with 4D-Var (see sciml/assim)

Data: data/qg_satellite.nc (three altimeters, a wide swath, a radiometer with clouds; data/make_qg_satellite.py makes
it), truth for scoring only. Methods: Daley (1991), Burgers et al. (1998), Hunt et al. (2007, Physica D 230, 112),
Courtier et al. (1994, QJRMS 120, 1367). Expected errors of the streamfunction over its climatological standard
deviation, perfect model, upper / lower layer: climatology 0.99 / 0.95, oi 0.20 / 0.22, 3dvar 0.20 / 0.22, letkf (40
members) 0.11 / 0.12, 4dvar 0.11 / 0.11, fuxida 0.16 / 0.17, hybrid 0.13 / 0.14, fuxida4dvar 0.13 / 0.13; enkf, etkf
and enkfn, without localisation, diverge. docs/results.md has more truths.

Writes analysis.nc, departures.nc, pictures and summary.json, with --method all one folder for each method. Run time on
one core: quick 15 s; default (80 windows) oi 20 s, 3dvar 45 s, letkf 80 s, 4dvar 4 minutes; all 18 minutes, on two 9.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from common import (
    Common,
    NotNegative,
    Positive,
    Range,
    Refused,
    Share,
    device,
    folder,
    goes_with,
    main,
    make_room,
    write_summary,
)
from methods import DATA, READ_BY, TUNED, Method, Setting, build
from torch import Tensor

import sciml as sm
from sciml import evaluate, plot, score, testbed
from sciml.assim.base import Analysed
from sciml.assim.cycle import Record, cycle
from sciml.cluster import in_processes
from sciml.data import attributes, coordinates, write_netcdf
from sciml.files import refusing
from sciml.foreign import grouped
from sciml.observations import QC, check, concatenate, counts, with_departures, without
from sciml.observe import Window, windows

DAY = testbed.DAY
LEADS = 12
"""windows of the longest forecast: 60 days"""
WRITTEN = ("analysis.nc", "departures.nc", "maps.png", "error.png", "forecast.png", "error_spectra.png", "ranks.png",
           "summary.json")  # fmt: skip
SLOW = ("4dvar", "fuxida4dvar", "letkf", "enkf", "3dvar")
SLOWEST_FIRST = (*SLOW, *(m for m in get_args(Method) if m not in SLOW))
LAYERS = ["layer 1", "layer 2 (seen by the radiometer only)"]
ERROR = "error of ψ / climatological std"


@dataclass(frozen=True)
class Options(Common):
    method: Method | Literal["all"] = "letkf"
    """Analysis; all runs the ladder and prints it."""
    model: Literal["perfect", "imperfect"] = "perfect"
    """The model that made the truth, or one with wrong drag and deformation radius and no topography."""
    observations: Path = DATA / "qg_satellite.nc"
    """Observation file, as data/make_qg_satellite.py writes it."""
    truth: Path | None = DATA / "qg_satellite_truth.nc"
    """File with the truth, for scores only; None where there is none."""
    climatology: Path = DATA / "qg_satellite_climatology.nc"
    """File with snapshots of the model and its background covariance."""
    days: Positive | None = None
    """Length, days, in whole windows (default: all observations; quick 30)."""
    skip_days: NotNegative | None = None
    """Days at the start that scores leave out (default: three eighths of the length)."""
    members: Annotated[int, Range(2, 10_000)] = 40
    """Size of ensembles."""
    radius: Annotated[float, Range(0, 1e8, open=True)] | None = None
    """Localisation length of letkf and hybrid, m (default: as tuned for the model)."""
    inflation: Annotated[float, Range(0.1, 10)] | None = None
    """Factor of the anomalies after each analysis of an ensemble filter (default: as tuned for the model)."""
    adaptive: Share = 0.0
    """Rate at which the inflation of letkf follows the innovations, a factor from 0 to 1 (then --inflation is 1)."""
    hybrid_members: Annotated[int, Range(2, 10_000)] = 12
    """Size of the ensemble of hybrid."""
    network_weight: Share | None = None
    """Factor of the network's mean in hybrid and fuxida4dvar, 0 to 1 (default: as tuned for the model)."""
    lag: Annotated[int, Range(1, 100)] | None = None
    """Windows that 4dvar or fuxida4dvar assimilates at once (default: as tuned for the model)."""
    model_error: Annotated[float, Range(0, 1e3)] | None = None
    """Factor of the errors of the first window that gives model errors of later ones in 4dvar (default: as tuned)."""
    iterations: Annotated[int, Range(1, 10_000)] | None = None
    """Iterations of 4dvar and fuxida4dvar (default: as tuned for the model)."""
    weights: Path | None = None
    """Weights of fuxida, as cases/qg_fuxi_da.py --train writes them (default: those in data/weights)."""
    workers: Annotated[int, Range(1, 64)] = min(4, os.cpu_count() or 1)
    """Processes that run the methods of all, side by side; the time of a window is longer with several."""
    leave_out: tuple[str, ...] = ()
    """Platforms that are not used, to see their value."""

    @property
    def name(self) -> str:
        return f"qg_assimilate-{self.method}{'-imperfect' * (self.model == 'imperfect')}"

    def tuned(self, name: str) -> Any:
        """A setting as given, or as bench/assimilation_tuning.py found it best."""
        given = getattr(self, name)
        found = TUNED[self.model]
        return (found[""] | found.get(self.method, {}))[name] if given is None else given


def of_methods(methods: Iterable[str]) -> list[str]:
    """Files in folders of methods."""
    return [f"{method}/{file}" for method in methods for file in WRITTEN]


# -- input -----------------------------------------------------------------------------------------------------------
def load(path: Path, what: str) -> xr.Dataset:
    """A file in memory, or one line that says which one is missing or damaged."""
    if not path.exists():
        raise Refused(f"no {what} at {path}; make it with: python data/make_qg_satellite.py")
    with refusing(path), xr.open_dataset(path, decode_times=False, engine="netcdf4") as ds:
        found, groups = ds.load(), grouped(path)
    if groups:
        raise Refused(f"{path} has all its variables in groups ({', '.join(groups)}); write one to a file of its own")
    return found


def prepare(o: Options) -> Setting:
    """Model, windows of good observations, background statistics, truth."""
    obs, climate = load(o.observations, "observations"), load(o.climatology, "climatology")
    eq = testbed.model(o.model, device=device(o.device))
    step = testbed.stepper(eq)
    H = testbed.operator_of(obs, eq)
    length = testbed.WINDOW * step.dt
    available = windows_in(obs, length)
    n = min(6, available) if o.preset == "quick" else available
    if o.days is not None:
        if not length <= o.days * DAY <= available * length:
            raise Refused(f"--days must be from {length / DAY:g} to {available * length / DAY:g}, got {o.days:g}")
        n = int(o.days * DAY / length)
    if o.skip_days is not None and o.skip_days * DAY >= n * length:
        raise Refused(f"--skip-days must be less than the {n * length / DAY:g} days there are, got {o.skip_days:g}")
    for platform in o.leave_out:
        obs = without(obs, platform)
    z, B, A = statistics(o, eq, climate)
    truth = None if o.truth is None else true_states(o.truth, eq, n, length)
    obs = check(obs, 0.0, n * length, eq.grid.box, usual=usual(H, z))
    if not (obs["qc"] == 0).any():
        raise Refused(f"none of the observations may be used; flags: {counts(obs) or 'there are none at all'}")
    cut = windows(obs, H, 0.0, step.dt, testbed.WINDOW, n)
    with warnings.catch_warnings(action="ignore"):  # which were said once
        ends = windows(obs, H, 0.0, length, 1, n)
    if truth is not None and not fits(truth, z.mean(0), ends):
        raise Refused(f"the truth in {o.truth} explains these observations no better than the climatological mean; "
                      "give the one that they were made of with --truth")  # fmt: skip
    return Setting(eq, step, cut, B, A, z, None if truth is None else truth[1:], obs)


def statistics(o: Options, eq: sm.TwoLayerQG, climate: xr.Dataset) -> tuple[Tensor, sm.Covariance, sm.Covariance]:
    """Climatological states, covariances of errors of backgrounds and of analyses."""
    grid = eq.grid
    kinds = [f"{name}_root{'' if o.model == 'perfect' else '_imperfect'}" for name in ("background", "analysis")]
    shapes = {"q": (2, *grid.shape)} | dict.fromkeys(kinds, (2, 2, *grid.modes))
    for name, shape in shapes.items():
        found = climate.get(name, xr.DataArray())
        ndim = len(shape) + (name == "q")
        right = found.shape[-len(shape) :] == shape and found.ndim == ndim and found.dtype.kind == "f"
        if not right or found.shape[0] < 2 or not bool(np.isfinite(found).all()):
            wanted = f"(sample, {str(shape)[1:]}, two at least" if name == "q" else str(shape)
            raise Refused(
                f"{o.climatology} must hold {name} {wanted}, finite; make it with: python data/make_qg_satellite.py"
            )
    B, A = (sm.Covariance(grid, grid.real(torch.as_tensor(climate[kind].values))) for kind in kinds)
    return testbed.states(eq, torch.as_tensor(climate["q"].values)), B, A


def true_states(path: Path, eq: sm.TwoLayerQG, n: int, length: float) -> Tensor:
    """At the start and at the ends of ``n`` windows, ``(n + 1, n_layers, *modes)``."""
    whole, grid = load(path, "truth"), eq.grid
    q = whole.get("q")
    if q is None or q.dims != ("time", "lev", "y", "x") or q.shape[1:] != (2, *grid.shape):
        raise Refused(f"{path} is no truth: it needs q (time, lev, y, x) on {grid.ny} x {grid.nx} points")
    if len(q) < n + 1:
        raise Refused(f"{path} ends before the observations: {len(q) - 1} windows of {n}")
    q = q[: n + 1]
    if q.dtype.kind != "f" or not bool(np.isfinite(q).all()):
        raise Refused(f"{path} is no truth: q must be finite numbers")
    expected = xr.Dataset(coords=coordinates(eq) | {"time": length * np.arange(n + 1)})
    for name in q.dims:
        wanted = expected[name].values.astype(float)
        if name in whole.coords and not np.allclose(
            q[name].values.astype(float), wanted, atol=1e-6 * abs(wanted).max()
        ):
            raise Refused(f"{path}: {name} must go from {wanted[0]:g} to {wanted[-1]:g} in {len(wanted)} steps")
    return testbed.states(eq, torch.as_tensor(q.values))


def usual(H: sm.Operator, climate: Tensor) -> dict[str, tuple[float, float]]:
    """Climatological mean and standard deviation of what each channel sees."""
    fields = H.fields(climate)
    seen = {c.name: c.quantity(fields) for c in H.channels}
    return {name: (float(f.mean()), float(f.std())) for name, f in seen.items()}


def fits(truth: Tensor, mean: Tensor, five_days: list[Window]) -> bool:
    """Whether states at the ends of windows explain the observations better than a constant one, seen at both ends."""
    misfit = torch.zeros(2, dtype=torch.float64)
    for w, pair in zip(five_days, pairwise(truth), strict=True):
        for i, states in enumerate((torch.stack(pair), mean.expand(2, *mean.shape))):
            misfit[i] += float((((w.value - w.equivalents(states)) / w.sigma) ** 2).sum())
    return bool(misfit[0] < 0.5 * misfit[1])


def windows_in(obs: xr.Dataset, length: float) -> int:
    """Number of windows that a file covers, as it says or by its last observation."""
    if "time" not in obs.variables or obs["time"].dtype.kind not in "iuf":
        raise Refused("the observations have no times in seconds since the start of the run")
    times = obs["time"].values[np.isfinite(obs["time"].values)]
    last = float(np.ceil(times.max() / length)) if times.size else 0.0
    try:
        n = int(obs.attrs.get("windows", last))
    except (TypeError, ValueError, OverflowError):
        n = 0
    if not 1 <= n <= 10**5:
        raise Refused(f"the observations cover no window of {length / DAY:g} days, or more than 100000")
    return n


# -- output ----------------------------------------------------------------------------------------------------------
def scores(o: Options, s: Setting, record: Record) -> dict[str, Any]:
    """Consistency with the observations; errors of analyses and forecasts, over the climatological std."""
    n = len(record.time)
    skip = 3 * n // 8 if o.skip_days is None else min(n - 1, int(o.skip_days * DAY / s.length))
    out: dict[str, Any] = {
        "scored_windows": n - skip,
        "innovation_rms_over_sigma": evaluate.innovation_rms(s.windows, record, skip),
        "consistency": evaluate.consistency(s.windows, record, skip),
    }
    if s.truth is None:
        return out
    out |= {"psi": evaluate.skill(s.psi, record, s.truth, s.climate, skip, record.spread)}
    out |= {"q": evaluate.skill(s.eq.read, record, s.truth, s.climate, skip)}
    leads = min(LEADS, (n - skip) // 2)
    errors = evaluate.forecasts(s.step, s.psi, record, s.truth, s.climate, skip, testbed.WINDOW, leads)
    out["forecast"] = {"days": [i * s.length / DAY for i in range(leads + 1)], "psi": errors}
    if any(record.extra):
        out["crps"] = np.mean([e["crps"] for e in record.extra[skip:]], 0).tolist()
        out["ranks"] = np.sum([e["ranks"] for e in record.extra[skip:]], 0).tolist()
    if n - skip >= 4:
        found, true = (s.psi(z[skip:])[:, 0].cpu() for z in (record.analysis, s.truth))
        found = score.data_challenge(found, true, s.length / DAY, s.eq.grid.dx / 1e3)
        units = {"lambda_x": "lambda_x (km)", "lambda_t": "lambda_t (days)"}
        out["data_challenge"] = {units.get(name, name): v for name, v in found.items()}
    return out


def dataset(s: Setting, record: Record) -> xr.Dataset:
    """Background, analysis and spread at the ends of the windows."""
    eq = s.eq
    data = {}
    for kind, z in (("background", record.background), ("analysis", record.analysis)):
        for name, values in (("q", eq.read(z)), ("psi", s.psi(z))):
            single = values.cpu().numpy().astype(np.float32)
            data[f"{name}_{kind}"] = (("time", "lev", "y", "x"), single, attributes(name))
    if record.spread is not None:
        about = {"units": "m2 s-1", "long_name": "standard deviation of psi that the analysis states"}
        data["psi_spread"] = (("time", "lev", "y", "x"), record.spread.cpu().numpy().astype(np.float32), about)
    since = {"units": "s", "long_name": "time since the start of the run", "standard_name": "time", "axis": "T"}
    coords = coordinates(eq) | {"time": ("time", record.time.numpy(), since)}  # as those of observations
    return xr.Dataset(data, coords, {"Conventions": "CF-1.11", "title": "assimilation of satellite-like observations"})


def departures(s: Setting, record: Record) -> xr.Dataset:
    """All observations of the windows: those that were used with observation minus background and observation minus
    analysis, the others with their flag."""
    parts = [
        with_departures(w.obs, *(w.value.sub(d).cpu().numpy() for d in (found.background, found.analysis)))
        for w, found in zip(s.windows, record.departures, strict=True)
    ]
    bad = s.obs.isel(obs=np.flatnonzero(s.obs["qc"].values != 0))
    bad = bad.isel(obs=np.flatnonzero(bad["qc"].values != QC["outside_window"]))
    nothing = np.full(bad.sizes["obs"], np.nan)
    return concatenate([*(p for p in parts if p.sizes["obs"]), with_departures(bad, nothing, nothing)])


def pictures(s: Setting, record: Record, ds: xr.Dataset, results: dict[str, Any], out: Path) -> None:
    """Maps of the last window, error against time and lead, spectra of the error, ranks of the truth."""
    if s.truth is None:
        return
    truth, skip = s.truth, len(record.time) - results["scored_windows"]
    plot.save(plot.analysis(s.psi(truth[-1]).cpu().numpy(), ds.isel(time=-1), s.windows[-1].obs), out / "maps.png")
    _, std = evaluate.climatology(s.psi, s.climate)
    error = evaluate.root_mean_square(s.psi(record.analysis - truth)) / std
    plot.save(plot.series(record.time / DAY, error.cpu(), LAYERS, ERROR), out / "error.png")
    lead = results["forecast"]
    figure = plot.series(lead["days"], lead["psi"], LAYERS, ERROR, "lead (days)")
    figure.axes[0].set(ylim=(0, None), title="mean over the analyses that have a truth at every lead")
    plot.save(figure, out / "forecast.png")
    plot.save(
        plot.error_spectra(s.eq.grid, s.eq.psi(record.analysis[skip:] - truth[skip:]), s.eq.psi(truth[skip:])),
        out / "error_spectra.png",
    )
    if "ranks" in results:
        plot.save(plot.ranks(results["ranks"], LAYERS), out / "ranks.png")


def one_method(
    o: Options, s: Setting, method: str, analysis: Callable[..., Analysed], start: sm.State, out: Path
) -> tuple[dict[str, Any], Record]:
    """Run a method and write its folder."""
    started, spent = time.monotonic(), []

    def timed(*arguments) -> Analysed:
        begun = time.monotonic()
        found = analysis(*arguments)
        spent.append(time.monotonic() - begun)
        return found

    each = None if s.truth is None else evaluate.ensemble_scores(s.psi, s.truth, s.climate)
    record = cycle(s.step, timed, s.windows, start, s.psi, progress=method, each=each)
    results = scores(o, s, record) | {"flags": counts(s.obs), "seconds_per_window": float(np.median(spent))}
    ds = dataset(s, record).assign_attrs(method=method, model=o.model, seed=o.seed, source=f"sciml {sm.__version__}")
    write_netcdf(ds, out / "analysis.nc")
    write_netcdf(departures(s, record), out / "departures.nc")
    pictures(s, record, ds, results, out)
    results["method"] = method
    write_summary(out / "summary.json", o, results, started)
    return results, record


@lru_cache(1)
def ready(o: Options) -> tuple[Setting, dict[str, tuple[Callable[..., Analysed], sm.State]]]:
    """What all methods share, and the methods."""
    s = prepare(o)
    return s, build(o, s)


def of_ladder(o: Options, out: Path, i: int) -> dict[str, Any] | str:
    """Results of the i-th method of all, the slowest first, or why it diverged."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    s, methods = ready(o)
    try:
        return one_method(o, s, SLOWEST_FIRST[i], *methods[SLOWEST_FIRST[i]], folder(out / SLOWEST_FIRST[i]))[0]
    except sm.BlowUp as error:
        return f"{SLOWEST_FIRST[i]}: {error}"


def row(results: dict[str, Any]) -> dict[str, float]:
    """A line of the printed ladder: numbers end with the layer."""
    out = {}
    for field, name in (("psi", "analysis"), ("psi", "background"), ("q", "analysis"), ("psi", "spread")):
        values = results.get(field, {}).get(name, [])
        out |= {f"{field} {name} {i + 1}": v for i, v in enumerate(values)}
    return out | {"innov/sigma": results["innovation_rms_over_sigma"], "s/window": results["seconds_per_window"]}


def run(o: Options, out: Path) -> dict[str, Any]:
    for option, readers in READ_BY.items():
        goes_with(o, o.method in (*readers, "all"), f"--method {' or '.join(readers)}", option)
    goes_with(o, o.method == "all", "--method all", "workers")
    s, methods = ready(o)  # refuses weights of other models before anything is written
    make_room(out, (*WRITTEN, *of_methods(SLOWEST_FIRST if o.method == "all" else ())), o)
    used, days = sum(len(w) for w in s.windows), s.length / DAY
    print(f"{used} observations in {len(s.windows)} windows of {days:g} days; flags: {counts(s.obs)}")
    if o.method == "all":
        found = in_processes(partial(of_ladder, o, out), len(SLOWEST_FIRST), o.workers)
        diverged = [why for why in found if isinstance(why, str)]
        by_name = {m: r for m, r in zip(SLOWEST_FIRST, found, strict=True) if not isinstance(r, str)}
        ladder = {m: by_name[m] for m in get_args(Method) if m in by_name}
    else:
        ladder, diverged = {o.method: one_method(o, s, o.method, *methods[o.method], out)[0]}, []
    if o.method == "all" and s.truth is not None:
        errors = {m: r["forecast"] for m, r in ladder.items()}
        plot.save(plot.forecasts(errors, LAYERS, ERROR), out / "forecast.png")
    print(score.table({m: row(r) for m, r in ladder.items()}))
    if ladder:
        scored = next(iter(ladder.values()))["scored_windows"]
        print(f"means over the last {scored} of {len(s.windows)} windows" + " (few: no result)" * (scored < 10))
    if s.truth is None:
        print("without a truth there are no errors and no pictures")
    for line in diverged:
        print(line)
    return {"ladder": ladder, "diverged": diverged} if o.method == "all" else ladder[o.method]


if __name__ == "__main__":
    main(run, Options)
