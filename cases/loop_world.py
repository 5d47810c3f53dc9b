"""The world of the closed loop: a truth under satellites, models that lack a part of it, and how they are scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from common import Refused
from methods import DATA, WEIGHTS, network
from qg_assimilate import load
from torch import Tensor

import sciml as sm
from sciml import evaluate, testbed
from sciml.assim.cycle import Record, cycle
from sciml.discover.innovations import Assimilation
from sciml.equation.expression import Expr, Number, parse, parts

if TYPE_CHECKING:
    from closed_loop import Options

SPIN_UP = 50
"""days between a snapshot of the climatology and the truth's start"""
LEADS = 4
"""windows of the longest forecast: 20 days"""
RADIUS, INFLATION = 30e3, 1.1
"""Of the filter, m and a factor; the latter the best on another truth with the imperfect model and with the perfect one
(python bench/closed_loop.py --tune)."""
ALONE = 90
"""Snapshots from which ensembles start; truths start from the others."""


class World(NamedTuple):
    """A truth, what satellites see of it, and the model that lacks a part of it."""

    truth: sm.TwoLayerQG
    model: sm.Equation
    states: Tensor
    """of the truth at the ends of the windows, ``(windows, n, *modes)``"""
    obs: Any
    """observations of all windows"""
    climate: Tensor
    """snapshots ``(samples, n, *modes)``"""
    learn: int
    """windows that models are corrected with; the later ones are for scores"""

    @property
    def std(self) -> Tensor:
        """Climatological standard deviation of psi by layer."""
        return self.psi(self.climate).std((0, 2, 3))

    def psi(self, z: Tensor) -> Tensor:
        """Streamfunction on the grid."""
        return self.truth.grid.ifft(self.truth.psi(z))


def planted(o: Options) -> tuple[sm.TwoLayerQG, sm.Equation]:
    """The truth's equation, and a model with a part of its bottom drag and of its topography.

    A term takes the topography away, so that the map of the bottom is known and a library can name it.
    """
    truth = testbed.model()
    bottom = sm.Term("q2", "less topography", parse(f"{1 - o.topography}*J(psi2, eta)"))
    return truth, testbed.model(rek=o.drag * float(truth.rek)) + bottom


def world(o: Options, learn: int, test: int) -> World:
    """Run the truth from a snapshot of the climatology and let satellites observe it."""
    truth, model = planted(o)
    step, windows = testbed.stepper(truth), learn + test
    climate = truth.init(
        truth.grid.real(torch.as_tensor(load(DATA / "qg_satellite_climatology.nc", "climatology")["q"].values))
    )
    start = climate[ALONE + o.seed % (len(climate) - ALONE)]
    before = round((SPIN_UP + 10 * (o.seed // (len(climate) - ALONE))) * testbed.DAY / step.dt)
    run = sm.rollout(step, before + windows * testbed.WINDOW, every=1, save=lambda state: state.z)
    path = run(sm.State(start)).fields[before:]
    H = testbed.operator(truth)
    obs = sm.simulate(H, testbed.network(H), path, start=0.0, dt=step.dt, seed=o.seed)
    return World(truth, model, path[testbed.WINDOW :: testbed.WINDOW], obs, climate, learn)


def assimilation(o: Options, w: World, eq: sm.Equation, method: str, late: bool = False) -> Assimilation:
    """A cycle with a model through the windows it may learn from, or through the later ones."""
    H, n = testbed.operator(eq), len(w.states)  # type: ignore[arg-type]
    windows = sm.windows(w.obs, H, 0.0, testbed.DT, testbed.WINDOW, n)
    windows = windows[w.learn :] if late else windows[: w.learn]
    time = windows[0].start
    if method == "fuxida":
        return Assimilation(network(WEIGHTS["perfect"], eq), windows, sm.State(w.climate.mean(0), time))  # type: ignore[arg-type]
    order = torch.randperm(ALONE, generator=torch.Generator().manual_seed(o.seed))[: o.members]
    if len(order) < 2:
        raise Refused(f"--members must be from 2 to {ALONE}, got {o.members}")
    space = sm.Space(eq.grid, w.psi, w.truth.pv)
    return Assimilation(
        sm.LETKF(space, RADIUS, INFLATION, every=2, seed=o.seed), windows, sm.State(w.climate[order], time)
    )


def cycled(o: Options, w: World, step: sm.Step, method: str, late: bool = True) -> Record:
    """Analyses of a model's own cycle. Raises :class:`~sciml.BlowUp` where it fails."""
    analysis, windows, start = assimilation(o, w, step.equation, method, late)
    return cycle(step, analysis, windows, start, w.psi, progress=method)


class Score(NamedTuple):
    """Errors of psi over its climatological standard deviation, ``(lev,)`` and ``(leads, lev)``."""

    analysis: list[float]
    forecast: list[list[float]]
    days: list[float]


def scored(w: World, step: sm.Step, record: Record) -> Score:
    """Of a cycle through the later windows, its first third left out."""
    truth = w.states[w.learn :]
    skip, leads = len(truth) // 3, min(LEADS, len(truth) // 3)
    errors = evaluate.forecasts(step, w.psi, record, truth, w.climate, skip, testbed.WINDOW, leads)
    analysis = evaluate.root_mean_square(w.psi(record.analysis[skip:] - truth[skip:])) / w.std
    length = testbed.WINDOW * testbed.DT / testbed.DAY
    return Score(analysis.mean(0).tolist(), errors, [length * i for i in range(leads + 1)])


def changed(o: Options, eq: sm.Equation, truth: sm.TwoLayerQG, how: str) -> sm.Equation:
    """The same equation in another climate: with a stronger mean shear, or with more drag, which an equation knows to
    be its own drag and what was found as ``lap(psi2)``."""
    if how == "shear":
        return replace(eq, U1=(1 + o.change) * truth.U1)  # type: ignore[call-arg]
    more = 1 + o.change
    extra = tuple(replace(t, expr=more * t.expr) if t.name == "found lap(psi2)" else t for t in eq.extra)
    return replace(eq, rek=more * eq.rek, extra=extra)  # type: ignore[attr-defined, call-arg]


def folded(eq: sm.Equation) -> sm.Equation:
    """The same equation with drag and topography as its parameters, not as further terms, which are slower."""
    expressions = {"rek": parse("lap(psi2)"), "topography": parse("J(psi2, eta)")}
    found, rest = dict.fromkeys(expressions, 0.0), []
    for term in eq.extra:
        factor, whole = split(term.expr)
        name = next((n for n, e in expressions.items() if term.field == "q2" and whole == e), None)
        if name is None:
            rest.append(term)
        else:
            found[name] += factor
    bottom = eq.grid.ifft(eq.fixed["eta"])
    drag = float(eq.rek) - found["rek"]  # type: ignore[attr-defined]
    return replace(eq, rek=drag, topography=(1 - found["topography"]) * bottom, extra=tuple(rest))  # type: ignore[call-arg]


def split(e: Expr) -> tuple[float, Expr]:
    """A number and what it multiplies."""
    factors = parts(e, "mul")
    numbers = [f.value for f in factors if isinstance(f, Number)]
    rest = [f for f in factors if not isinstance(f, Number)]
    return math.prod(numbers), rest[0] if len(rest) == 1 else e


def closed(scores: Mapping[str, Score]) -> dict[str, float]:
    """What the corrected model gains: of the analysis error and of that of 10-day forecasts, means over layers in per
    cent, and the part of the gap to the perfect model that is closed."""

    def mean(name: str, ahead: bool) -> float:
        one = scores[name]
        return float(np.mean(one.forecast[min(2, len(one.forecast) - 1)] if ahead else one.analysis))

    found = {}
    for what, ahead in (("analysis", False), ("10-day forecast", True)):
        bad, good, best = (mean(n, ahead) for n in ("imperfect", "corrected", "perfect"))
        found[f"{what} error falls by (%)"] = 100 * (1 - good / bad)
        found[f"{what} gap closed (%)"] = 100 * (bad - good) / (bad - best) if bad > best else float("nan")
    return found
