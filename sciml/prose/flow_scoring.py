"""Scores of written flows: their terms, their coefficients, their predictions, and the spread of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sciml.equation.expression import Coord, Expr, Field, J, Number, canonical, cos, dx, lap
from sciml.grid import Grid
from sciml.prose.flow_data import record
from sciml.prose.flow_fit import LEAST, RefinedFlow, fitted, form_of, predict_flow, window_of
from sciml.prose.flow_solver import Place, coefficient_function, flow_solver
from sciml.prose.flows import JETS, TERMS, coefficients, layers_of, number, terms_of

WORST = 2.0
"""What an error counts that is larger, or not finite: unrelated flows of the same size differ by the root of 2."""
PASSES = 3
"""How often the gains of a filter are set by the innovations that it leaves."""


# -- equations -------------------------------------------------------------------------------------------------------
def numbers(expressions: Sequence[Expr]) -> dict[Place, float]:
    """Coefficient of each term, by row and term, but for the advection and the Laplacian in q, which all flows have."""
    n = layers_of(expressions)
    own = {(i, J(Field(f"psi{i + 1}"), Field(f"q{i + 1}"))) for i in range(n)}
    own |= {(n + i, lap(Field(f"psi{i + 1}"))) for i in range(n)}
    own = {(row, canonical(e)) for row, e in own}
    found = coefficients(expressions)
    return {at: c.value if isinstance(c, Number) else math.nan for at, c in found.items() if at not in own}


def parameter_values(expressions: Sequence[Expr]) -> dict[str, float]:
    """Values of the parameters (:func:`~sciml.prose.flows.parameters`) of the terms that a written flow has.

    What several rows say is read from one of them, so that a flow whose rows contradict each other has values too.
    """
    n, at = layers_of(expressions), partial(number, coefficients(expressions))
    q, psi = Field("q1"), [Field(f"psi{i + 1}") for i in range(n)]
    radii = [-at(n + i, psi[i]) for i in range(n)]
    U = -at(0, dx(q)) if n == 2 else 0.0
    values = dict(zip(("F1", "F2") if n == 2 else ("F",), radii, strict=True))
    values |= {"U": U, "beta": -at(0, dx(psi[0])) - radii[0] * U, "r": -at(n - 1, lap(psi[-1]))}
    values |= {"nu": at(0, lap(q)), "nu4": -at(0, lap(lap(q))), "h": -at(n - 1, J(psi[-1], Field("eta")))}
    relaxation = at(0, psi[0])
    values |= {"s": relaxation} if n == 1 else {"kappa": relaxation / radii[0] if radii[0] else 0.0}
    return values | {name: -at(0, cos(m * Coord("y"))) for name, m in JETS.items()}


def same_named_terms(found: Sequence[Expr], truth: Sequence[Expr]) -> bool:
    """Whether a written flow has all the terms of another in all its rows, under their names, and no others."""
    return set(numbers(found)) == set(numbers(truth)) and terms_of(found) == terms_of(truth)


def coefficient_errors(found: Sequence[Expr], truth: Sequence[Expr], rows: int | None = None) -> np.ndarray:
    """``|c - c*| / |c*|`` of every coefficient of the truth (in its first ``rows``), at most 1.

    That is also the error of a coefficient that is missing.
    """
    own = numbers(found)
    true = {at: c for at, c in numbers(truth).items() if rows is None or at[0] < rows}
    off = np.array([abs(own.get(at, 0.0) - c) / abs(c) for at, c in true.items()])
    return np.minimum(np.nan_to_num(off, nan=1.0), 1.0)


def term_table(named: Sequence[frozenset[str]]) -> np.ndarray:
    """Which of :data:`~sciml.prose.flows.TERMS` are in each set, boolean ``(sets, terms)``."""
    return np.array([[name in own for name in TERMS] for own in named])


def precision_recall(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares, for every term, of those found that are true and of those true that are found, of ``(sets, terms)``.

    Where nothing is found, or true, the share is 1.
    """
    both = (found & truth).sum(0)

    def share(of: np.ndarray) -> np.ndarray:
        return np.where(of > 0, both / np.maximum(of, 1), 1.0)

    return share(found.sum(0)), share(truth.sum(0))


# -- predictions -----------------------------------------------------------------------------------------------------
def relative_errors(predicted: Tensor, truth: Tensor) -> Tensor:
    """``||psi - psi*|| / ||psi*||`` of each frame ``(..., layers, n, n)``, at most :data:`WORST`."""
    off, size = ((a.double().square().sum((-3, -2, -1)).sqrt()) for a in (predicted - truth, truth))
    return _bounded(off / size)


def stepped(expressions: Sequence[Expr], frame: Tensor, frames: int, eta: Tensor | None = None) -> Tensor:
    """:func:`~sciml.prose.flow_fit.predict_flow`, infinite where the equation cannot be stepped."""
    try:
        return predict_flow(expressions, frame, frames, eta)
    except ValueError:
        return frame.double().new_full((frames, *frame.shape), math.inf)


def filtered(
    expressions: Sequence[Expr], frames: Tensor, eta: Tensor | None = None, *, every: float = 1.0,
    steps_per_day: int | None = None,
) -> Tensor:  # fmt: skip
    """The last of some frames ``(frames, layers, n, n)`` as a given equation's filter estimates it."""
    form, values = form_of(expressions)
    window = window_of(frames, eta, every, steps_per_day)
    fit, window = fitted(form, window, values, iterations=0)
    for _ in range(PASSES - 1):
        fit, window = fitted(form, window, values, iterations=0)
    return fit.state


def ensemble(
    fit: RefinedFlow, form: Sequence[Expr], frames: int, members: int, generator: torch.Generator,
    eta: Tensor | None = None, *, every: float = 1.0, steps_per_day: int | None = None,
) -> Tensor:  # fmt: skip
    """Predictions ``(frames, members, layers, n, n)`` with coefficients and last frames drawn as the fit doubts them.

    ``form`` is the flow in parameters that was fitted; all draws are normal.
    """
    layers, n = fit.state.shape[0], fit.state.shape[-1]
    grid, device = Grid(n, device=str(fit.state.device)), fit.state.device
    values, root = torch.tensor(list(fit.values.values()), dtype=torch.float64), _root(fit.covariance.cpu())
    drawn = torch.randn(members, len(values), generator=generator, dtype=torch.float64) @ root.T
    noise = torch.randn(members, layers, n, n, generator=generator, dtype=torch.float64).to(device)
    psi = grid.fft(fit.state) + grid.fft(noise) * n * fit.doubt.sqrt()
    own = {name: torch.maximum(values[i] + drawn[:, i], values.new_tensor(LEAST.get(name, -math.inf))).to(device)
           for i, name in enumerate(fit.values)}  # fmt: skip
    terms, table = coefficient_function(form)
    solver = flow_solver(terms, table(own).expand(members, -1), grid, eta)
    return record(solver, solver.pv(psi), frames + 1, every, steps_per_day=steps_per_day)[1:]


def _root(covariance: Tensor) -> Tensor:
    size, vectors = torch.linalg.eigh(covariance)
    return vectors * size.clamp(min=0).sqrt()


def spread(predictions: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Spread of an ensemble ``(frames, members, ...)`` and error of its mean, over the norm of each frame.

    The spread has the factor ``sqrt((m + 1) / m)`` with which both are the same where the truth is as one of the m
    members (Fortin et al. 2014, J. Hydrometeor. 15, 1708).
    """
    m, axes = predictions.shape[1], tuple(range(1, truth.ndim))
    size = truth.double().square().sum(axes).sqrt()
    wide = (predictions.var(1).sum(axes) * (m + 1) / m).sqrt() / size
    return _bounded(wide), relative_errors(predictions.mean(1), truth)


def _bounded(error: Tensor) -> Tensor:
    return torch.nan_to_num(error, nan=WORST, posinf=WORST).clamp(max=WORST)
