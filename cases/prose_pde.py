"""PROSE for twenty families of partial differential equations in one dimension, on unseen equations.

From 32 noisy frames of a periodic field, t in [0, 1), and a guess of its equation, or none, a network predicts the
frames of t in [1, 2] and writes the equation (Liu, Sun, He, Pickering, Yang & Schaeffer 2024, arXiv 2404.12355).
Guesses are the equation itself (known), without its numbers (skeleton), with a term too many or too few (corrupted),
or none. What is written is compared with the truth by its right-hand side, integrated from the last frame seen, and
refined: its constants and the initial state are fitted to the frames seen, through a solver, and integrated.

Errors are relative L2 errors against solutions without noise (prediction_published: with noise of the same level).
Errors above one, and those of equations that cannot be read or have no solution, count as one. Baselines: the last
frame seen, the mean of all that are, the weak form of SINDy (Messenger & Bortz 2021, JCP 443, 110525), and with
--twin a network that was trained without equations. Porous media have three equations only, so that none is unseen.

Expected (published, 2 % noise): known, prediction 0.0092, R2 0.998, symbols 0.0001, valid 1; skeleton, 0.0106, 0.998,
0.0077, 0.9994. The small network that comes with the package, on all twenty families: prediction 0.026, 0.07 from
states of a Gaussian process; random 0.026, integrated 0.039, refined 0.0019 with constants off by 0.009; weak SINDy
0.14. Near a steady state (Fokker-Planck, Cahn-Hilliard) terms nearly cancel, so that errors of right-hand sides are
large there.
Run time on one core, without training: five families 15 s (quick), 30 s (default); all twenty one and five minutes.

Writes table.nc, errors.png, fields.png, sweeps.png, summary.json and, with --train, the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import prose_fields as fields
import prose_fields_pictures as pictures
import torch
import xarray as xr
from common import Range, device, goes_with, main
from prose_training import CHECKPOINT, ONLY_TRAINING, Training, chosen, of_case, room, sized, train
from torch import Tensor

from sciml import plot, score
from sciml.cluster import in_processes
from sciml.data import write_netcdf
from sciml.equation.expression import Field, dx, lap
from sciml.equation.tokens import Vocabulary
from sciml.prose import sets
from sciml.prose.fields import Fields, generate_fields
from sciml.prose.learning import Course
from sciml.prose.model import PROSE, new
from sciml.prose.partial import PDES
from sciml.prose.states import gaussian_process
from sciml.prose.symbols import GUESSES, NONE, Symbols, one_of
from sciml.prose.symmetry import Shifts, free_axes
from sciml.prose.windows import Lines

FIELDS = ("u_0", "u_1")
LENGTH = 48
U = Field("u_0")
FURTHER = one_of(U, U**2, U**3, dx(U), lap(U), dx(U**2))
"""Terms that are added to corrupted skeletons."""
SHIPPED = Path(__file__).resolve().parents[1] / "data" / "weights" / "prose_pde.safetensors"
TESTS = {"quick": (1, 2, 1), "default": (4, 4, 3), "full": (20, 10, 10)}
"""Equations of each family, initial states of each, and windows of each family that are refined."""
UNSEEN, SHIFTED = 1_000_003, 2_000_003
"""Added to the seed, for equations of their own."""

TABLES = ("table.nc", "errors.png", "fields.png", "sweeps.png", "summary.json")


@dataclass(frozen=True)
class Options(Training):
    spread: Annotated[float, Range(0, 0.99, open=True)] = 0.1
    """Half width of the ranges of parameters, as a factor of their centres."""
    workers: Annotated[int, Range(1, 1_024)] = 1
    """Processes that solve equations."""
    tested: Annotated[int, Range(1, 100_000)] | None = None
    """Equations of each family to test on (default: 4, quick 1, full 20)."""
    states: Annotated[int, Range(1, 100_000)] | None = None
    """Initial states of each equation to test on (default: 4, quick 2, full 10)."""
    refined: Annotated[int, Range(1, 100_000)] | None = None
    """Windows of each family whose equations are refined (default: 3, quick 1, full 10)."""
    twin: Path | None = None
    """File of weights of a network trained with --no-symbols, to compare with."""


# -- training --------------------------------------------------------------------------------------------------------
def family_runs(
    names: Sequence[str], equations: int, conditions: int, seed: int, spread: float, i: int, shifted: bool = False
) -> Fields:
    """Solutions of one family, with a seed of its own."""
    shape = gaussian_process() if shifted else None
    return generate_fields([PDES[names[i]]], equations, conditions, seed=1000 * seed + i, spread=spread, shape=shape)


def symbols_of(vocabulary: Vocabulary, runs: Fields, length: int) -> Symbols:
    return Symbols.of(vocabulary, runs.equations, runs.family.cpu(), further=FURTHER, length=length)


def taught(o: Options, out: Path) -> PROSE:
    """A model trained on solutions of the chosen families."""
    names = chosen(o.families, tuple(PDES))
    equations, conditions, updates = sized(o, quick=(40, 2, 20), default=(800, 10, 6000), full=(10240, 50, 60000))
    where = device(o.device)
    each = partial(family_runs, tuple(names), -(-equations // len(names)), conditions, o.seed, o.spread)
    runs = sets.joined(in_processes(each, len(names), o.workers)).to(where)
    vocabulary = Vocabulary(FIELDS)
    symbols = symbols_of(vocabulary, runs, LENGTH).to(where)
    view = Lines()
    turn = Shifts(free_axes(runs.equations, ("x",)).to(where))
    course = Course(runs.t, runs.u, runs.equation, symbols, view, noise=o.noise, asked=16, turn=turn)
    model = new(view, vocabulary, o.size, length=LENGTH, seed=o.seed)
    return train(o, out, model, course, updates, names=list(names), spread=o.spread)


# -- tests -----------------------------------------------------------------------------------------------------------
def twin_of(o: Options) -> PROSE | None:
    """The network that saw data only, if one is given."""
    return None if o.twin is None else of_case(o.twin, Lines, FIELDS, device(o.device), symbols=False)


def sizes(o: Options) -> tuple[int, int, int]:
    """Equations of each family, initial states, windows to refine."""
    given = o.tested, o.states, o.refined
    equations, conditions, windows = (a if a is not None else b for a, b in zip(given, TESTS[o.preset], strict=True))
    return equations, conditions, min(windows, equations * conditions)


def unseen(o: Options, model: PROSE, names: Sequence[str], shifted: bool = False) -> fields.Unseen:
    """Solutions of equations with a seed of their own."""
    equations, conditions, _ = sizes(o)
    seed, spread = o.seed + (SHIFTED if shifted else UNSEEN), model.about.get("spread", o.spread)
    each = partial(family_runs, tuple(names), equations, conditions, seed, spread, shifted=shifted)
    runs = sets.joined(in_processes(each, len(names), o.workers))
    symbols = symbols_of(model.vocabulary, runs, model.net.config.length)
    test = fields.Unseen(runs.to(model.device), runs.u, symbols.to(model.device), seed)
    return test.with_noise(o.noise)


def windows_of(test: fields.Unseen, count: int) -> list[int]:
    """So many windows of each family, of as many equations as there are."""
    found = []
    for f in range(len(test.runs.names)):
        mine = (test.family == f).nonzero()[:, 0].tolist()
        found += [mine[round(k * len(mine) / count)] for k in range(count)]
    return found


def evaluated(o: Options, model: PROSE, test: fields.Unseen, shifted: fields.Unseen):
    """Everything that is measured, by family, and the refined windows."""
    ds = xr.Dataset(attrs={"Conventions": "CF-1.11"})
    windows, told = windows_of(test, sizes(o)[2]), {}
    for name, guess in zip(GUESSES, range(len(GUESSES)), strict=True):
        scores, systems = fields.scored_fully(model, test, guess)
        scores |= {f"shifted_{n}": v for n, v in fields.scored(model, shifted, guess)[0].items()}
        told[name] = {n: means(shifted if "shifted" in n else test, v) for n, v in scores.items()}
    better = fields.refined(test, systems, windows, model.about.get("spread", o.spread))  # of the last guess, none
    for n in told["none"]:
        ds[n] = ("guess", "family"), torch.stack([one[n] for one in told.values()]).numpy()
    for n, values in fields.plain_scores(test).items():
        ds[n] = "family", means(test, values).numpy()
    for n, values in (better.scores | fields.sindy_scores(test.select(windows))).items():
        ds[n] = "family", means(test, values, windows).numpy()
    if (twin := twin_of(o)) is not None:
        values = fields.predicted(twin, test, NONE)
        ds["twin"] = "family", means(test, fields.error(values, test.runs.u[:, fields.SEEN :])).numpy()
    for n, values in fields.noise_sweep(model, test).items():
        ds[f"noise_{n}"] = ("noise", "swept"), values.numpy()
    for n, values in fields.length_sweep(model, test).items():
        ds[f"shown_{n}"] = ("frames", "swept"), values.numpy()
    return described(ds, test.runs.names), better


def described(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """With coordinates, and units and names of everything."""
    frames = [2 * n for n in fields.SHOWN]
    coords = {"guess": list(GUESSES), "family": list(names), "noise": list(fields.NOISES), "frames": frames}
    ds = ds.assign_coords(coords | {"swept": list(fields.SWEPT.values())})
    for name, variable in ds.variables.items():
        first = str(name).removeprefix("shifted_").removeprefix("noise_").removeprefix("shown_")
        variable.attrs = {"units": "1", "long_name": MEANINGS.get(first, str(name))}
    return ds


MEANINGS = {
    "prediction": "relative L2 error of predicted frames",
    "prediction_published": "the same against noisy frames",
    "r2": "coefficient of determination of predicted frames",
    "symbols": "relative error of the right-hand side, in the last state seen",
    "symbols_random": "relative error of the right-hand side, in random fields",
    "valid": "share of equations that can be read, decoded within the grammar",
    "valid_raw": "share of equations that can be read, decoded freely",
    "integrated": "relative L2 error of decoded equations, integrated from the last frame seen",
    "refined": "relative L2 error of decoded equations after refinement",
    "refined_symbols": "relative error of the right-hand side after refinement",
    "form": "share of decoded equations that have the true terms",
    "constants_decoded": "relative error of the constants of decoded equations",
    "constants_refined": "relative error of the constants of refined equations",
    "misfit": "what refined equations leave of the frames seen, over the noise",
    "persistence": "relative L2 error of the last frame seen",
    "mean": "relative L2 error of the mean of the frames seen",
    "sindy": "relative L2 error of the equations of weak SINDy, integrated from the last frame seen",
    "sindy_symbols": "relative error of the right-hand side of weak SINDy, in the last state seen",
    "twin": "relative L2 error of a network without equations",
    "noise": "noise of what is seen, relative to its norm",
    "frames": "number of frames seen",
}


def means(test: fields.Unseen, values: Tensor, windows: Sequence[int] | None = None) -> Tensor:
    """Mean of each family."""
    family = test.family if windows is None else test.family[list(windows)]
    return torch.stack([values[family == f].mean() for f in range(len(test.runs.names))])


# -- results ---------------------------------------------------------------------------------------------------------
def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.train, "--train", *ONLY_TRAINING)
    twin_of(o)
    model = None if o.train else of_case(o.weights or SHIPPED, Lines, FIELDS, device(o.device))
    chosen(o.families, tuple(PDES) if model is None else model.about["names"])
    room(o, out, TABLES)
    model = model or taught(o, out)
    names = chosen(o.families, model.about["names"])
    test, shifted = (unseen(o, model, names, shifted) for shifted in (False, True))
    ds, better = evaluated(o, model, test, shifted)
    write_netcdf(ds, out / "table.nc")
    plot.save(pictures.errors(ds), out / "errors.png")
    plot.save(pictures.sweeps(ds), out / "sweeps.png")
    plot.save(pictures.examples(test, better, fields.predicted(model, test, NONE)), out / "fields.png")
    (out / CHECKPOINT).unlink(missing_ok=True)
    return report(o, ds, len(test.runs))


def report(o: Options, ds: xr.Dataset, windows: int) -> dict[str, Any]:
    """Print means over families, and return them."""
    means = ds.mean("family")
    shown = {"prediction": "prediction", "published": "prediction_published", "R2": "r2", "symbols": "symbols",
             "random": "symbols_random", "valid": "valid", "valid raw": "valid_raw", "integrated": "integrated",
             "GP states": "shifted_prediction"}  # fmt: skip
    rows = {g: {c: float(means[v].sel(guess=g)) for c, v in shown.items()} for g in GUESSES}
    others = {str(n): float(v) for n, v in means.data_vars.items() if v.dims == ()}
    print(f"errors in {windows} windows of {ds.sizes['family']} families, equations unseen, noise {o.noise:g}")
    print(score.table(rows))
    print(score.table({"": {n: others[n] for n in ("refined", "refined_symbols", "form", "constants_decoded",
                                                   "constants_refined")}}))  # fmt: skip
    print(score.table({"": {n: others[n] for n in ("persistence", "mean", "sindy", "sindy_symbols", "twin")
                            if n in others}}))  # fmt: skip
    families = {
        str(f): {g: float(ds["prediction"].sel(family=f, guess=g)) for g in GUESSES} for f in ds["family"].values
    }
    return {"guesses": rows, "others": others, "prediction": families}


if __name__ == "__main__":
    main(run, Options)
