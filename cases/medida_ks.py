r"""MEDIDA on the Kuramoto-Sivashinsky equation: what a wrong model lacks, from noisy observations.

    u_t + u u_x + u_xx + u_xxxx = 0,  periodic, L = 100,  observed at all points with noise

Models have other coefficients, lack terms, or have u_xxx or u^2 u_x besides. Pairs of observations one interval apart
are compared with forecasts of the model by an ensemble Kalman filter, and the analysis increments are regressed on
u^p d^k u / dx^k, p and k from 0 to 4; again and again, with what was found before. Mojgani, Chattopadhyay &
Hassanzadeh (2022, Chaos 32, 061105); unlike there, both observations have their own noise, and the models do not step
as the truth does. Beside it without noise, without a filter, and with pysindy, which finds whole equations (what the
model has is subtracted) and is given one uninterrupted series of as many states.

Error: norm of model + found - truth over that of the truth, of coefficients.
Expected (default): without noise the right terms of all 23 models within 0.001 %; with 5 % of noise the right terms,
within 1.2 % (2.6 % for models 10 and 11); without a filter all terms are wrong.

Writes discovery_*.json, table.nc, pictures and summary.json. Run time on one core: quick 10 s, default 5 minutes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import xarray as xr
from common import Common, Range, Refused, Share, asked, device, main, make_room
from torch import Tensor
from torch.nn.functional import pad

import sciml as sm
from sciml import plot, plot_terms
from sciml.data import write_netcdf
from sciml.discover import library
from sciml.discover.discovery import Discovery
from sciml.discover.medida import tiles
from sciml.discover.moments import Moments, gathered
from sciml.discover.samples import Pair, advanced
from sciml.discover.sparse import selected
from sciml.equation.base import Term
from sciml.step import phi_functions

KS = "0 1 1, 1 0 1, 1 1 0, 1 0 0, 0 1 0, 0 0 1, 0.5 1 1, 1 0.5 1, 1 1 0.5, 2 2 2, 0 0.5 2, 0.5 0 1"
"""Coefficients of u u_x, u_xx and u_xxxx in the models from 1 on; the truth has 1 1 1."""
MODELS = {str(i): (*map(float, c.split()), 0.0, 0.0) for i, c in enumerate(KS.split(","), 1)}
MODELS |= {f"dispersion_{d:g}": (1.0, 1.0, 1.0, d, 0.0) for d in (0.1, 0.5, 1.0)}
MODELS |= {f"dispersion_0.5_{name}": (*MODELS[name][:3], 0.5, 0.0) for name in "123"}
MODELS |= {f"cubic_{c:g}": (1.0, 1.0, 1.0, 0.0, c) for c in (0.015, 0.15, 1.5)}
MODELS |= {f"cubic_0.15_{name}": (*MODELS[name][:4], 0.15) for name in "23"}
"""As in the released code (4063efbc): further terms are d u_xxx and, on the right, -cubic/2 d(u^3)/dx."""
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": dict(nx=128, samples=20, case=("1", "3", "10"), sweep=("1",), sizes=(0.0, 0.1, 1.0)),
    "default": dict(nx=512, samples=40, case=("all",), sweep=("1", "10"), sizes=(0.0, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "full": dict(nx=1024, samples=100, case=("all",), sweep=("all",), sizes=(0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)),
}
LIBRARY = library.polynomial()
WHOLE = -1.0 * np.isin(LIBRARY.names, ["u*dx(u)", "lap(u)", "lap(lap(u))"])
"""The true equation."""


WRITTEN = ("discovery_*.json", "table.nc", "coefficients.png", "path.png", "error.png", "summary.json")


@dataclass(frozen=True)
class Options(Common):
    case: tuple[str, ...] = ()
    """Models, or all: 1 to 12, dispersion_0.1, dispersion_0.5_1, cubic_0.15 ... (default: with the preset)."""
    sweep: tuple[str, ...] = ()
    """Models for which errors are found with ensembles of 0.1 to 10 times the points (default: with the preset)."""
    nx: Annotated[int, Range(64, 4096)] | None = None
    """Points, all of them observed (default: 128, 512 or 1024 with the preset)."""
    samples: Annotated[int, Range(4, 100_000)] | None = None
    """Pairs of observations, each of a run of its own (default: 20, 40 or 100 with the preset)."""
    noise: Share = 0.05
    """Standard deviation of the observation noise as a factor of that of u; 0 leaves the noisy part out."""
    members: Annotated[float, Range(0, 100)] = 1.0
    """Members of the ensemble as a factor of the number of points; 0 is no assimilation."""
    scheme: Literal["etdrk4", "imex"] = "etdrk4"
    """How models are stepped; the truth is stepped with etdrk4."""
    dt: Annotated[float, Range(0, 0.05, open=True)] = 0.005
    """Step of the truth (s, the unit of time of the equation)."""
    factor: Annotated[int, Range(1, 1_000)] = 5
    """Steps of the truth in a step of the models."""
    steps: Annotated[int, Range(1, 1_000)] = 4
    """Steps of the models between the observations of a pair; one where there is no noise."""


# -- data ------------------------------------------------------------------------------------------------------------
def truth(o: Options, nx: int, samples: int) -> tuple[sm.equation.KuramotoSivashinsky, Tensor, Tensor]:
    """Three states of many runs, ``(3, samples, 1, *modes)``: the first, one a step of the models later, one at the end
    of the interval. And states of one run, intervals apart, ``(2 samples, 1, *modes)``. Runs start from random fields
    and are spun up on 128 points (100 time units), then on ``nx`` (1 unit)."""
    grids = [sm.Grid(n, 1, 100.0, 1.0, 3 / 2, 0.0, 0.0, device=device(o.device)) for n in (128, nx)]
    coarse, eq = (sm.equation.KuramotoSivashinsky(grid=g) for g in grids)
    u = torch.randn(samples, 1, 1, 128, generator=torch.Generator().manual_seed(o.seed), dtype=torch.float64)
    z = coarse.init(u - u.mean(-1, keepdim=True))
    z = pad(advanced(sm.etdrk4(coarse, 0.1), z, 1000), (0, 0, 0, eq.grid.modes[0] - z.shape[-2]))
    step = sm.etdrk4(eq, o.dt)
    states = [advanced(step, z, round(1 / o.dt))]
    for n in (o.factor, o.factor * (o.steps - 1)):
        states.append(advanced(step, states[-1], n))
    series = [states[0][0]]
    while len(series) < 2 * samples:
        series.append(advanced(step, series[-1], o.factor * o.steps))
    return eq, torch.stack(states), torch.stack(series)


def noisy(grid: sm.Grid, z: Tensor, sigma: float, seed: int) -> Tensor:
    """Coefficients of observations at all points."""
    noise = torch.randn(*z.shape[:-2], *grid.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z + sigma * grid.fft(noise.to(z.device))


def low_passed(z: Tensor, variance: float, steps: int) -> Pair:
    """Up to the first wavenumber at which there is no more signal than noise (or than 1e-12)."""
    power = (z.abs() ** 2).mean((0, 1, 2, 4)).cpu().numpy()
    faint = np.flatnonzero(power[9:] < max(2 * variance, 1e-12))
    before, after = z[..., : 9 + int(faint[0]) if len(faint) else None, :]
    return Pair(before, after, steps)


def equation(case: str, z: Tensor) -> sm.equation.KuramotoSivashinsky:
    """A model, with the wavenumbers of z only."""
    grid = sm.Grid(3 * z.shape[-2] - 2, 1, 100.0, 1.0, 2 / 3, 0.0, 0.0, device=str(z.device))
    a, b, c, d, cubic = MODELS.get(case, (1.0, 1.0, 1.0, 0.0, 0.0))
    model = sm.equation.KuramotoSivashinsky(grid=grid, a=a, b=b, c=c, d=d)
    return model + Term("u", "cubic", f"{-1.5 * cubic}*u**2*dx(u)") if cubic else model  # type: ignore[arg-type]


# -- MEDIDA ----------------------------------------------------------------------------------------------------------
def vector(z: Tensor) -> Tensor:
    """Coefficients ``(..., 1, modes, 1)`` as real vectors whose squares sum to the mean square of the field."""
    return math.sqrt(2) * torch.view_as_real(z[..., 0, :, 0].contiguous()).flatten(-2)


def coefficients(x: Tensor) -> Tensor:
    return torch.view_as_complex((x / math.sqrt(2)).unflatten(-1, (-1, 2)).contiguous())[..., None, :, None]


def forecast(step: sm.Step, x: Tensor, steps: int) -> Tensor:
    """Vectors some steps later. Raises ``ValueError`` for a model that blows up."""
    end = vector(advanced(step, coefficients(x), steps))
    if not bool(end.abs().max() < 1e3):
        raise ValueError("the model blows up")
    return end


def assimilated(step: sm.Step, seen: Pair, variance: float, members: int, seed: int) -> tuple[Tensor, ...]:
    r"""One analysis of each pair at its end by the ensemble Kalman filter: states before and after and innovations,
    ``(samples, d)``, and the roots below, ``(samples, d, d)``. Without members all is left as it is.

    Members are the observation and perturbations like its noise, run through the model. With B the covariance of
    forecasts, C that of perturbations and forecasts, R that of the noise and d the innovations, the state after is the
    mean forecast plus :math:`K d, K = B (B + R)^{-1}`, and the one before gains :math:`C (B + R)^{-1} d` (a smoother):
    their errors are independent of d. (Perturbed observations with mean zero do not change means.) The increment
    :math:`K d / T` is damped by the gain, and its errors have the covariance :math:`K (B + R) K'`: generalised least
    squares of it is least squares of :math:`(B + R)^{-1/2} d / T`, where the gain cancels.
    """
    pairs, found = (vector(seen.before), vector(seen.after)), []
    eye = torch.eye(pairs[0].shape[-1], dtype=torch.float64, device=pairs[0].device)
    if not members:
        return *pairs, pairs[1] - forecast(step, pairs[0], seen.steps), eye
    generator = torch.Generator().manual_seed(seed)
    for before, after in zip(*pairs, strict=True):
        start = torch.randn(members, len(before), generator=generator, dtype=torch.float64).to(before.device)
        start[:, 1] = 0.0  # the mean of u is real
        start = math.sqrt(variance) * (start - start.mean(0))
        end = forecast(step, before + start, seen.steps)
        mean = end.mean(0)
        both = torch.cat([end - mean, start], 1).mT @ (end - mean) / (members - 1)
        total = both[: len(before)] + variance * eye
        change = (both @ torch.linalg.solve(total, after - mean)).chunk(2)
        values, vectors = torch.linalg.eigh(total)
        root = (vectors * (variance / values).sqrt()) @ vectors.mT
        found.append((before + change[1], mean + change[0], after - mean, root))
    return tuple(map(torch.stack, zip(*found, strict=True)))


def regression(
    model: sm.equation.KuramotoSivashinsky, pairs: tuple[Tensor, ...], T: float, added: np.ndarray
) -> Moments:
    r"""Of innovations of a model to which the terms ``added`` belong already. Columns run through the linear part L of
    the model, :math:`\int_0^T e^{L (T - s)} \phi(s) ds / T`, with :math:`\phi` linear in time between both states."""
    before, after, innovation, root = pairs
    _, phi1, phi2, _ = phi_functions(model.linear * T)
    first, last = (LIBRARY.values(model, coefficients(x)) for x in (before, after))
    columns = vector(((phi1 - phi2)[0] * first + phi2[0] * last)[:, :, None])
    h, rate = (a[:, None] / T for a in (innovation, after - before))
    h = h + (torch.as_tensor(added, device=h.device)[:, None] * columns).sum(1, keepdim=True)
    x, y, whole = (model.grid.ifft(coefficients(a @ root)[:, :, 0]) for a in (columns, h, rate))
    return gathered(tiles(LIBRARY.names, x, y[:, 0], whole[:, 0], None))


def discover(case: str, o: Options, variance: float, seen: Pair, members: int) -> Discovery:
    """What a model lacks, nothing if it does not stay finite. Where it does not with what was found, half of the change
    is tried."""
    model, dt = equation(case, seen.before), o.dt * o.factor
    found, added, held = Discovery(LIBRARY, {}, {}, {}, {}), *np.zeros((2, len(LIBRARY)))
    for _ in range(10):
        own = model + [Term("u", f"found {i}", float(added[i]) * LIBRARY.terms[i]) for i in np.flatnonzero(added)]
        try:
            pairs = assimilated(sm.STEPPERS[o.scheme](own, dt), seen, variance, members, o.seed + 3)
            fit, path = selected(regression(own, pairs, seen.steps * dt, added))
        except (ValueError, torch.linalg.LinAlgError):
            added = (held + added) / 2
            continue
        found = Discovery(LIBRARY, {"u": fit}, {"u": path}, {"u": math.inf}, {})
        held, added = added, fit.coefficients
        if np.linalg.norm(added - held) < 1e-5 + 0.03 * np.linalg.norm(fit.std):
            break
    return found


def by_pysindy(grid: sm.Grid, z: Tensor, T: float, seed: int, noise: str) -> dict[str, np.ndarray]:
    """Whole equations from a series, by finite differences and in weak form."""
    import pysindy as ps

    u, found = grid.ifft(z)[:, 0, 0].cpu().numpy().T[..., None], {}
    x, t = grid.x[0].cpu().numpy(), T * np.arange(u.shape[1])
    common: dict[str, Any] = dict(function_library=ps.PolynomialLibrary(degree=4, include_bias=False),
                                  derivative_order=4, diff_kwargs=dict(is_uniform=True, periodic=True))  # fmt: skip
    both = np.stack(np.meshgrid(x, t, indexing="ij"), -1)
    np.random.seed(seed)  # noqa: NPY002  # from here pysindy draws its domains
    half = [max((a[-1] - a[0]) / n, 3 * (a[1] - a[0])) for a, n in ((x, 20), (t, 10))]  # the best of 36 settings
    weak = ps.WeakPDELibrary(spatiotemporal_grid=both, K=2000, p=6, H_xt=half, **common)
    for name, form in {"differences": ps.PDELibrary(spatial_grid=x, **common), "weak form": weak}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ps.SINDy(optimizer=ps.STLSQ(threshold=0.1), feature_library=form).fit(u, t=T)
        c = found[f"pysindy, {name}, {noise}"] = np.zeros(len(LIBRARY))
        for label, value in zip(model.get_feature_names(), model.coefficients()[0], strict=True):
            power, _, order = label.partition("_")  # x0^2x0_11 is u^2 u_xx
            power = power.removesuffix("x0") if order else power
            c[5 * (int(power[3:] or 1) if power else 0) + len(order) - 1] = value
    return found


# -- output ----------------------------------------------------------------------------------------------------------
class Score:
    """What was found, beside what the model lacks."""

    def __init__(self, missing: np.ndarray, found: Discovery):
        self.missing, self.found = missing, found
        self.lacks, self.std = (found.coefficients()[0], found.std()[0]) if found.fits else np.zeros((2, len(missing)))
        self.error, self.right = error(missing - self.lacks), np.array_equal(self.lacks != 0, missing != 0)


def error(difference: np.ndarray) -> float:
    """Of coefficients, in % of the truth."""
    return float(100 * np.linalg.norm(difference) / np.linalg.norm(WHOLE))


Table = Mapping[str, Mapping[str, Score]]  # by model and method


def pictures(out: Path, table: Table, swept: dict[str, dict[float, float]], whole: Mapping[str, np.ndarray]) -> None:
    """Coefficients; shares of held-out increments left, with the chosen number of terms; errors by size."""
    plt, shown = plot.pyplot(), [m for m in ("noise-free", "filter") if m in next(iter(table.values()))]
    rows = [(c, i) for c, own in table.items()
            for i in np.flatnonzero(abs(own[shown[0]].missing) + sum(abs(own[m].lacks) for m in shown))]  # fmt: skip
    tall, ax = plt.subplots(figsize=(8, 1.5 + 0.2 * len(rows)), layout="constrained")
    at = np.arange(len(rows))
    ax.plot([table[c][shown[0]].missing[i] for c, i in rows], at, "k|", ms=12, mew=2, label="true")
    for name, style in zip(shown, "ox", strict=False):
        value, std = np.array([(table[c][name].lacks[i], table[c][name].std[i]) for c, i in rows]).T
        ax.errorbar(value, at, xerr=2 * std, fmt=style, capsize=3, label=name)
    ax.set(yticks=at, yticklabels=[f"{c}: {LIBRARY.names[i]}" for c, i in rows], ylim=(len(rows), -1),
           xlabel="coefficient that the model lacks (bars: 2 standard errors)")  # fmt: skip
    chosen = {c: own[shown[-1]].found.paths["u"] for c, own in table.items() if own[shown[-1]].found.paths}
    path = plot_terms.paths({c: p.held_out for c, p in chosen.items()}, {c: p.chosen for c, p in chosen.items()})
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, (case, errors) in enumerate(swept.items()):
        ax.loglog([n for n in errors if n], [e for n, e in errors.items() if n], "o-", c=f"C{i}", label=case)
        ax.axhline(errors[0.0], c=f"C{i}", ls=":", label=f"{case}, low-pass only")
    for (name, c), style in zip(whole.items(), ("-", "--", "-.", ":"), strict=False):
        ax.axhline(error(c - WHOLE), c="0.6", ls=style, label=name)
    ax.set(xlabel="members / points", ylabel="error of the coefficients (%)", yscale="log")
    for name, f in {"coefficients": tall, "path": path, "error": figure}.items():
        for ax in f.axes:
            ax.grid(alpha=0.3)
            ax.legend(fontsize="x-small", ncols=2, loc="upper left" if name == "path" else "best",
                      bbox_to_anchor=(1, 1) if name == "path" else None)  # fmt: skip
        plot.save(f, out / f"{name}.png")


def write(out: Path, table: Table, whole: Mapping[str, np.ndarray]) -> None:
    """Coefficients and their errors."""
    data: dict[str, Any] = {"equation": (("whole", "term"), list(whole.values()))}
    for name in ("missing", "lacks", "std", "error"):
        values = np.array([[getattr(s, name) for s in own.values()] for own in table.values()])
        data[name] = (("model", "estimate", "term")[: values.ndim], values)
    labels = {"model": table, "estimate": next(iter(table.values())), "term": LIBRARY.names, "whole": whole}
    ds = xr.Dataset(data, {dim: list(names) for dim, names in labels.items()})
    ds.attrs = {"Conventions": "CF-1.11", "title": "what models lack of Kuramoto and Sivashinsky's equation"}
    for name, v in ds.variables.items():
        v.attrs = {"units": "percent" if name == "error" else "1", "long_name": str(name)}
    write_netcdf(ds, out / "table.nc")


def run(o: Options, out: Path) -> dict[str, Any]:
    size = asked(o, SIZES[o.preset])
    nx, samples = size["nx"], size["samples"]
    cases, sweep = (tuple(MODELS) if "all" in names else names
                    for names in (o.case or SIZES[o.preset]["case"], o.sweep or SIZES[o.preset]["sweep"]))  # fmt: skip
    if unknown := set(cases + sweep) - set(MODELS):
        raise Refused(f"there is no model {min(unknown)!r}; there are {', '.join(MODELS)} and all")
    if o.members and not 2 <= o.members * nx <= 1e5:
        raise Refused(f"--members must be 0 or such that there are 2 to 100000, got {o.members:g} of {nx} points")
    make_room(out, WRITTEN, o)
    eq, states, series = truth(o, nx, samples)
    sigma, interval = o.noise * float(eq.read(states).std()), o.dt * o.factor * o.steps
    variance, obs = sigma**2 / nx, noisy(eq.grid, states[::2], sigma, o.seed + 1)
    clean, raw, low = low_passed(states[:2], 0.0, 1), Pair(obs[0], obs[1], o.steps), low_passed(obs, variance, o.steps)
    ways = {"noise-free": (clean, 0)} | ({"as observed": (raw, 0), "low-pass": (low, 0)} if o.noise else {})
    ways |= {"filter": (low, round(o.members * nx))} if o.noise and o.members else {}
    print(f"error of coefficients in %, ! where terms are wrong ({nx} points, {samples} samples, noise {o.noise:.1%})")
    print(f"{'model':16s}{'before':>10s}" + "".join(f"{m:>13s}" for m in ways))
    table: dict[str, dict[str, Score]] = {}
    truly = equation("", clean.before)
    missing = {c: library.coefficients(LIBRARY, truly, equation(c, clean.before), clean.before[:4])[0]
               for c in cases + sweep}  # fmt: skip
    for case in cases:
        table[case] = {m: Score(missing[case], discover(case, o, variance, *way)) for m, way in ways.items()}
        list(table[case].values())[-1].found.save(out / f"discovery_{case}.json")
        shown = "".join(f"{s.error:12.4f}{' ' if s.right else '!'}" for s in table[case].values())
        print(f"{case:16s}{error(missing[case]):10.2f}{shown}", flush=True)
    whole = by_pysindy(eq.grid, series, interval, o.seed, "noise-free")
    if o.noise:
        whole |= by_pysindy(eq.grid, noisy(eq.grid, series, sigma, o.seed + 2), interval, o.seed, "noisy")
    for name, c in whole.items():
        print(f"{name:37s}{error(c - WHOLE):14.4f}{' ' if np.array_equal(c != 0, WHOLE != 0) else '!'}")
    swept: dict[str, dict[float, float]] = {case: {} for case in sweep if o.noise}
    for case, own in swept.items():
        own |= {n: Score(missing[case], discover(case, o, variance, low, round(n * nx))).error for n in size["sizes"]}
        print(f"members / points, model {case}: " + "  ".join(f"{n:g}: {e:.2f}" for n, e in own.items()), flush=True)
    write(out, table, whole)
    pictures(out, table, swept, whole)
    models = {c: {m: {"error": s.error, "right": s.right} for m, s in own.items()} for c, own in table.items()}
    before = {c: error(m) for c, m in missing.items()}
    results = {"before": before, "models": models, "pysindy": {n: error(c - WHOLE) for n, c in whole.items()}}
    return results | {"sweep": swept}


if __name__ == "__main__":
    main(run, Options)
