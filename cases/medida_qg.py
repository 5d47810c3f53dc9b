r"""MEDIDA on quasi-geostrophic flow: which terms does a model lack?

A truth is run and observed in pairs of states an interval T apart: everywhere or at random sensors, with or without
noise. Gaps are filled, the model is advanced over the interval, and what it misses,

    h = (q(t + T) - M_T(q(t))) / T ,

is regressed on a library of more than 30 terms. Cases 1 to 9 are those of Mojgani, Chattopadhyay & Hassanzadeh (2024),
JAMES 16, e2023MS004033 (a jet kept up by relaxation, nondimensional): 1 relaxation, 2 relaxation and drag, 3 no
relaxation, 4 half of the advection, 5 no advection, wrong relaxation and drag, 6 and 7 drag, 8 psi_R, 9 beta. Others
are on the eddy flow of pyqg over a rough bottom (SI units): drag, no_drag, beta, shear, advection, topography. Unlike
in the paper, the truth takes other and smaller steps than the model.

Expected: with all points seen and no noise exactly the right terms, coefficients within 0.1 %. With gaps or noise give
three states in a row (the default there): the first one gives instruments that know nothing of the pair's noise.
--length 29 takes series of 30 states in a row instead, which noise harms less.

Run time: a minute on one core for a jet on 48 x 96 points, ten for 96 x 192; 5 s for quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from common import Common, Range, Refused, goes_with, main, make_room
from torch import Tensor

from sciml import plot, plot_terms, score
from sciml.data import write_netcdf
from sciml.discover.discovery import Discovery
from sciml.discover.library import Library, coefficients, terms
from sciml.discover.medida import Select, low_pass, medida
from sciml.discover.samples import Pair, Sample, Series, advanced, increments
from sciml.discover.sparse import pysindy, relevance_vectors, selected
from sciml.discover.systems import JET, SYSTEMS, System
from sciml.equation.base import Equation
from sciml.field import FourierFeatures, fit_last_layer, neural
from sciml.files import load_tensors, save_tensors
from sciml.fill import Interpolator, cubic, error_by_wavenumber, radial, spectral
from sciml.grid import Grid
from sciml.initial import random_pv
from sciml.kriging import climatological_spectrum, kriging, resolved
from sciml.nn.encodings import PowerLaw, strongest_waves
from sciml.step import STEPPERS, Step

POINTS = {"quick": (24, 32), "default": (48, 48), "full": (96, 64)}
"""in x, of the jet and of the eddy flow"""
TWIN = 40
"""Steps in which a twin's first state, an observed one, makes its own small scales."""
WRITTEN = ("discovery.json", "increments.nc", "increments.png", "coefficients.png", "path.png", "error_spectra.png",
           "forecast.png", "summary.json")  # fmt: skip
OPTIMISERS: dict[str, Callable[[], Select]] = {
    "backwards": lambda: selected,
    "rvm": lambda: relevance_vectors,
    "stlsq": lambda: partial(pysindy, optimiser=peers().STLSQ(threshold=0.1, alpha=1e-6)),
    "sr3": lambda: partial(pysindy, optimiser=peers().SR3(reg_weight_lam=0.01, relax_coeff_nu=1.0, max_iter=10_000)),
    "ssr": lambda: partial(pysindy, optimiser=peers().SSR(criteria="model_residual", alpha=1e-6)),
}
"""Thresholds of pysindy's are those of columns and increments of root mean square 1."""
FAR = 0.003
"""Rate of the sponge above which a point does not count."""


@dataclass(frozen=True)
class Options(Common):
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: this case runs on the CPU."""
    case: str = "2"
    """What the model lacks: 1 to 9 (jet), drag, no_drag, beta, shear, advection, topography (eddy)."""
    nx: Annotated[int, Range(16, 1_024)] | None = None
    """Points in x (default: 48; quick 24 and 32, full 96 and 64)."""
    sensors: Annotated[float, Range(0.01, 1)] = 1.0
    """Part of the points that are observed, a factor from 0.01 to 1."""
    same_sensors: bool = False
    """Observe the same points at all times, not others each time."""
    noise: Annotated[float, Range(0, 10)] = 0.0
    """Standard deviation of the noise in psi, as a factor of that of psi in the layer."""
    interpolator: Literal["resolved", "kriging", "neural", "radial", "cubic", "spectral"] | None = None
    """How gaps are filled, and noise with resolved (all points seen: modes above the noise, as they are), kriging and
    neural (waves fitted in closed form) (default: resolved where all points are seen, otherwise kriging)."""
    samples: Annotated[int, Range(2, 100_000)] | None = None
    """Number of pairs or series (default: 12 without gaps and noise, else 100 pairs or 10 series; quick 6, 12, 4)."""
    interval: Annotated[int, Range(1, 10_000)] | None = None
    """Model steps between two states (default: 1 without gaps and noise, 8 with, 2 in a series)."""
    length: Annotated[int, Range(1, 1_000)] = 1
    """Intervals of which a sample has states: 1 makes pairs, more make series in a row, which noise harms less."""
    rounds: Annotated[int, Range(1, 100)] | None = None
    """How often increments are taken, each time from the model with what was found before (default: 3 without gaps
    and noise, 2 with)."""
    twin: bool = False
    """Take off the bias that gaps and noise make, which the same observations of the corrected model itself show."""
    cut: Annotated[float, Range(0, 1e3, open=True)] | None = None
    """Low-pass, as a factor of the case's own wavenumber (default: none without gaps and noise, 0.8 with;
    for long series with gaps 0.4 is better)."""
    optimiser: Literal["backwards", "rvm", "stlsq", "sr3", "ssr"] = "backwards"
    """What keeps terms: backward elimination judged by held-out increments, a relevance vector machine, or pysindy."""
    thickness: bool = False
    """Have psi1 - psi2 among the candidates in place of psi2: a model corrected from noisy data stays stable."""
    layers: tuple[Literal[1, 2], ...] = (1, 2)
    """Layers whose equations are searched."""
    truth_step: Literal["etdrk4", "rk4", "imex"] = "etdrk4"
    """Time stepping of the truth; the model's is etdrk4."""
    substeps: Annotated[int, Range(1, 1_000)] = 4
    """Steps of the truth in a step of the model."""
    spin_up: Annotated[float, Range(0, 1e3, open=True)] = 1.0
    """Length of the spin-up, a factor of the case's own."""
    states: Path | None = None
    """File of the truth's states, which cases on the same flow share; made if it is not there."""
    leads: Annotated[int, Range(0, 1_000)] = 20
    """Forecasts from other states that compare the model before and after, in model steps times 20 (0: none)."""

    @property
    def name(self) -> str:
        return f"medida_qg-{self.case}"


def peers():
    """pysindy, which takes seconds to import."""
    import pysindy

    return pysindy


# -- truth and observations ------------------------------------------------------------------------------------------
def noisy(o: Options) -> bool:
    return o.noise > 0 or o.sensors < 1


def setting(o: Options) -> System:
    """The system of the case. Raises ``Refused`` for options that cannot be."""
    if o.case not in SYSTEMS:
        raise Refused(f"--case {o.case}: there are {', '.join(SYSTEMS)}")
    goes_with(o, noisy(o), "--noise or --sensors", "interpolator", "twin", "same_sensors")
    if o.interpolator == "resolved" and o.sensors < 1:
        raise Refused("--interpolator resolved needs all points seen; take another one with --sensors")
    if not o.layers:
        raise Refused("--layers must name a layer")
    return SYSTEMS[o.case](o.nx or POINTS[o.preset][o.case not in JET])


def in_a_row(o: Options, step: Step, z: Tensor, steps: int) -> Tensor:
    """States ``(times, samples, n, *modes)``, some steps apart: three, or those of a series."""
    states = [z]
    for _ in range(max(2, o.length)):
        states.append(advanced(step, states[-1], steps))
    return torch.stack(states)


def sampled(o: Options, s: System, samples: int) -> tuple[Tensor, Tensor]:
    """Climatological states, and those at which the samples start, later on; from ``--states`` if it holds them."""
    grid, length = s.truth.grid, (0.4 if o.preset == "quick" else 1.0) * o.spin_up
    before = max(8, samples * max(3, o.length + 1) // 9)
    about = {"jet": o.case in JET, "nx": grid.nx, "samples": samples, "seed": o.seed, "length": length}
    about["climate"] = before
    if o.states is not None and o.states.exists():
        held, header = load_tensors(o.states)
        if {n: header.get(n) for n in about} != about:
            raise Refused(f"--states {o.states} holds other states than this run needs; give another name")
        return held["climate"], held["start"]
    coarse = STEPPERS["etdrk4"](s.truth, 2 * s.dt)
    z = s.truth.init(random_pv(s.truth, seed=o.seed, speed=0.3 if o.case in JET else None))
    z = advanced(coarse, z, int(length * s.spin_up / coarse.dt))
    kept, apart = [], max(1, int(length * s.apart / coarse.dt))
    for _ in range(before + samples):
        z = advanced(coarse, z, apart)
        kept.append(z)
    climate, start = torch.stack(kept[:before]), torch.stack(kept[before:])
    if o.states is not None:
        save_tensors(o.states, {"climate": climate, "start": start}, about)
    return climate, start


def filler(o: Options, s: System, climate: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``(positions, values (samples, n, m), sigma (n,)) -> fields (samples, n, ny, nx)``, layer by layer."""
    grid, name = s.truth.grid, o.interpolator or ("resolved" if o.sensors == 1 else "kriging")
    if name in ("resolved", "kriging"):
        method = {"resolved": resolved, "kriging": kriging}[name]
        layers = [method(grid, climatological_spectrum(grid, climate[:, i])) for i in range(climate.shape[1])]
        return lambda positions, values, sigma: torch.stack(
            [layer(positions, values[:, i], float(sigma[i])) for i, layer in enumerate(layers)], 1
        )
    modes = (4 * torch.pi * o.sensors * grid.nx * grid.ny / (grid.Lx * grid.Ly)) ** 0.5
    methods: dict[str, Callable[[], Interpolator]] = {
        "neural": lambda: neural(grid, lambda n: waves(grid, n), fit_last_layer),
        "radial": lambda: radial(grid),
        "cubic": lambda: cubic(grid),
        "spectral": lambda: spectral(grid, 0.8 * modes),
    }
    method = methods[name]()
    return lambda positions, values, sigma: method(positions, values)


def waves(grid: Grid, outputs: int) -> FourierFeatures:
    """A linear model of the longest waves, the shorter the smaller."""
    longest, _ = strongest_waves(grid, grid.invK2, min(1200, grid.nx * grid.ny // 3))
    return FourierFeatures(grid, outputs, longest, PowerLaw(grid))


def observed(o: Options, s: System, z: Tensor, fill: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int) -> Tensor:
    """States made of what is seen of those of ``z (times, samples, n, *modes)``."""
    psi = s.truth.grid.ifft(s.truth.psi(z))
    if not noisy(o):
        return s.truth.pv(psi)
    rng = torch.Generator().manual_seed(seed)
    grid, sigma = s.truth.grid, o.noise * psi.std((0, 1, 3, 4))
    x, y = torch.broadcast_tensors(*grid.axes())
    places, m = torch.stack([x.flatten(), y.flatten()], -1), round(o.sensors * x.numel())
    always = torch.Generator().manual_seed(1000 + o.seed) if o.same_sensors else rng  # the same for a twin
    numbers, out = torch.randperm(len(places), generator=always)[:m], []
    for own in psi:
        if not o.same_sensors:
            numbers = torch.randperm(len(places), generator=rng)[:m]
        values = own.flatten(-2)[..., numbers]
        values = values + sigma[:, None] * torch.randn(values.shape, generator=rng, dtype=values.dtype)
        out.append(own if m == len(places) and o.noise == 0 else fill(places[numbers], values, sigma))
    return s.truth.pv(torch.stack(out))


def counted(eq: Equation) -> Tensor | None:
    """Points outside the sponge, where there is one: in it noise is all there is."""
    sponge = getattr(eq, "sponge", None)
    return None if sponge is None else eq.grid.real(sponge).reshape(-1, 1).expand(eq.grid.shape) < FAR


class Experiment(NamedTuple):
    """A system and what is seen of its truth."""

    system: System
    z: Tensor
    """true states ``(times, samples, n, *modes)``, an interval apart"""
    seen: Tensor
    """the same as observed"""
    fine: Step
    """of the truth"""
    fill: Callable[[Tensor, Tensor, Tensor], Tensor]
    interval: int

    def step(self, eq: Equation) -> Step:
        return STEPPERS["etdrk4"](eq, self.system.dt)


def experiment(o: Options) -> Experiment:
    s, clean = setting(o), not noisy(o)
    usual = (6, 12, 4) if o.preset == "quick" else (12, 100, 10)
    kind = 0 if clean else 1 if o.length == 1 else 2
    samples, interval = o.samples or usual[kind], o.interval or (1, 8, 2)[kind]
    fine, (climate, start) = STEPPERS[o.truth_step](s.truth, s.dt / o.substeps), sampled(o, s, samples)
    z = in_a_row(o, fine, start, interval * o.substeps)
    fill = filler(o, s, s.truth.grid.ifft(s.truth.psi(climate)))
    return Experiment(s, z, observed(o, s, z, fill, 1000 + o.seed), fine, fill, interval)


def pairs_of(o: Options, seen: Tensor, interval: int) -> list[Sample]:
    """Of states at three times, in batches of 4, or series."""
    if o.length > 1:
        return [Series(z[None], interval, noisy(o)) for z in seen.unbind(1)]
    batches = torch.arange(seen.shape[1]).split(4)
    return [Pair(seen[1, i], seen[2, i], interval, seen[0, i] if noisy(o) else None) for i in batches]


def discovered(o: Options, e: Experiment, library: Library | None = None) -> Discovery:
    """What the model of the experiment lacks (library: that of the model)."""
    s, clean = e.system, not noisy(o)
    factor = o.cut or (np.inf if clean else 0.8)

    def twin(eq: Equation) -> list[Sample]:
        states = in_a_row(o, e.step(eq), advanced(e.step(eq), e.seen[0], TWIN), e.interval)
        return pairs_of(o, observed(o, s, states, e.fill, 2000 + o.seed), e.interval)

    return medida(
        s.model, e.step, pairs_of(o, e.seen, e.interval), library or terms(s.model, o.thickness),
        cuts=(s.cut * factor,), rounds=o.rounds or (3 if clean else 2),
        select=OPTIMISERS[o.optimiser](), where=None if clean else counted(s.truth),
        fields=tuple(f"q{i}" for i in sorted(set(o.layers))),
        twin=twin if o.twin else None,
    )  # fmt: skip


# -- results ---------------------------------------------------------------------------------------------------------
def compared(library: Library, found: Discovery, exact: np.ndarray) -> dict[str, Any]:
    """Whether the terms are the right ones, and how far off their coefficients are."""
    c, std, rows = found.coefficients(), found.std(), {}
    for i, field in enumerate(found.fits):
        for j in np.flatnonzero((c[i] != 0) | (exact[i] != 0)):
            off = abs(c[i, j] - exact[i, j])
            rows[f"{field}: {library.names[j]}"] = {
                "true": exact[i, j], "found": c[i, j], "std": std[i, j],
                "error (%)": 100 * off / abs(exact[i, j]) if exact[i, j] else np.inf,
                "errors of std": off / std[i, j] if std[i, j] else np.nan,
            }  # fmt: skip
    right = bool(((c != 0) == (exact != 0)).all())
    errors = [r["error (%)"] for r in rows.values()]
    return {"right terms": right, "largest error (%)": max(errors, default=0.0), "terms": rows}


def forecasts(o: Options, s: System, found: Discovery, fine: Step, start: Tensor) -> dict[str, dict[str, Any]]:
    """Errors of psi over its standard deviation by lead, of the model, of the corrected one and of persistence."""
    many, unit = 20, s.dt * 20 / (86400 if o.case not in JET else 1)
    corrected = s.model + found
    states = {
        "model": (STEPPERS["etdrk4"](s.model, s.dt), start),
        "corrected": (STEPPERS["etdrk4"](corrected, s.dt), start),
    }
    truth, std = start, s.truth.psi(start)
    scale = s.truth.grid.ifft(std).std((0, 2, 3))
    out: dict[str, dict[str, Any]] = {n: {"days": [0.0], "psi": [[0.0, 0.0]]} for n in (*states, "persistence")}
    for lead in range(1, o.leads + 1):
        truth = advanced(fine, truth, many * o.substeps)
        states = {n: (step, advanced(step, z, many)) for n, (step, z) in states.items()}
        now = {n: z for n, (_, z) in states.items()} | {"persistence": start}
        for name, z in now.items():
            error = s.truth.grid.ifft(s.truth.psi(z - truth)).square().mean((0, 2, 3)).sqrt() / scale
            out[name]["days"].append(lead * unit)
            out[name]["psi"].append(error.tolist())
    return out


def pictures(o: Options, s: System, out: Path, found: Discovery, exact: np.ndarray, pair: Pair, truth: Tensor) -> None:
    """Coefficients, path, increments on the map."""
    grid, labels = s.model.grid, [f"d {f}/dt" for f in found.fits]
    rows = [s.model.prognostic.index(f) for f in found.fits]
    figure = plot_terms.coefficients(found.library.names, found.coefficients(), found.std(), exact, labels)
    plot.save(figure, out / "coefficients.png")
    held_out = {f: p.held_out for f, p in found.paths.items()}
    plot.save(plot_terms.paths(held_out, {f: p.chosen for f, p in found.paths.items()}), out / "path.png")
    smooth = torch.stack([low_pass(s.model, c) for c in found.cuts.values()])
    step = STEPPERS["etdrk4"](s.model, s.dt)
    explained = torch.einsum(
        "ip,pkl->ikl", grid.complex(torch.as_tensor(found.coefficients())), found.library.values(s.model, truth)
    )
    fields = {
        "true": (s.truth.tendency(truth) - s.model.tendency(truth))[rows],
        "observed": increments(step, pair)[0, rows],
        "explained": explained,
    }
    maps = {n: grid.ifft(smooth * a).numpy() for n, a in fields.items()}
    extent = [grid.x0, grid.x0 + grid.Lx, grid.y0, grid.y0 + grid.Ly]
    dimensional = o.case not in JET
    shown = [a / 1e3 for a in extent] if dimensional else extent
    units = (" (s⁻²)", " (km)") if dimensional else ("", "")
    plot.save(plot_terms.increments(shown, maps, labels, *units), out / "increments.png")
    coords, unit = (grid.coords("m"), "s-2") if dimensional else (grid.coords("1"), "1")
    names = ("field", list(found.fits), {"long_name": "field whose equation lacks it", "units": "1"})
    data = {
        n: (("field", "y", "x"), a, {"long_name": f"{n} increment of PV, low-passed", "units": unit})
        for n, a in maps.items()
    }
    of_psi = {"true": truth, "observed": pair.before[0]}
    data |= {
        f"psi_{n}": (("lev", "y", "x"), grid.ifft(s.truth.psi(z)).numpy(),
                     {"long_name": f"{n} streamfunction at the start", "units": "m2 s-1" if dimensional else "1"})
        for n, z in of_psi.items()
    }  # fmt: skip
    lev = ("lev", np.arange(1, len(truth) + 1), {"long_name": "layer, 1 at the top", "units": "1"})
    about = {"Conventions": "CF-1.11", "title": f"what the model of case {o.case} lacks"}
    write_netcdf(xr.Dataset(data, {**coords, "field": names, "lev": lev}, about), out / "increments.nc")


def run(o: Options, out: Path) -> dict[str, Any]:
    e = experiment(o)
    make_room(out, WRITTEN, o)
    found, s = discovered(o, e), e.system
    exact = coefficients(found.library, s.truth, s.model, e.z[1, :2])
    exact = exact[[s.model.prognostic.index(f) for f in found.fits]]
    print(found)
    numbers = compared(found.library, found, exact)
    print(score.table(numbers["terms"]))
    found.save(out / "discovery.json", exact)
    pictures(o, s, out, found, exact, Pair(e.seen[1, :1], e.seen[2, :1], e.interval), e.z[1, 0])
    if noisy(o):
        psi, true = (s.truth.grid.ifft(s.truth.psi(a[1])) for a in (e.seen, e.z))
        k, ratio = error_by_wavenumber(s.truth.grid, psi, true)
        ratios = {f"psi{i + 1}": ratio[:, i].mean(0).numpy() for i in range(ratio.shape[1])}
        plot.save(plot_terms.spectral_bias(k.numpy(), ratios), out / "error_spectra.png")
    if o.leads:
        errors = forecasts(o, s, found, e.fine, e.z[2, :4])
        plot.save(plot.forecasts(errors, ["upper layer", "lower layer"], "error of psi / standard deviation"),
                  out / "forecast.png")  # fmt: skip
        numbers["forecast"] = errors
    verdict = "the right terms" if numbers["right terms"] else "not the right terms"
    largest = numbers["largest error (%)"]
    counted = {w: sum(not t[w] for t in numbers["terms"].values()) for w in ("found", "true")}
    print(f"{verdict}, coefficients within {largest:.3g} %" if np.isfinite(largest)
          else f"{verdict}: {counted['found']} missed, {counted['true']} false")  # fmt: skip
    return numbers


if __name__ == "__main__":
    main(run, Options)
