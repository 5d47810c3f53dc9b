"""What the PROSE-PDE case measures: predictions, decoded equations, their forecasts, and refined ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.field_fit import FieldFit, fit_fields
from sciml.prose.field_scores import difference, forecast, random_fields, structures, valid
from sciml.prose.fields import Fields
from sciml.prose.model import PROSE
from sciml.prose.refine import freed
from sciml.prose.scoring import relative_error
from sciml.prose.symbols import GUESSES, Symbols
from sciml.prose.trajectories import with_noise
from sciml.prose.weak_pde import weak_sindy
from sciml.prose.wiener import last_state

SEEN = 32
Scores = dict[str, Tensor]
"""Numbers ``(N,)`` of all windows by name; errors are one at most, and one for equations that are none."""


@dataclass(frozen=True)
class Unseen:
    """Solutions to test on, what is shown of them, and the tokens of guesses."""

    runs: Fields
    noisy: Tensor
    symbols: Symbols
    seed: int

    @property
    def family(self) -> Tensor:
        """Of each run."""
        return self.runs.family[self.runs.equation].cpu()

    @property
    def seen(self) -> Tensor:
        return self.noisy[:, :SEEN]

    def truth(self, i: int) -> tuple[Expr, ...]:
        return self.runs.equations[int(self.runs.equation[i])]

    def state(self, i: int, at: int = SEEN - 1) -> Tensor:
        """All fields ``(fields, points)`` of the true solution at a frame; u_1 from the frames beside it."""
        u, t = self.runs.u[i].double().cpu(), self.runs.t.double().cpu()
        rate = (u[at + 1] - u[at - 1]) / (t[at + 1] - t[at - 1])
        return torch.stack([u[at], rate][: len(self.truth(i))])

    def select(self, windows: Sequence[int]) -> Unseen:
        """Some of the runs, with the noise they have."""
        rows = torch.tensor(list(windows), device=self.runs.u.device)
        return replace(self, runs=self.runs.select(rows), noisy=self.noisy[rows])

    def with_noise(self, level: float) -> Unseen:
        """The same runs with noise of another level, drawn alike."""
        generator = torch.Generator(self.runs.u.device).manual_seed(self.seed)
        return replace(self, noisy=with_noise(self.runs.u, level, generator))


# -- the network -----------------------------------------------------------------------------------------------------
def guess_of(model: PROSE, test: Unseen, guess: int) -> list[list[str]] | None:
    """What the network is told."""
    symbolic = model.about.get("symbols", True)
    return test.symbols.guesses(test.runs.equation, guess, test.seed) if symbolic else None


def predicted(model: PROSE, test: Unseen, guess: int, shown: Tensor | None = None) -> Tensor:
    """The second half ``(N, 32, points)``."""
    t, told = test.runs.t, guess_of(model, test, guess)
    return model.predict(t[:SEEN], test.seen, t[SEEN:], told, shown)


def decoded(model: PROSE, test: Unseen, guess: int, shown: Tensor | None = None, constrained: bool = True):
    """Equations of all windows, None where there is none."""
    if not model.about.get("symbols", True):
        return [None] * len(test.runs)
    dims = test.runs.dims[test.runs.equation]
    told = guess_of(model, test, guess)
    written = model.write(test.runs.t[:SEEN], test.seen, dims, told, tokens=shown, constrained=constrained)
    probes = {d: random_fields(8, d, test.runs.u.shape[-1], torch.Generator().manual_seed(d)) for d in (1, 2)}
    return [valid(best.tokens, d, probes[d]) for (best, *_), d in zip(written, dims.tolist(), strict=True)]


def differences(test: Unseen, systems: Sequence, on) -> Tensor:
    """``||f - f*|| / ||f*||`` of each window's equation on the fields ``on(i)``."""
    found = [1.0 if s is None else difference(s, test.truth(i), on(i)) for i, s in enumerate(systems)]
    return capped(torch.tensor(found))


def capped(errors: Tensor) -> Tensor:
    """Errors of one at most, which is also that of what has no value."""
    return torch.nan_to_num(errors.cpu().double(), nan=1.0).clamp(max=1.0)


def error(values: Tensor, truth: Tensor) -> Tensor:
    return capped(relative_error(values.cpu(), truth.cpu()))


def r2(values: Tensor, truth: Tensor) -> Tensor:
    """``1 - ||v - u||^2 / ||u - mean u||^2`` of each window, -1 at least."""
    values, truth = values.cpu().double(), truth.cpu().double()
    spread = (truth - truth.mean((1, 2), keepdim=True)).square().sum((1, 2)).clamp(min=1e-12)
    return torch.nan_to_num(1 - (values - truth).square().sum((1, 2)) / spread, nan=-1.0).clamp(min=-1.0)


def scored(model: PROSE, test: Unseen, guess: int, shown: Tensor | None = None) -> tuple[Scores, list]:
    """Prediction errors and those of decoded equations, which are returned as well."""
    values, systems = predicted(model, test, guess, shown), decoded(model, test, guess, shown)
    truth = test.runs.u[:, SEEN:]
    return {
        "prediction": error(values, truth),
        "r2": r2(values, truth),
        "prediction_published": error(values, test.noisy[:, SEEN:]),
        "symbols": differences(test, systems, lambda i: test.state(i)[None]),
    }, systems


def scored_fully(model: PROSE, test: Unseen, guess: int) -> tuple[Scores, list]:
    """And validity, errors on random fields, and the forecast of the decoded equation from the last state seen."""
    scores, systems = scored(model, test, guess)
    points = test.runs.u.shape[-1]

    def anywhere(i: int) -> Tensor:
        return random_fields(8, len(test.truth(i)), points, torch.Generator().manual_seed(i))

    raw = decoded(model, test, guess, constrained=False)
    scores["valid_raw"] = torch.tensor([float(s is not None) for s in raw]).double()
    scores["valid"] = torch.tensor([float(s is not None) for s in systems]).double()
    scores["symbols_random"] = differences(test, systems, anywhere)
    scores["integrated"] = error(forecast_of(test, systems), test.runs.u[:, SEEN:])
    return scores, systems


def forecast_of(test: Unseen, systems: Sequence) -> Tensor:
    """Second halves ``(N, 32, points)`` from the filtered last frame."""
    t, seen = test.runs.t.cpu(), test.seen.cpu()
    states = [last_state(t[:SEEN], seen[[i]], len(test.truth(i)))[0] for i in range(len(seen))]
    return forecast(systems, states, t[SEEN - 1 :])[:, 1:]


def plain(test: Unseen) -> dict[str, Tensor]:
    """Forecasts without a model: the last frame seen, and the mean of all that are."""
    like = test.runs.u[:, SEEN:]
    return {"persistence": test.seen[:, -1:].expand_as(like), "mean": test.seen.mean(1, keepdim=True).expand_as(like)}


def plain_scores(test: Unseen) -> Scores:
    return {name: error(values, test.runs.u[:, SEEN:]) for name, values in plain(test).items()}


def sindy_scores(test: Unseen) -> Scores:
    """Equations of weak SINDy, scored as the decoded ones are."""
    t, seen = test.runs.t.cpu(), test.seen.cpu()
    systems = [weak_sindy(t[:SEEN], seen[i], len(test.truth(i))) for i in range(len(seen))]
    return {
        "sindy": error(forecast_of(test, systems), test.runs.u[:, SEEN:]),
        "sindy_symbols": differences(test, systems, lambda i: test.state(i)[None]),
    }


# -- refinement ------------------------------------------------------------------------------------------------------
class Refined(NamedTuple):
    """Windows by number, their refined equations, forecasts of both halves, and scores ``(len(windows),)``."""

    windows: list[int]
    systems: list
    values: Tensor
    scores: Scores


def refined(test: Unseen, systems: Sequence, windows: Sequence[int], prior: float) -> Refined:
    """Decoded equations of some windows, their constants fitted to the frames seen."""
    t, windows = test.runs.t.cpu(), list(windows)
    own = [systems[i] for i in windows]
    values = torch.full((len(windows), len(t), test.runs.u.shape[-1]), torch.nan, dtype=torch.float64)
    better, misfit = list(own), torch.ones(len(windows), dtype=torch.float64)
    for rhs, rows, start in structures(own):
        seen = test.seen[[windows[k] for k in rows]].cpu()
        fit = attempt(rhs, start, t[:SEEN], seen, prior)
        if fit is None:
            continue
        values[rows], misfit[rows] = fit.predict(t)[:, :, 0], fit.misfit
        for b, k in enumerate(rows):
            better[k] = fit.written(b)
    truth = test.runs.u[windows].cpu()
    constants = torch.tensor([[off(s[k], test.truth(i)) for s in (own, better)] for k, i in enumerate(windows)])
    scores = {
        "refined": error(values[:, SEEN:], truth[:, SEEN:]),
        "refined_symbols": differences(test.select(windows), better, lambda k: test.state(windows[k])[None]),
        "form": constants[:, 0].isfinite().double(),
        "constants_decoded": capped(constants[:, 0]),
        "constants_refined": capped(constants[:, 1]),
        "misfit": torch.nan_to_num(misfit, nan=100.0).clamp(max=100.0),
    }
    return Refined(windows, better, values, scores)


def attempt(rhs, start, t: Tensor, seen: Tensor, prior: float) -> FieldFit | None:
    try:
        return fit_fields(rhs, start, t, seen, prior=prior)
    except (ValueError, KeyError, torch.linalg.LinAlgError):  # no solver takes it, or it blows up at once
        return None


def off(system: Sequence[Expr] | None, truth: Sequence[Expr]) -> float:
    """Mean relative error of the constants of an equation of the true form, nan for another form."""
    form, true = freed(tuple(truth))
    if system is None:
        return float("nan")
    own, found = freed(tuple(system))
    if own != form:
        return float("nan")
    return sum(abs(found[n] / true[n] - 1) for n in true) / max(len(true), 1)


# -- sweeps ----------------------------------------------------------------------------------------------------------
NOISES = (0.0, 0.01, 0.02, 0.05)
SHOWN = (4, 8, 12, 16)
"""Tokens of two frames each."""
SWEPT = {GUESSES.index(name): name for name in ("skeleton", "none")}


def noise_sweep(model: PROSE, test: Unseen, levels: Sequence[float] = NOISES) -> dict[str, Tensor]:
    """Mean errors ``(levels, guesses)``."""
    return _means([[scored(model, test.with_noise(level), g)[0] for g in SWEPT] for level in levels])


def length_sweep(model: PROSE, test: Unseen, shown: Sequence[int] = SHOWN) -> dict[str, Tensor]:
    """Mean errors ``(lengths, guesses)`` where only so many of the last tokens are seen."""
    tokens = [torch.full((len(test.runs),), n, device=test.runs.u.device) for n in shown]
    return _means([[scored(model, test, g, n)[0] for g in SWEPT] for n in tokens])


def _means(rows: list[list[Scores]]) -> dict[str, Tensor]:
    names = ("prediction", "symbols")
    return {n: torch.tensor([[float(s[n].mean()) for s in row] for row in rows]) for n in names}
