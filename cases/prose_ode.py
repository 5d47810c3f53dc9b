"""PROSE for ordinary differential equations: values and equations from a short noisy window of a trajectory.

A network (Liu, Zhang & Schaeffer 2024, Neural Networks 180, 106707) sees 64 noisy points in [0, 2] of up to 15 families
of systems and a guess of the equation (known, its skeleton, a corrupted one, or none); it predicts the values in [2, 6]
and writes the equation. Beyond the paper the constants and the initial state of what it writes are fitted to the window
by multiple shooting, with the numbers written as prior, and the candidates of a beam search compete ("either" takes the
network's values where no fit explains the window). Beside: persistence, the mean of the window, SINDy (pysindy) with
the right terms and with a generic library; with --twin a network that has never seen an equation.

Without --train the weights in data/weights/prose_ode.safetensors are used. Tests are trajectories that no training has
seen, of equations drawn anew; a family with a single parameter of three digits has so few (Thomas 35) that training met
them. Published errors of prediction are against targets with noise, other errors against the truth; those of
integrated equations count at most 1. Families whose small errors grow in six units of time are marked with *. With
--strangers tests are of families that the network was never trained on.

Expected of the paper (104 million weights, 512000 trajectories): prediction 2.9 % (known) to 5.7 % (corrupted),
expression error 0 to 2 %, 99.9 % valid, and 14.7 % when the written equation is integrated. Of the eight
families of the shipped weights: network 3.9 %, equation integrated 17 %, refined 3.0 % (median 1.7 %), told nothing.
Run time on one core: quick one minute, default ten.

Writes table.nc, errors.png, trajectories.png, sweeps.png and summary.json; with --train also the weights and their log.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import prose_pictures as pictures
import xarray as xr
from common import Range, Refused, asked, device, goes_with, main
from prose_evaluation import errors_of_guesses, forecasts, latency, marked, unseen
from prose_pictures import Shown
from prose_table import BATCHES, dataset, swept
from prose_training import CHECKPOINT, ONLY_TRAINING, Training, chosen, of_case, room, sized, train

from sciml import plot, score
from sciml.cluster import in_processes
from sciml.data import write_netcdf
from sciml.equation.tokens import Vocabulary
from sciml.prose import sets
from sciml.prose.learning import Course
from sciml.prose.model import PROSE, new
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.symbols import Symbols
from sciml.prose.trajectories import Trajectories, generate
from sciml.prose.windows import Windows

FIELDS = tuple(f"u_{i}" for i in range(5))
LENGTH = 144
FEW = ("thomas", "lorenz63", "rossler", "sprott_b", "four_wing")
"""Families of the preset quick"""
WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "weights" / "prose_ode.safetensors"
SCALES: dict[str, dict[str, Any]] = {
    "quick": dict(windows=4, refine=1, swept=2, fitted=0, repeats=1),
    "default": dict(windows=40, refine=6, swept=12, fitted=2, repeats=5),
    "full": dict(windows=400, refine=100, swept=100, fitted=10, repeats=20),
}
"""Windows of each family that are tested, refined, swept, and fitted in the sweep of noise; repeats of timings."""

TABLES = ("table.nc", "errors.png", "trajectories.png", "sweeps.png", "summary.json")


@dataclass(frozen=True)
class Options(Training):
    spread: Annotated[float, Range(0, 0.99, open=True)] = 0.1
    """Half width of the ranges of parameters in training, as a factor of their centres."""
    data: Path | None = None
    """File of trajectories to train on, made where it is missing."""
    workers: Annotated[int, Range(1, 1_024)] = 1
    """Processes that make trajectories."""
    twin: Path | None = None
    """File of weights that were trained with --no-symbols, to compare with."""
    windows: Annotated[int, Range(1, 100_000)] | None = None
    """Windows of each family to test (default: quick 4, default 40, full 400)."""
    refine: Annotated[int, Range(1, 100_000)] | None = None
    """Windows of each family whose equations are integrated and refined (default: quick 1, default 6, full 100)."""
    strangers: bool = False
    """Test families that the network was never trained on, all or those of --families, not its own."""
    beams: Annotated[int, Range(1, 100)] = 3
    """Equations written for each window, of which the best after refinement is taken."""


def made(o: Options, names: Sequence[str], equations: int, conditions: int) -> Trajectories:
    """Trajectories to train on, from a file where there is one."""
    if o.data is not None and o.data.exists():
        runs = sets.load(o.data, FIELDS)
        if runs.names != tuple(names):
            raise Refused(f"--data {o.data} holds {', '.join(runs.names)}; name these with --families, or another file")
        return runs
    each = partial(family_runs, tuple(names), -(-equations // len(names)), conditions, o.seed, o.spread)
    runs = sets.joined(in_processes(each, len(names), o.workers))
    if o.data is not None:
        sets.save(runs, o.data)
    return runs


def family_runs(names: Sequence[str], equations: int, conditions: int, seed: int, spread: float, i: int):
    """Trajectories of one family, with a seed of its own."""
    return generate([SYSTEMS[names[i]]], equations, conditions, seed=1000 * seed + i, spread=spread)


def taught(o: Options, out: Path) -> PROSE:
    """A model trained on trajectories of the chosen families."""
    names = chosen(o.families, tuple(SYSTEMS))
    equations, conditions, updates = sized(o, quick=(30, 4, 20), default=(3000, 20, 8000), full=(25600, 20, 40000))
    where = device(o.device)
    runs = made(o, names, equations, conditions).to(where)
    vocabulary = Vocabulary(FIELDS)
    symbols = Symbols.of(vocabulary, runs.equations, runs.family.cpu(), length=LENGTH).to(where)
    view = Windows(5)
    course = Course(runs.t, runs.u, runs.equation, symbols, view, noise=o.noise)
    model = new(view, vocabulary, o.size, length=LENGTH, seed=o.seed)
    return train(o, out, model, course, updates, names=list(names), spread=o.spread)


# -- evaluation ------------------------------------------------------------------------------------------------------
def loaded(
    path: Path, names: Sequence[str], symbols: bool = True, strangers: bool = False
) -> tuple[PROSE, tuple[str, ...]]:
    """A model on the CPU, and which of the families it was trained for, or of the others, are asked for."""
    model = of_case(path, Windows, FIELDS, symbols=symbols)
    own = model.about["names"]
    others = [n for n in SYSTEMS if n not in own]
    if strangers and not others:
        raise Refused(f"{path} was trained on all families; --strangers needs weights that were not")
    return model, chosen(names, others if strangers else own)


def tested(o: Options, names: Sequence[str]) -> tuple[str, ...]:
    """A few of the families, if quick and not asked for."""
    few = tuple(n for n in names if n in FEW)
    return few if o.preset == "quick" and not o.families and few else tuple(names)


def evaluated(o: Options, model: PROSE, names: Sequence[str], twin: PROSE | None) -> tuple[xr.Dataset, list[Shown]]:
    """All numbers, and trajectories to draw."""
    scale = asked(o, SCALES[o.preset])
    tests = unseen(model, names, scale["windows"], model.about["noise"], model.about["spread"], o.seed)
    scores = errors_of_guesses(model, tests, o.beams)
    found, shown = [], []
    for f, name in enumerate(names):
        own = tests.first(scale["refine"]).family(f)
        methods = forecasts(model, own, o.beams, twin)
        found.append({method: marked(m, own) for method, m in methods.items()})
        shown.append(Shown.of(name, own, methods))
        note(f"{name}: {len(own.window)} windows refined")
    sweeps = swept(model, twin, tests.first(scale["swept"]), scale["fitted"], o.beams, o.seed)
    return dataset(tests, scores, found, sweeps, latency(model, tests, BATCHES, scale["repeats"])), shown


def note(line: str) -> None:
    """Tell a reader at a terminal how far it is."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def rows_of_guesses(ds: xr.Dataset) -> dict[str, dict[str, float]]:
    """Means over families, in percent."""
    means = 100 * ds.mean("family")

    def row(guess: str) -> dict[str, float]:
        one = means.sel(guess=guess)
        clean, grammar = one["error"].sel(target="clean"), one.sel(form="grammar")
        return {
            "[2,4] %": float(clean.sel(until=4)), "[2,6] %": float(clean.sel(until=6)),
            "noisy [2,6] %": float(one["error"].sel(target="noisy", until=6)),
            "valid raw %": float(one["valid"].sel(form="raw")), "valid %": float(grammar["valid"]),
            "expression %": float(grammar["expression"]), "median %": float(grammar["expression_median"]),
        }  # fmt: skip

    return {g: row(g) for g in ds["guess"].values.tolist()}


def rows_of_methods(ds: xr.Dataset) -> dict[str, dict[str, float]]:
    """Means over families, in percent and seconds for a window."""
    means, writers = ds.mean("family"), ds["writer"].values.tolist()

    def row(name: str) -> dict[str, float]:
        one = means.sel(forecast=name)
        out = {"error %": 100 * float(one["integrated"]), "median %": 100 * float(one["integrated_median"]),
               "seconds": float(one["seconds"])}  # fmt: skip
        if name in writers:
            own = means.sel(writer=name)
            out |= {"right terms %": 100 * float(own["right"]), "numbers %": 100 * float(own["coefficients"])}
        return out

    return {m: row(m) for m in ds["forecast"].values.tolist()}


def report(out: Path, ds: xr.Dataset, shown: Sequence[Shown]) -> dict[str, Any]:
    """Print, draw, write."""
    guesses, methods = rows_of_guesses(ds), rows_of_methods(ds)
    print(score.table(guesses))
    print(score.table(methods))
    write_netcdf(ds, out / "table.nc")
    few = [shown[i] for i in sorted({round(i) for i in np.linspace(0, len(shown) - 1, min(6, len(shown)))})]
    for name, figure in (("errors", pictures.errors(ds)), ("trajectories", pictures.trajectories(few)),
                         ("sweeps", pictures.sweeps(ds))):  # fmt: skip
        plot.save(figure, out / f"{name}.png")
    sweeps = {n: 100 * ds[n].mean("family") for n in map(str, ds) if n.split("_")[0] in ("noise", "seen", "spread")}
    seconds = {t: dict(zip(map(str, BATCHES), ds["latency"].sel(task=t).values.tolist(), strict=True))
               for t in ("predict", "write")}  # fmt: skip
    return {
        "families": ds["family"].values.tolist(), "guesses": guesses, "methods": methods, "seconds_per_window": seconds,
        "sweeps_percent": {str(n): dict(dims=list(v.dims), values=v.values.tolist()) for n, v in sweeps.items()},
    }  # fmt: skip


def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.train, "--train", *ONLY_TRAINING, "noise", "spread", "data", "workers")
    goes_with(o, not o.train, "weights, without --train", "strangers")
    twin = None if o.twin is None else loaded(o.twin, (), symbols=False)
    path = o.weights or (out / "model.safetensors" if o.train else WEIGHTS)
    if not o.train:
        loaded(path, o.families, strangers=o.strangers)
    room(o, out, TABLES)
    if o.train:
        taught(o, out)
        if not o.symbols:
            print(f"the weights of a twin, for --twin, are {path}")
            (out / CHECKPOINT).unlink()
            return {"weights": str(path)}
    model, names = loaded(path, o.families, strangers=o.strangers)
    names = tested(o, names)
    if o.strangers:
        print(f"never trained on {', '.join(names)}")
    if twin is not None and not o.strangers and (other := set(names) - set(twin[1])):
        raise Refused(f"--twin was not trained for {', '.join(sorted(other))}; name others with --families")
    ds, shown = evaluated(o, model, names, None if twin is None else twin[0])
    (out / CHECKPOINT).unlink(missing_ok=True)
    return report(out, ds, shown)


if __name__ == "__main__":
    main(run, Options)
