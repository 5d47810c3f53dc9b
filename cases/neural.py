"""What the cases of neural-field time stepping share: options, the march, classical solvers beside it, output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
import xarray as xr
from common import Common, Positive, Range, Refused, asked, make_room
from neural_pictures import film, pictures, write
from torch import Tensor
from tqdm import tqdm

import sciml as sm
from sciml.field import NeuralField, Siren, dirichlet
from sciml.files import load_tensors, refusing, save_tensors
from sciml.insr.refit import SCHEMES, adam, refit
from sciml.insr.restart import restarting
from sciml.insr.runge_kutta import TABLEAUS
from sciml.insr.step import Advance, NeuralStep
from sciml.insr.systems import System, strong
from sciml.insr.tangent import tangent
from sciml.step import State


@dataclass(frozen=True)
class Neural(Common):
    """Options of every case."""

    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: neural fields are stepped on the CPU."""
    width: Annotated[int, Range(1, 4_096)] | None = None
    """Neurons in each hidden layer (default: with the preset)."""
    depth: Annotated[int, Range(1, 64)] | None = None
    """Hidden layers (default: with the preset)."""
    omega: Annotated[float, Range(0, 1e6, open=True)] | None = None
    """Factor in the sines of the network (default: with the preset)."""
    epsilon: Annotated[float, Range(0, 1e3)] | None = None
    """Regularisation of least squares, as a factor of the mean of the diagonal of J'J (default: with the preset)."""
    tolerance: Annotated[float, Range(0, 1e3, open=True)] | None = None
    """Largest error of an adapted step, as a factor of the field's size (default: with the preset)."""
    samples: Annotated[float, Range(0, 1e4, open=True)] | None = None
    """Samples as a factor of the number of weights (default: with the preset)."""
    iterations: Annotated[int, Range(1, 1_000_000)] | None = None
    """Of the fit of the start, at most (default: with the preset)."""
    method: Literal["tangent", "refit", "adam"] = "tangent"
    """Weights move along the tangent space, are fitted anew by Gauss-Newton, or by Adam as published."""
    scheme: str = ""
    """Runge-Kutta method of tangent, or discretisation of a fit (default: dormand_prince, implicit_midpoint)."""
    step: Positive | None = None
    """Time between states in s, also the step of schemes without error control (default: the time between outputs)."""
    restart: bool = False
    """Go on with new weights where steps become short."""
    resume: bool = False
    """Go on from the last state saved in --out."""
    movie: bool = False
    """Also write movie.gif, a frame for each output."""


WRITTEN = ("fields.nc", "state.safetensors", "error.png", "fields.png", "movie.gif", "summary.json")
SIZE: Mapping[str, Any] = dict(width=12, depth=3, omega=2.0, epsilon=1e-8, tolerance=1e-6, samples=2.0, iterations=300,
                               projected=False)  # fmt: skip
"""Of networks and their training, where a case does not say otherwise."""


@dataclass(frozen=True)
class Problem:
    """A start on the grid of an equation, and the truth on it."""

    equation: sm.Equation
    start: Tensor
    end: float
    truth: Callable[[float], Tensor]
    """fields ``(n, ny, nx)`` at a time"""
    classical: Callable[[sm.Equation, float], sm.Step]
    dt: float
    """of the classical stepper on ``equation.grid``; it grows with the spacing"""
    outputs: int = 20
    form: Callable[..., System] = strong
    seen: Callable[[sm.Equation, Tensor], Tensor] = lambda eq, fields: fields
    """what errors are of, from the fields that the equation steps"""
    energy: Callable[[sm.Equation, Tensor], float] | None = None
    name: str = "field"
    components: tuple[str, ...] = ()
    """names of the fields, where there are several"""
    units: str = "1"
    time_units: str = "1"
    encoding: Callable | None = None
    dirichlet: bool = False
    """zero at the ends of the box"""
    function: Callable[[Tensor], Tensor] | None = None
    """the start as a function, where it is not periodic or not on a grid"""
    axes: Mapping[str, xr.DataArray] | None = None
    """coordinates of rows and columns, by default of the grid"""
    weight: Tensor | None = None
    """of the points in errors, by default the same for all"""

    def error(self, fields: Tensor, time: float) -> tuple[float, float]:
        """Norms of the error and of the truth."""
        truth, root = self.seen(self.equation, self.truth(time)), 1.0 if self.weight is None else self.weight.sqrt()
        return float(((fields - truth) * root).norm()), float((truth * root).norm())

    def coords(self) -> Mapping[str, xr.DataArray]:
        """Of rows and columns."""
        grid = self.equation.grid
        return self.axes if self.axes is not None else grid.coords("1" if self.units == "1" else "m")


AnyRun = TypeVar("AnyRun")


class Run(NamedTuple):
    """A march: times, errors, what was seen, energies, notes, seconds of the fit and of the march."""

    times: list[float]
    errors: list[float]
    fields: list[Tensor]
    energies: list[float]
    notes: list[list[float]]
    fit: float
    march: float
    weights: int


class Row(NamedTuple):
    """A solver in the table."""

    name: str
    numbers: int
    error: float
    seconds: float


# -- the neural field ------------------------------------------------------------------------------------------------
def chosen(o: Neural, size: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a preset, replaced by what was asked for."""
    return asked(o, {n: size.get(n, v) for n, v in SIZE.items()})


def method(o: Neural, size: Mapping[str, Any]) -> Advance:
    """How weights advance."""
    table = TABLEAUS if o.method == "tangent" else SCHEMES
    scheme = o.scheme or ("dormand_prince" if o.method == "tangent" else "implicit_midpoint")
    if scheme not in table:
        raise Refused(f"--scheme {scheme}: with --method {o.method} there are {', '.join(table)}")
    if o.restart and o.method != "tangent":
        raise Refused(f"--restart goes with --method tangent; --method {o.method} has no steps that become short")
    if o.method == "tangent":
        advance = tangent(TABLEAUS[scheme], size["epsilon"], size["tolerance"])
        return restarting(advance) if o.restart else advance
    return (refit if o.method == "refit" else adam)(SCHEMES[scheme])


def siren(o: Neural, size: Mapping[str, Any], p: Problem, outputs: int) -> NeuralField:
    """The default network."""
    encoding = {} if p.encoding is None else {"encoding": p.encoding}
    widths = (size["width"],) * size["depth"]
    net = Siren(p.equation.grid, outputs, widths, omega=size["omega"], seed=o.seed, **encoding)
    net.constraint = dirichlet(p.equation.grid) if p.dirichlet else None
    return net


def weights(o: Neural, size: Mapping[str, Any], p: Problem) -> int:
    """How many the network has."""
    return count(siren(o, chosen(o, size), p, 1))


def marched(o: Neural, p: Problem, step: NeuralStep, out: Path) -> Run:
    """From the start, or the last state in ``out``, to the end, with a state saved at each output."""
    saved, eq = out / "state.safetensors", p.equation
    about = identity(o)
    every = max(1, round(p.end / p.outputs / step.dt))
    started = time.monotonic()
    make_room(out, WRITTEN, o)
    if o.resume:
        run, state = resumed(saved, about, Run)
    else:
        state = step.init(p.start if p.function is None else p.function, seed=o.seed)
        run = Run([], [], [], [], [], time.monotonic() - started, 0.0, len(state.z))
    bar = tqdm(total=p.outputs, initial=max(len(run.times) - 1, 0), unit="output", disable=None, delay=2)
    while True:
        if not run.times or run.times[-1] < state.time:
            fields = p.seen(eq, step.read(state))
            run.times.append(state.time)
            run.errors.append(ratio(p.error(fields, state.time)))
            run.fields.append(fields)
            run.notes.append(state.memory[1].tolist())
            run.energies.append(p.energy(eq, step.read(state)) if p.energy else 0.0)
            keep(saved, run, state, about)
        if len(run.times) > p.outputs:
            bar.close()
            return run
        started, evaluations = time.monotonic(), 0.0
        for _ in range(every):
            try:
                state = step(state)
            except sm.BlowUp as error:
                raise sm.BlowUp(f"{error}; the last good state, at t = {run.times[-1]:.6g}, is in {saved}") from None
            evaluations += float(state.memory[1][2])
        state.memory[1][2] = evaluations
        run = run._replace(march=run.march + time.monotonic() - started)
        bar.update()


def identity(o: Any) -> dict[str, str]:
    """Options that a run which goes on must share with the one that was interrupted."""
    return {n: str(v) for n, v in asdict(o).items() if n not in ("resume", "overwrite", "out", "movie")}


def keep(path: Path, run: Any, state: State, about: Mapping[str, str]) -> None:
    """A state to go on from, with all that was found; lists of tensors of the run are stacked."""
    own = run._asdict()
    stacked = {n: torch.stack(v) for n, v in own.items() if isinstance(v, list) and v and isinstance(v[0], Tensor)}
    held = {"theta": state.z, "memory": state.memory[0], "notes": state.memory[1], "rng": state.rng}
    tensors = {f"state.{n}": t for n, t in held.items()} | {f"run.{n}": t for n, t in stacked.items()}
    rest = {n: v for n, v in own.items() if n not in stacked}
    save_tensors(path, tensors, {"run": rest, "time": state.time, "options": dict(about)})


def resumed(path: Path, about: Mapping[str, str], kind: Callable[..., AnyRun]) -> tuple[AnyRun, State]:
    """The run, of a ``kind``, and the state to go on from; refused where it had other options."""
    if not path.exists():
        raise Refused(f"--resume: there is no state in {path.parent}")
    tensors, header = load_tensors(path)
    other = [n for n, v in about.items() if header["options"].get(n) != v]
    if other:
        raise Refused(f"--resume: the run in {path.parent} had another --{other[0]}: {header['options'].get(other[0])}")
    with refusing(path):
        held = {n: tensors[f"state.{n}"] for n in ("theta", "memory", "notes", "rng")}
        lists = {n.removeprefix("run."): list(t) for n, t in tensors.items() if n.startswith("run.")}
        run = kind(**header["run"], **lists)
    return run, State(held["theta"], header["time"], (held["memory"], held["notes"]), held["rng"])


# -- classical solvers -----------------------------------------------------------------------------------------------
def classical(p: Problem, nx: int, ny: int) -> Row:
    """The spectral solver on another grid, by its error at the end on the finer of both grids' modes."""
    grid = p.equation.grid
    coarse = grid.resized(nx, ny)
    eq = replace(p.equation, grid=coarse)
    steps = max(p.outputs, math.ceil(p.end / (p.dt * grid.nx / nx)))
    start = grid.resample(p.start, coarse)
    started = time.monotonic()
    try:
        end = sm.rollout(p.classical(eq, p.end / steps), steps, every=steps)(start).fields[-1]
    except FloatingPointError:
        return Row(f"spectral, {nx} x {ny}", nx * ny * len(start), math.inf, time.monotonic() - started)
    seconds = time.monotonic() - started
    error = ratio(p.error(p.seen(p.equation, coarse.resample(end, grid)), p.end))
    return Row(f"spectral, {nx} x {ny}", end.numel(), error, seconds)


def rivals(p: Problem, weights: int, seconds: float) -> list[Row]:
    """Of about as many numbers as the network has weights, and the finest (grids doubled, up to the truth's) that takes
    no longer."""
    grid, n = p.equation.grid, len(p.start)
    ratio = 1 if grid.ny == 1 else grid.ny / grid.nx
    nx = weights // n if grid.ny == 1 else round(math.sqrt(weights / n / ratio))
    nx = min(nx, grid.nx)
    rows = [classical(p, nx, 1 if grid.ny == 1 else round(nx * ratio))]
    rows[0] = rows[0]._replace(name=rows[0].name + " (equal memory)")
    finest = rows[0]
    while 2 * nx <= grid.nx:
        nx *= 2
        row = classical(p, nx, 1 if grid.ny == 1 else round(nx * ratio))
        if row.seconds > seconds:
            break
        finest = row
    return [*rows, finest._replace(name=finest.name.split(" (")[0] + " (equal time)")]


def reference(equation: sm.Equation, start: Tensor, times: Sequence[float], dt: float, stepper=sm.etdrk4):
    """``time -> fields`` of the spectral solver at given times, evenly spaced from 0."""
    every = max(1, math.ceil((times[1] - times[0]) / dt))
    step = stepper(equation, (times[1] - times[0]) / every)
    fields = sm.rollout(step, every * (len(times) - 1), every, progress="truth")(start).fields
    return lambda t: fields[int(np.argmin(np.abs(np.asarray(times) - t)))]


# -- a case ----------------------------------------------------------------------------------------------------------
def solved(o: Neural, out: Path, p: Problem, size: Mapping[str, Any], others: Sequence[Row] = ()) -> dict[str, Any]:
    """March, compare, write; the numbers."""
    size = chosen(o, size)
    net = siren(o, size, p, len(p.form(p.equation).fields))
    samples = round(size["samples"] * count(net))
    step = sm.insr(p.equation, net, spacing(o, p), method(o, size), form=p.form, samples=samples,
                   iterations=size["iterations"], projected=size["projected"])  # fmt: skip
    return finish(o, out, p, step, lambda run: [*rivals(p, run.weights, run.fit + run.march), *others])


def spacing(o: Neural, p: Problem) -> float:
    """Time between states."""
    between = p.end / p.outputs
    dt = between if o.step is None else o.step
    if not math.isclose(max(1, round(between / dt)) * dt, between):
        raise Refused(f"--step must go whole times into {between:g}, the time between outputs, got {dt:g}")
    if between / dt > 1e6:
        raise Refused(f"--step {dt:g} asks for {p.end / dt:.2g} steps")
    return dt


def finish(o: Neural, out: Path, p: Problem, step: NeuralStep, beside: Callable[[Run], list[Row]]) -> dict[str, Any]:
    """March, compare, write; the numbers."""
    run = marched(o, p, step, out)
    still = ratio(p.error(p.seen(p.equation, p.truth(0.0)), p.end))
    rows = [Row(f"neural field, {run.weights} weights", run.weights, run.errors[-1], run.fit + run.march), *beside(run),
            Row("the start, kept as it is", 0, still, 0.0)]  # fmt: skip
    norms = np.array([p.error(f, t) for f, t in zip(run.fields, run.times, strict=True)])
    results = {"weights": run.weights, "error": run.errors[-1], "errors": run.errors, "fit_error": run.errors[0],
               "error_over_time": float(np.linalg.norm(norms[:, 0]) / np.linalg.norm(norms[:, 1])),
               "fit_seconds": run.fit, "march_seconds": run.march, "evaluations": sum(n[2] for n in run.notes[1:]),
               "residual": max(n[0] for n in run.notes[1:]), "estimate": run.notes[-1][3],
               "energy_drift": drift(run, p), "solvers": {r.name: r._asdict() for r in rows}}  # fmt: skip
    table(rows, results, p)
    write(out, p, run)
    pictures(out, p, run)
    if o.movie:
        film(out, p, run)
    return results


def ratio(norms: tuple[float, float]) -> float:
    return norms[0] / norms[1]


def energy(eq: sm.Equation, fields: Tensor) -> float:
    """Mean over the box of the energy of fields on the grid."""
    return float(eq.energy(eq.init(fields)))  # type: ignore[attr-defined]


def count(net: NeuralField) -> int:
    """Its weights."""
    return sum(w.numel() for w in net.parameters())


def drift(run: Run, p: Problem) -> float | None:
    """Relative change of the energy beyond the truth's."""
    if p.energy is None:
        return None
    true = [p.energy(p.equation, p.truth(t)) for t in (0.0, p.end)]
    return run.energies[-1] / run.energies[0] - true[1] / true[0]


def table(rows: Sequence[Row], results: Mapping[str, Any], p: Problem) -> None:
    title = f"relative error of {p.name} at t = {p.end:g}"
    print(f"{title:48s}{'numbers':>9s}{'error':>11s}{'time (s)':>10s}")
    for r in rows:
        print(f"{r.name:48s}{r.numbers:9d}{r.error:11.2e}{r.seconds:10.2f}")
    print(f"neural field: start {results['fit_error']:.1e} ({results['fit_seconds']:.1f} s), over all times "
          f"{results['error_over_time']:.1e}, {results['evaluations']:.0f} least squares")  # fmt: skip
    if results["energy_drift"] is not None:
        print(f"energy drift {results['energy_drift']:.1e}")
