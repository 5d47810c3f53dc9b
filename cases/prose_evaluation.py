"""What the ODE case measures: errors of values, of equations, and of equations that are integrated; latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.identify import best_fits, candidates
from sciml.prose.model import PROSE, Written
from sciml.prose.ordinary import SUBSTEPS, SYSTEMS
from sciml.prose.refine import Refined, freed
from sciml.prose.scoring import (
    coefficient_error,
    constant_mean,
    integrated,
    judge,
    limited,
    persistence,
    relative_error,
    same_terms,
)  # fmt: skip
from sciml.prose.sets import joined
from sciml.prose.sindy import generic, sindy, support_of, terms_of
from sciml.prose.symbols import GUESSES, NONE, SKELETON, Symbols
from sciml.prose.trajectories import DEFAULT_SUBSTEPS, Trajectories, generate, with_noise

UNSEEN = 2**31
"""Seeds of what is tested begin here, beyond those of trainings; generators of a CPU take the last 32 bits only."""
BATCH = 128
UNTIL = (4.0, 6.0)
"""Errors are over times from the end of the window until these."""


@dataclass(frozen=True)
class Tests:
    """Unseen trajectories with noise, of one equation each, and tables of their equations.

    ``noisy (N, T, channels)`` has noise at all times, of which the network sees the window.
    """

    runs: Trajectories
    noisy: Tensor
    symbols: Symbols
    points: int

    @property
    def t(self) -> Tensor:
        return self.runs.t[: self.points]

    @property
    def times(self) -> Tensor:
        return self.runs.t[self.points :]

    @property
    def window(self) -> Tensor:
        return self.noisy[:, : self.points]

    @property
    def truth(self) -> Tensor:
        return self.runs.u[:, self.points :]

    @property
    def dims(self) -> Tensor:
        return self.runs.dims[self.runs.equation]

    @property
    def families(self) -> Tensor:
        return self.runs.family[self.runs.equation]

    @property
    def equations(self) -> list[tuple[Expr, ...]]:
        return [self.runs.equations[i] for i in self.runs.equation.tolist()]

    def select(self, rows: Tensor) -> Tests:
        return replace(self, runs=self.runs.select(rows), noisy=self.noisy[rows])

    def first(self, n: int) -> Tests:
        """The first n of each family."""
        kept = [torch.nonzero(self.families == f).flatten()[:n] for f in range(len(self.runs.names))]
        return self.select(torch.cat(kept))

    def family(self, f: int) -> Tests:
        return self.select(torch.nonzero(self.families == f).flatten())

    def repeated(self, others: Sequence[Tests]) -> Tests:
        """The same runs with the noise of each of these, one set after the other."""
        rows = torch.arange(len(self.noisy)).repeat(len(others))
        return replace(self.select(rows), noisy=torch.cat([t.noisy for t in others]))

    def with_noise(self, level: float, seed: int) -> Tests:
        """With other noise, of this size relative to each trajectory."""
        return replace(self, noisy=with_noise(self.runs.u, level, torch.Generator().manual_seed(UNSEEN + seed)))

    def mean(self, values: Tensor) -> Tensor:
        """Means ``(families,)`` of values that are not nan, 1 where all are."""
        return self._each(values, torch.Tensor.mean)

    def median(self, values: Tensor) -> Tensor:
        return self._each(values, torch.Tensor.median)

    def _each(self, values: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        own = [values[self.families == f].double() for f in range(len(self.runs.names))]
        return torch.stack([of(v[~v.isnan()]) if (~v.isnan()).any() else torch.ones(()).double() for v in own])


def unseen(model: PROSE, names: Sequence[str], windows: int, noise: float, spread: float, seed: int) -> Tests:
    """So many trajectories of each family, each of an equation of its own."""
    systems = [(list(SYSTEMS).index(n), SYSTEMS[n]) for n in names]
    dmax = len(model.vocabulary.fields)
    runs = joined(
        generate([s], windows, 1, seed=UNSEEN + (1000 * seed + i) % UNSEEN, spread=spread, dmax=dmax)
        for i, s in systems
    )
    symbols = Symbols.of(model.vocabulary, runs.equations, runs.family, seed=seed, length=model.net.config.length)
    return Tests(runs, runs.u, symbols, model.view.points).with_noise(noise, seed)


# -- the network -----------------------------------------------------------------------------------------------------
def told(tests: Tests, guess: int) -> list[list[str]]:
    """Tokens that the network is told of each window."""
    return tests.symbols.guesses(tests.runs.equation, guess)


def predicted(model: PROSE, tests: Tests, guess: int, seen: int | None = None) -> Tensor:
    """Values ``(N, times, channels)``, zero for channels that a system does not have."""
    symbols, out = told(tests, guess), []
    for rows in torch.arange(len(tests.window)).split(BATCH):
        shown = None if seen is None else torch.full((len(rows),), parts_of(model, seen))
        out.append(model.predict(tests.t, tests.window[rows], tests.times, [symbols[i] for i in rows], shown))
    u = torch.cat(out)
    return u * (torch.arange(u.shape[-1]) < tests.dims[:, None])[:, None]


def parts_of(model: PROSE, points: int) -> int:
    """Tokens of so many points of a window."""
    return max(1, points * model.view.steps // model.view.points)


def written(model: PROSE, tests: Tests, guess: int, **options) -> list[list[Written]]:
    """Equations of all windows, the best first; ``options`` of :meth:`~sciml.prose.model.PROSE.write`."""
    symbols, out = told(tests, guess), []
    for rows in torch.arange(len(tests.window)).split(BATCH):
        own = [symbols[i] for i in rows]
        out += model.write(tests.t, tests.window[rows], tests.dims[rows], own, **options)
    return out


class Expressions(NamedTuple):
    """Of each window: whether an equation was written, and how far off its right-hand sides are, nan where not."""

    valid: Tensor
    error: Tensor


def judged(found: Sequence[Sequence[Written]], tests: Tests) -> Expressions:
    """The best equation of each window beside the true one."""
    marks = [judge(w[0].tokens, truth) for w, truth in zip(found, tests.equations, strict=True)]
    return Expressions(torch.tensor([float(m.valid) for m in marks]), torch.tensor([m.error for m in marks]))


def errors_of_guesses(model: PROSE, tests: Tests, beams: int) -> dict[str, Tensor]:
    """Scores ``(guess, ..., family)``; ``error`` of clean and noisy targets, until 4 and 6; forms are raw, grammar."""
    out: dict[str, list] = {k: [] for k in ("error", "valid", "expression", "expression_median")}
    for guess in range(len(GUESSES)):
        u = predicted(model, tests, guess)
        targets = (tests.truth, tests.noisy[:, tests.points :])
        spans = [tests.times <= until + 1e-6 for until in UNTIL]
        out["error"].append([[tests.mean(relative_error(u[:, s], v[:, s])) for s in spans] for v in targets])
        raw = judged(written(model, tests, guess, constrained=False), tests)
        forms = (raw, judged(written(model, tests, guess, beams=beams), tests))
        out["valid"].append([tests.mean(f.valid) for f in forms])
        out["expression"].append([tests.mean(f.error) for f in forms])
        out["expression_median"].append([tests.median(f.error) for f in forms])
    return {name: stacked(rows) for name, rows in out.items()}


def stacked(rows) -> Tensor:
    """Nested lists of tensors as one."""
    return rows if isinstance(rows, Tensor) else torch.stack([stacked(r) for r in rows])


# -- equations that are integrated -----------------------------------------------------------------------------------
class Forecast(NamedTuple):
    """Of the windows of one family: values ``(N, times, D)``, the equations they come from and fits, where there are,
    and processor time for one window."""

    values: Tensor
    equations: list[tuple[Expr, ...] | None] | None
    seconds: float
    fits: list[Refined | None] | None = None


def forecasts(model: PROSE, tests: Tests, beams: int, twin: PROSE | None = None) -> dict[str, Forecast]:
    """Every method on the windows of one family, by name."""
    n, dim = len(tests.times), int(tests.dims[0])
    window = tests.window[..., :dim].double()
    out = {
        "persistence": Forecast(persistence(window, n), None, 0.0),
        "mean of the window": Forecast(constant_mean(window, n), None, 0.0),
    }
    if twin is not None:
        out["twin"] = of_network(twin, tests, NONE)
    for guess, name in ((SKELETON, "skeleton"), (NONE, "none")):
        out[f"network, {name}"] = of_network(model, tests, guess)
        out |= of_written(model, tests, guess, name, beams)
    out["either, none"] = either(out["refined, none"], out["network, none"])
    return out | with_right_terms(tests) | {"SINDy, generic": timed(tests, lambda: by_sindy(tests, False))}


def with_right_terms(tests: Tests) -> dict[str, Forecast]:
    """Methods that are told the terms of the equation, but none of its numbers."""
    forms = [[freed(e)[0]] for e in tests.equations]
    return {
        "right terms, refined": timed(tests, lambda: refined(tests, forms)),
        "SINDy, right terms": timed(tests, lambda: by_sindy(tests, True)),
    }


FITTED = ("decoded, none", "refined, none", "right terms, refined", "SINDy, right terms")


def fitted_forecasts(model: PROSE, tests: Tests, beams: int) -> dict[str, Forecast]:
    """Those of :data:`FITTED`."""
    return of_written(model, tests, NONE, "none", beams) | with_right_terms(tests)


def timed(tests: Tests, make: Callable[[], Forecast]) -> Forecast:
    started = time.process_time()
    made = make()
    return made._replace(seconds=(time.process_time() - started) / len(tests.window))


def of_network(model: PROSE, tests: Tests, guess: int) -> Forecast:
    """The values that it predicts."""
    return timed(tests, lambda: Forecast(predicted(model, tests, guess)[..., : int(tests.dims[0])], None, 0.0))


def of_written(model: PROSE, tests: Tests, guess: int, name: str, beams: int) -> dict[str, Forecast]:
    """The equation written integrated from the noisy first state, and refined.

    Numbers that were written are a prior as wide as the ranges of the training: they decide what the window does not.
    """
    dim = int(tests.dims[0])
    found: list[list[tuple[Expr, ...]]] = []

    def decoded() -> Forecast:
        found.extend(candidates(w, dim) for w in written(model, tests, guess, beams=beams))
        best = [c[0] if c else None for c in found]
        return Forecast(run(tests, best, tests.window[:, 0, :dim].double()), best, 0.0)

    return {
        f"decoded, {name}": timed(tests, decoded),
        f"refined, {name}": timed(tests, lambda: refined(tests, found, model.about["spread"])),
    }


def refined(tests: Tests, choices: Sequence[Sequence[tuple[Expr, ...]]], prior: float = torch.inf) -> Forecast:
    """The best fit of the candidates of each window; ``prior`` is the relative uncertainty of their numbers."""
    dim = int(tests.dims[0])
    substeps = max(4, substeps_of(tests) // 2)
    fits = best_fits(choices, tests.t, tests.window[..., :dim], substeps=substeps, prior=prior)
    start = torch.stack([torch.zeros(dim).double() if f is None else f.initial[0] for f in fits])
    equations = [None if f is None else f.written() for f in fits]
    return Forecast(run(tests, equations, start), equations, 0.0, fits)


def either(fitted: Forecast, network: Forecast, bound: float = 2.0) -> Forecast:
    """The refined equation where it explains its window by its reduced chi-square, elsewhere the network's values."""
    good = torch.tensor([f is not None and bool(f.reduced[0] < bound) for f in fitted.fits or []])
    values = torch.where(good[:, None, None], fitted.values, network.values.double())
    return Forecast(values, None, fitted.seconds + network.seconds)


def by_sindy(tests: Tests, right: bool) -> Forecast:
    """pysindy on each window, with the terms of its equation or a generic library."""
    dim = int(tests.dims[0])
    found, starts = [], []
    for u, truth in zip(tests.window[..., :dim].double(), tests.equations, strict=True):
        terms = terms_of(truth) if right else generic(dim)
        support = support_of(truth, terms) if right else None
        try:
            equation, start = sindy(tests.t, u, terms, support=support)
        except ValueError:  # nothing can be integrated
            equation, start = None, u[0]
        found.append(equation)
        starts.append(start)
    return Forecast(run(tests, found, torch.stack(starts)), found, 0.0)


def substeps_of(tests: Tests) -> int:
    """Of the solver, between two points."""
    return SUBSTEPS.get(tests.runs.names[int(tests.families[0])], DEFAULT_SUBSTEPS)


def run(tests: Tests, equations: Sequence[tuple[Expr, ...] | None], start: Tensor) -> Tensor:
    """At the times to predict, from states at the first time of the window."""
    return integrated(equations, start, tests.runs.t, substeps_of(tests))[:, tests.points :]


class Marks(NamedTuple):
    """Of one method and family: errors of windows in [2, 6], limited to 1; share of the right terms, error of numbers,
    and seconds for a window; the shares are None for methods without equations."""

    errors: Tensor
    right: float | None
    coefficients: float | None
    seconds: float


def marked(found: Forecast, tests: Tests) -> Marks:
    """Compared with the truth."""
    truth = tests.truth[..., : found.values.shape[-1]]
    errors = limited(relative_error(found.values, truth))
    if found.equations is None:
        return Marks(errors, None, None, found.seconds)
    pairs = list(zip(found.equations, tests.equations, strict=True))
    right = sum(same_terms(f, e) for f, e in pairs) / len(pairs)
    return Marks(errors, right, sum(coefficient_error(f, e) for f, e in pairs) / len(pairs), found.seconds)


# -- sweeps and latency ----------------------------------------------------------------------------------------------
def readers(model: PROSE, twin: PROSE | None) -> dict[str, tuple[PROSE, int]]:
    """Networks that predict, with what they are told."""
    own = {"skeleton": (model, SKELETON), "none": (model, NONE)}
    return own | ({} if twin is None else {"twin": (twin, NONE)})


def errors_of(who: Mapping[str, tuple[PROSE, int]], tests: Tests, seen: int | None = None) -> Tensor:
    """Mean errors of prediction in [2, 6] against clean truth, ``(readers, families)``."""
    return torch.stack([tests.mean(relative_error(predicted(m, tests, g, seen), tests.truth)) for m, g in who.values()])


def expressions_of(model: PROSE, tests: Tests) -> Expressions:
    """Told the skeleton and nothing: marks ``(2, N)`` of equations written greedily without the grammar."""
    marks = [judged(written(model, tests, guess, constrained=False), tests) for guess in (SKELETON, NONE)]
    return Expressions(*(torch.stack(m) for m in zip(*marks, strict=True)))


def latency(model: PROSE, tests: Tests, batches: Sequence[int], repeats: int) -> Tensor:
    """Median of seconds for a window ``(predict and write, batches)``."""

    def seconds(rows: Tensor, work: Callable[[Tests], object]) -> float:
        some, spent = tests.select(rows), []
        for _ in range(repeats):
            started = time.perf_counter()
            work(some)
            spent.append((time.perf_counter() - started) / len(rows))
        return sorted(spent)[len(spent) // 2]

    tasks = (lambda some: predicted(model, some, NONE), lambda some: written(model, some, NONE))
    rows = [torch.arange(n) % len(tests.window) for n in batches]
    return torch.tensor([[seconds(r, task) for r in rows] for task in tasks])
