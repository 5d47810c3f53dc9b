r"""Coefficients of a flow by least squares through the solver, and which of its terms are there.

With an estimate :math:`x_i` of the state at every frame y, filtered with a gain G for each layer l and shell K of
wavenumbers, the coefficients p minimise the innovations d,

.. math:: d_i = y_{i+1} - \Phi_p(x_i), \qquad x_{i+1} = \Phi_p(x_i) + G d_i, \qquad
    \sum_{l,K} n_K \log \Big( \frac{1}{n_K} \sum_{i,|k| \in K} |\hat d_{i,l}|^2 + \epsilon^2 v_{l,K} \Big),

which is the likelihood of Gaussian innovations of unknown spectrum (prediction-error method, Ljung 1999, "System
Identification", sections 7.2 and 15.2). :math:`G = 1 - N / \overline{d^2}` with the variance N of white noise, which
shows beyond the wavenumbers that the flow has; without noise G = 1 and frames are stepped to the next ones. Regression
from noisy frames would find too much or too little viscosity instead. Gauss-Newton with the damping of Levenberg and
Marquardt (Nocedal & Wright 2006, section 10.3), derivatives by finite differences in the batch axis.
:math:`\epsilon^2 v` is a floor relative to the change from frame to frame, below which rounded coefficients show. Terms
are compared by the criterion of Schwarz (1978), Ann. Statist. 6, 461, with a stricter penalty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.base import substituted
from sciml.equation.expression import Apply, Expr, Number, Param, leaves, parts, wrap
from sciml.grid import Grid
from sciml.prose.flow_data import daily_steps, record
from sciml.prose.flow_solver import coefficient_function, flow_solver, tabulated
from sciml.prose.flows import TERMS, Written, layers_of, parameters, split, structure, three_digits

SCALES = {"F": 4.0, "F1": 4.0, "F2": 2.0, "beta": 0.5, "U": 0.2, "r": 0.05, "s": 0.1, "kappa": 0.05, "nu": 3e-3,
          "nu4": 3e-5, "h": 0.5, "jet1": 0.03, "jet2": 0.03, "jet3": 0.03}  # fmt: skip
"""Typical sizes of the parameters: steps of finite differences and of the damping."""
LEAST = {"F": -0.5, "F1": 0.05, "F2": 0.05}
"""Bounds below which psi would not follow from q."""
LEAST_GAIN = 0.15
PENALTY = 2.0
"""How many times Schwarz's penalty a parameter costs: innovations are not quite white, which lets needless terms in."""
HOPELESS = 3.0
"""A term is not tried without where the square of its value over its error is so many times the price of it."""
SPEEDS = (1e-4, 30.0)
"""Bounds of the rms speed, a day, in a box of side 2 pi"""
STEP = 1e-5
"""Finite difference, in units of :data:`SCALES`"""
FLOORS = (0.1, 0.01, 2e-3)
"""Floors of the error, one after the other: a high one makes a smooth problem that leads to the next."""


@dataclass(frozen=True)
class RefinedFlow:
    """A flow whose coefficients were fitted."""

    expressions: Written
    """with numbers, to three significant digits"""
    values: dict[str, float]
    errors: dict[str, float]
    """standard errors of the values"""
    covariance: Tensor
    """of the values, in their order"""
    misfit: float
    """rms error of the step from frame to frame, over the rms change from frame to frame"""
    bic: float
    """twice the negative logarithm of the likelihood, and for every parameter :data:`PENALTY` times the logarithm of
    the number of data"""
    state: Tensor
    """estimate of the last frame, of less noise than the frame itself, ``(layers, n, n)``"""
    doubt: Tensor
    """variance of its coefficients, ``(layers, *modes)``; that of the noise times the gain, as of Kalman's filter"""


@dataclass(frozen=True)
class Window:
    """Frames as coefficients, and what is needed to compare them with forecasts."""

    grid: Grid
    eta: Tensor | None
    every: float
    steps: int
    psi: Tensor
    """``(frames, layers, *modes)``"""
    shell: Tensor
    """index of the shell of every wavevector"""
    count: Tensor
    """independent real numbers in every shell"""
    noise: Tensor
    """variance of the noise in each coefficient ``(layers, 1)``"""
    change: Tensor
    """mean square change from frame to frame ``(layers, shells)``"""
    gain: Tensor
    """``(layers, *modes)``"""

    @property
    def data(self) -> float:
        return float(self.count.sum()) * (len(self.psi) - 1) * self.psi.shape[1]

    def weighted(self, error: Tensor) -> Tensor:
        return error * self.grid.real(self.grid.weight).sqrt()

    def variance(self, error: Tensor, floor: float) -> Tensor:
        """Mean square ``(layers, shells)`` of errors ``(frames, layers, *modes)``, with the floor."""
        square = error.abs().square().mean(0)
        total = square.new_zeros(square.shape[0], len(self.count))
        total = total.index_add(1, self.shell.reshape(-1), square.flatten(1))
        return total / self.count + floor**2 * self.change

    def cost(self, error: Tensor, floor: float) -> float:
        return float((self.count * self.variance(error, floor).log()).sum()) * len(error)

    def with_gain(self, variance: Tensor) -> Window:
        """The window with the gains that innovations of this variance ask for."""
        gain = (1 - self.noise / variance.clamp(min=1e-300)).clamp(LEAST_GAIN, 1.0)
        gain = torch.where(gain > 1 - 1e-6, 1.0, gain)
        return replace(self, gain=gain[:, self.shell])


def window_of(frames: Tensor, eta: Tensor | None, every: float, steps_per_day: int | None) -> Window:
    if frames.ndim != 4 or len(frames) < 2 or frames.shape[1] not in (1, 2) or frames.shape[2] != frames.shape[3]:
        raise ValueError(f"frames are two or more maps (frames, 1 or 2 layers, n, n), got {tuple(frames.shape)}")
    if eta is not None and eta.shape != frames.shape[2:]:
        raise ValueError(f"eta is a map {tuple(frames.shape[2:])} as the frames are, got {tuple(eta.shape)}")
    if not bool(torch.isfinite(frames.sum())):
        raise ValueError("some frames are not finite; fill the gaps first")
    if not 0 < every < math.inf:
        raise ValueError(f"every, the days between two frames, must be positive, got {every}")
    if not bool((frames[1:] != frames[:-1]).any()):
        raise ValueError("all frames are the same: nothing moves that could tell an equation")
    grid, frames = Grid(frames.shape[-1], device=str(frames.device)), frames.double()
    psi, weight = grid.fft(frames), grid.weight.expand(grid.modes).clone()
    speed = float((grid.weight * grid.K2 * psi.abs().square()).sum((-2, -1)).mean().sqrt())
    if not SPEEDS[0] < speed < SPEEDS[1]:
        raise ValueError(f"a speed of {speed:.3g} is none of a flow in a box of side 2 pi with days; scale psi to that")
    outside = (frames - grid.ifft(psi)).square().mean((0, 2, 3)) / (frames[0, 0].numel() - weight.sum())
    weight[0, 0] = 0
    _, shell = torch.unique(grid.K2.sqrt().round(), return_inverse=True)
    count = torch.zeros(int(shell.max()) + 1, dtype=torch.float64, device=grid.device)
    count = count.index_add(0, shell.reshape(-1), weight.reshape(-1)).clamp(min=1)
    none, steps = torch.zeros_like(count), math.ceil(every * (steps_per_day or daily_steps(grid)))
    made = Window(grid, eta, every, steps, psi, shell, count, outside[:, None], none, none)
    change = made.variance(made.weighted(psi[1:] - psi[:-1]), 0.0) + 1e-10 * psi.abs().square().amax()
    return replace(made, change=change).with_gain(change)


# -- fit -------------------------------------------------------------------------------------------------------------
def fit_flow(
    form: Sequence[Expr], frames: Tensor, eta: Tensor | None = None, *, start: Mapping[str, float] = {},
    every: float = 1.0, steps_per_day: int | None = None, iterations: int = 20,
) -> RefinedFlow:  # fmt: skip
    """Coefficients of a flow in parameters (:func:`~sciml.prose.flows.structure`, :func:`form_of`).

    Raises ``ValueError`` where the frames do not fit the flow, or are fewer than two.

    Parameters
    ----------
    frames : streamfunctions ``(frames, layers, n, n)``, ``every`` so many days
    start : values to begin with (default: zero, a typical value for deformation radii)
    """
    layers = layers_of(form)
    if frames.ndim != 4 or frames.shape[1] != layers or len(frames) < 2:
        raise ValueError(f"frames of a flow of {layers} layers must be (2 or more, {layers}, n, n), {frames.shape=}")
    return fitted(tuple(form), window_of(frames, eta, every, steps_per_day), start, iterations)[0]


def fitted(
    form: Written, window: Window, start: Mapping[str, float] = {}, iterations: int = 20, filtering: bool = True,
    rough: bool = False,
) -> tuple[RefinedFlow, Window]:  # fmt: skip
    """The fit, and the window with the gains that it ends with; a ``rough`` start takes all floors, as none does."""
    model, p = _begun(form, window, start)
    if rough or not start:
        model = replace(model, window=replace(window, gain=torch.ones_like(window.gain)))
        for floor in FLOORS[:-1]:
            p = _minimised(model, p, floor, iterations).p
        model = replace(model, window=window)
    fit = _minimised(model, p, FLOORS[-1], iterations)
    if filtering and bool((window.gain < 1).any()):
        model = replace(model, window=window.with_gain(window.variance(fit.error, 0.0)))
        fit = _minimised(model, fit.p, FLOORS[-1], iterations)
    return _summary(model, fit), model.window


def _begun(form: Written, window: Window, start: Mapping[str, float]) -> tuple[_Model, Tensor]:
    """The model and the parameters to begin with."""
    names = sorted(set().union(*(leaves(e, Param) for e in form)))
    columns = [
        (_scale(name, start), LEAST.get(name, -math.inf), start.get(name, SCALES[name] if name in LEAST else 0.0))
        for name in names
    ]
    scale, low, p = torch.tensor(columns, dtype=torch.float64, device=window.grid.device).view(-1, 3).unbind(1)
    return _Model(form, names, scale, low, window), torch.maximum(p, low)


@dataclass(frozen=True)
class Slopes:
    """The cost about some values, to second order: it falls by ``b' A^-1 b`` where parameters are fitted."""

    names: list[str]
    A: Tensor
    b: Tensor

    def fall(self, names: Iterable[str]) -> float:
        """By how much the cost would fall were these parameters fitted and the others left as they are."""
        some = torch.tensor(sorted({self.names.index(name) for name in names}), dtype=torch.long)
        return float(self.b[some] @ torch.linalg.pinv(self.A[some][:, some], hermitian=True) @ self.b[some])


def slopes(form: Written, window: Window, values: Mapping[str, float]) -> Slopes:
    """Of a flow in parameters, which are zero where they have no value."""
    names = set().union(*(leaves(e, Param) for e in form))
    model, p = _begun(form, window, dict.fromkeys(names, 0.0) | dict(values))
    return Slopes(model.names, *_normal(model(p), window, FLOORS[-1]))


@dataclass(frozen=True)
class _Fit:
    """Parameters, their innovations ``(frames, layers, *modes)``, derivatives of these by scaled parameters (one more
    leading axis) and the last state ``(layers, *modes)``."""

    p: Tensor
    error: Tensor
    slopes: Tensor
    state: Tensor


@dataclass(frozen=True)
class _Model:
    form: Written
    names: list[str]
    scale: Tensor
    low: Tensor
    window: Window

    def __call__(self, p: Tensor) -> _Fit:
        many = torch.cat([p[None], p + STEP * torch.diag(self.scale)])
        values = {name: many[:, i] for i, name in enumerate(self.names)}
        innovations, states = _filtered(self.form, values, self.window)
        errors = self.window.weighted(innovations)
        return _Fit(p, errors[0], (errors[1:] - errors[0]) / STEP, states[0])


def _filtered(form: Written, values: Mapping[str, Tensor], window: Window) -> tuple[Tensor, Tensor]:
    """Innovations ``(sets, frames - 1, layers, *modes)`` and last states ``(sets, layers, *modes)`` of parameter sets.

    Without noise all frames are stepped at once, as no forecast then depends on the one before.
    """
    terms, table = coefficient_function(form)
    solver = flow_solver(terms, table(values), window.grid, window.eta)

    def forecast(psi: Tensor) -> Tensor:
        return solver.psi(solver.run(solver.pv(psi), window.every, window.steps))

    if bool((window.gain == 1).all()):
        innovations = window.psi[1:, None] - forecast(window.psi[:-1, None])
        return innovations.movedim(1, 0), window.psi[-1].expand_as(innovations[-1])
    x, out = window.psi[0] * _prior(window), []
    for y in window.psi[1:]:
        ahead = forecast(x)
        out.append(y - ahead)
        x = ahead + window.gain * out[-1]
    return torch.stack(out, 1), x


def _prior(window: Window) -> Tensor:
    """Share of the first frame that is not noise, by shell (Wiener's filter)."""
    power = window.variance(window.weighted(window.psi), 0.0).clamp(min=1e-300)
    return (1 - window.noise / power).clamp(min=0)[:, window.shell]


def _scale(name: str, start: Mapping[str, float]) -> float:
    return SCALES.get(name) or abs(start.get(name, 1.0)) or 1.0


def _minimised(model: _Model, p: Tensor, floor: float, iterations: int) -> _Fit:
    now, window = model(p), model.window
    cost, damping = window.cost(now.error, floor), 1e-3
    for _ in range(iterations if model.names else 0):
        A, b = _normal(now, window, floor)
        step = -torch.linalg.solve(A + damping * torch.diag(A.diagonal() + 1e-12), b)
        trial = model(torch.maximum(now.p + model.scale * step, model.low))
        new_cost = window.cost(trial.error, floor) if bool(torch.isfinite(trial.error).all()) else math.inf
        gained = cost - new_cost
        if gained > 0:
            now, cost, damping = trial, new_cost, damping / 10
        else:
            damping *= 10
        if 0 < gained < 0.1 or damping > 1e3:
            break
    return now


def _normal(fit: _Fit, window: Window, floor: float) -> tuple[Tensor, Tensor]:
    """Normal matrix and right-hand side with errors weighted by the variance of their shell."""
    weight = window.variance(fit.error, floor)[:, window.shell].rsqrt()
    J = torch.view_as_real((fit.slopes * weight).flatten(1)).flatten(1)
    r = torch.view_as_real((fit.error * weight).flatten()).flatten()
    return J @ J.T, J @ r


def _summary(model: _Model, fit: _Fit) -> RefinedFlow:
    window, names = model.window, model.names
    A, _ = _normal(fit, window, FLOORS[-1])
    covariance = model.scale[:, None] * model.scale * torch.linalg.pinv(A, hermitian=True)
    spread = covariance.diagonal().clamp(min=0).sqrt()
    values, spread = dict(zip(names, fit.p.tolist(), strict=True)), dict(zip(names, spread.tolist(), strict=True))
    change = window.weighted(window.psi[1:] - window.psi[:-1])
    misfit = float(fit.error.abs().square().sum().sqrt() / change.abs().square().sum().sqrt())
    written = tuple(three_digits(substituted(e, values)) for e in model.form)
    bic = window.cost(fit.error, FLOORS[-1]) + PENALTY * len(names) * math.log(window.data)
    doubt = window.noise[..., None] * window.gain
    return RefinedFlow(written, values, spread, covariance, misfit, bic, window.grid.ifft(fit.state), doubt)


# -- structures ------------------------------------------------------------------------------------------------------
def form_of(expressions: Sequence[Expr]) -> tuple[Written, dict[str, float]]:
    """A written flow with parameters ``c0, c1, ...`` for its coefficients (equal sizes share one), and their values.

    The advection and the Laplacian in q keep theirs, and so do numbers inside of functions, as the 2 of ``cos(2*y)``.
    Start :func:`fit_flow` from these values. Raises ``ValueError`` for flows that have parameters.
    """
    names: dict[float, str] = {}

    def named(row: int, term: Expr) -> Expr:
        coefficient, rest = split(term)
        if not isinstance(coefficient, Number):
            raise ValueError(f"the term {term} has parameters already; a written flow has numbers only")
        if isinstance(rest, Apply) and rest.op == ("J" if row < layers else "lap") and "eta" not in leaves(rest):
            return term
        name = names.setdefault(abs(coefficient.value), f"c{len(names)}")
        return math.copysign(1, coefficient.value) * Param(name) * rest

    layers = layers_of(expressions)
    rows = [[named(row, term) for term in parts(e, "add")] for row, e in enumerate(expressions)]
    return tuple(wrap(sum(row, Number(0.0))) for row in rows), {name: size for size, name in names.items()}


def rank_flows(
    forms: Iterable[Sequence[Expr]], frames: Tensor, eta: Tensor | None = None, **options
) -> list[RefinedFlow]:
    """Fits of several structures (options of :func:`fit_flow`), the best by :attr:`RefinedFlow.bic` first."""
    return sorted((fit_flow(form, frames, eta, **options) for form in forms), key=lambda r: r.bic)


def select_terms(
    frames: Tensor, eta: Tensor | None = None, *, candidates: Iterable[str] | None = None, every: float = 1.0,
    steps_per_day: int | None = None,
) -> tuple[frozenset[str], RefinedFlow]:  # fmt: skip
    """Terms of a flow and its fit, without any guess: all candidates at first, then the least useful leaves.

    Of the fit with all terms that are left, the one with the smallest ratio of value to standard error is taken out
    as long as the criterion does not rise.
    """
    layers, window = frames.shape[1], window_of(frames, eta, every, steps_per_day)
    terms = frozenset(TERMS if candidates is None else candidates) - (set() if layers == 2 else {"shear"})
    terms = terms - (set() if eta is not None else {"topography"})
    best, window = fitted(structure(layers, terms), window)
    while True:
        fewer, best = eliminated(terms, best, window)
        if fewer == terms:
            return terms, best
        terms = fewer
        best, window = fitted(structure(layers, terms), window, best.values)


def eliminated(terms: frozenset[str], best: RefinedFlow, window: Window) -> tuple[frozenset[str], RefinedFlow]:
    """Terms that are left, and their fit with the gains of the window."""
    layers = window.psi.shape[1]
    strength = {term: _strength(term, layers, best) for term in _removable(terms, layers)}
    for term in sorted(strength, key=lambda term: strength[term])[:2]:
        if strength[term] ** 2 > HOPELESS * PENALTY * math.log(window.data):
            break
        fewer = terms - {term}
        trial, _ = fitted(structure(layers, fewer), window, best.values, filtering=False)
        if trial.bic <= best.bic:
            return eliminated(fewer, trial, window)
    return terms, best


def _removable(terms: frozenset[str], layers: int) -> list[str]:
    return [t for t in TERMS if t in terms and not (layers == 2 and t == "radius")]


def _strength(term: str, layers: int, fit: RefinedFlow) -> float:
    return min(abs(fit.values[p]) / max(fit.errors[p], 1e-300) for p in parameters(layers, term))


# -- prediction ------------------------------------------------------------------------------------------------------
def predict_flow(
    expressions: Sequence[Expr], frame: Tensor, frames: int, eta: Tensor | None = None, *, every: float = 1.0,
    steps_per_day: int | None = None,
) -> Tensor:  # fmt: skip
    """The next ``frames`` streamfunctions after ``frame (layers, n, n)``, ``(frames, layers, n, n)``."""
    if frame.ndim != 3 or frame.shape[0] != layers_of(expressions):
        raise ValueError(f"a frame of this flow is ({layers_of(expressions)}, n, n), got {tuple(frame.shape)}")
    grid = Grid(frame.shape[-1], device=str(frame.device))
    terms, values = tabulated([expressions])
    solver = flow_solver(terms, values, grid, eta)
    z = solver.pv(grid.fft(frame.double())[None])
    return record(solver, z, frames + 1, every, steps_per_day=steps_per_day)[1:, 0]
