"""The constants and the initial state of an ordinary differential equation from a short noisy window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.base import substituted
from sciml.equation.expression import Apply, Expr, Field, Number, Param, canonical, leaves
from sciml.prose.shooting import Rhs, Shooting, levenberg_marquardt, rates, run
from sciml.prose.smoothing import regressed, smoothed

LEAST = 8
"""times of a window: fewer have no smoothness that tells noise from signal"""


def measured(value: float) -> bool:
    """Whether a number is one that data decide: all but integers from -10 to 10."""
    return not (value == int(value) and abs(value) <= 10)


def freed(
    rhs: tuple[Expr, ...], values: Mapping[str, float] = {}, free: Callable[[float], bool] = measured
) -> tuple[tuple[Expr, ...], dict[str, float]]:
    """The same right-hand sides with constants ``c00``, ``c01``, ... that can be fitted, and their start values.

    Numbers that ``free`` says become constants, but never exponents; numbers of equal size become one constant.
    Parameters become constants too, which start from ``values`` (nan where it has none: see :func:`fit`).
    """
    names: dict[Expr, Param] = {}
    start: dict[str, float] = {}

    def constant(of: Expr, value: float) -> Expr:
        if of not in names:
            names[of] = Param(f"c{len(names):02d}")
            start[names[of].name] = value
        return names[of]

    def loosened(e: Expr) -> Expr:
        if isinstance(e, Param):
            return constant(e, float(values.get(e.name, torch.nan)))
        if isinstance(e, Number) and free(e.value):
            size = constant(Number(abs(e.value)), abs(e.value))
            return size if e.value > 0 else -size
        if isinstance(e, Apply):
            args = (loosened(e.args[0]), e.args[1]) if e.op == "pow" else tuple(map(loosened, e.args))
            return canonical(Apply(e.op, args))
        return e

    return tuple(map(loosened, rhs)), start


@dataclass(frozen=True)
class Refined:
    """Fits of one structure to B windows.

    Parameters
    ----------
    rhs, names : right-hand sides, and the constants in them in the order of ``constants``
    constants, initial : estimates ``(B, P)`` and ``(B, D)``, the latter at time ``start``
    covariance : of both, constants first ``(B, P + D, P + D)``
    misfit : sum of squares of (model - data) / sigma over the window ``(B,)``, and of what is left of jumps
    sigma : standard deviation of the noise ``(B, 1)``, or ``(B, D)`` of each component; that of the residuals where it
        was not given
    samples : numbers in each window
    step : of the Runge-Kutta steps
    reduced : reduced chi-square ``(B,)``, near 1 where the structure explains the window, with the noise as it was
        given or as the smoothness of the window has it
    """

    rhs: tuple[Expr, ...]
    names: tuple[str, ...]
    constants: Tensor
    initial: Tensor
    covariance: Tensor
    misfit: Tensor
    sigma: Tensor
    samples: int
    start: float
    step: float
    reduced: Tensor

    def window(self, b: int) -> Refined:
        """The fit of window b alone."""
        batched = ("constants", "initial", "covariance", "misfit", "sigma", "reduced")
        return replace(self, **{name: getattr(self, name)[b : b + 1] for name in batched})

    def written(self, b: int = 0) -> tuple[Expr, ...]:
        """The right-hand sides of window b with numbers."""
        values = dict(zip(self.names, self.constants[b].tolist(), strict=True))
        return tuple(substituted(e, values) for e in self.rhs)

    def predict(self, times: Tensor, runs: int = 0, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Best estimate and its standard deviation ``(B, n, D)`` at times ``(n,)``, increasing, from ``start`` on.

        The estimate is the run from the fit. The deviation is half the width of the middle 68.3 % of ``runs`` from
        constants and initial states drawn from the normal distribution of the fit, so that the few that blow up do
        not spoil it; zeros where runs is 0. Raises ``ValueError`` for times before the window.
        """
        centre = torch.cat((self.constants, self.initial), 1)[None]
        states = self._run(centre, times)[0]
        if not runs:
            return states, torch.zeros_like(states)
        others = torch.nan_to_num(self._run(self._drawn(centre, runs, generator), times), nan=torch.inf).sort(0).values
        low, high = (others[round(q * (runs - 1))] for q in (0.1587, 0.8413))
        return states, torch.nan_to_num((high - low) / 2, nan=torch.inf, posinf=torch.inf)

    def _drawn(self, centre: Tensor, runs: int, generator: torch.Generator | None) -> Tensor:
        size = self.covariance.diagonal(dim1=1, dim2=2).sqrt()
        values, vectors = torch.linalg.eigh(torch.nan_to_num(self.covariance / (size[..., None] * size[:, None])))
        noise = torch.randn(runs, *centre.shape[1:], generator=generator, dtype=centre.dtype).to(centre.device)
        return centre + size * torch.einsum("bij,bj,rbj->rbi", vectors, values.clamp(min=0).sqrt(), noise)

    def _run(self, x: Tensor, times: Tensor) -> Tensor:
        times = times.to(x)
        if times[0] < self.start or (times.diff() <= 0).any():
            raise ValueError(f"give increasing times, none before the window's start {self.start:g}")
        gaps = torch.cat((times[:1] - self.start, times.diff()))
        counts = (gaps / self.step - 1e-9).ceil().long().clamp(min=1)
        steps = torch.repeat_interleave(gaps / counts, counts)
        p = len(self.names)
        states = run(rates(self.rhs, self.names), x[..., None, p:], x[..., :p], steps[None], 1)
        return states[..., 0, counts.cumsum(0), :]


def fit(
    rhs: tuple[Expr, ...],
    start: Mapping[str, float | Tensor],
    t: Tensor,
    u: Tensor,
    *,
    sigma: float | Tensor | None = None,
    prior: float = torch.inf,
    segments: int = 8,
    substeps: int = 4,
    iterations: int = 30,
    generator: torch.Generator | None = None,
) -> Refined:
    """Least-squares constants and initial states of ``rhs`` from noisy samples u ``(B, n, D)`` at times t ``(n,)``.

    Multiple shooting (Bock 1983): segments of the window are run in parallel, and jumps between them are weighted ever
    more, until one trajectory remains. It starts both from ``start`` and from constants that fit the weak form on
    smoothed data; the better fit of each window is returned. Everything runs in float64 on the device of u.

    Raises ``ValueError`` for windows that are not finite or have another number of components, and for parameters
    without a start value.

    Parameters
    ----------
    start : value of each constant (nan: unknown), a number or one for each window ``(B,)``
    sigma : standard deviation of the noise, also ``(B,)`` or, of each component, ``(B, D)``; None estimates it, one for
        all components, from the smoothness of the window
    prior : relative standard deviation of the start values, which then count as data
    substeps : Runge-Kutta steps between two samples
    """
    _check(rhs, start, t, u)
    if len(t) < LEAST or substeps < 1 or (sigma is not None and not bool((torch.as_tensor(sigma) >= 0).all())):
        raise ValueError(f"a fit needs {LEAST} times, substeps of 1 and more and no negative sigma, got {len(t)} "
                         f"times, {substeps} and {sigma}")  # fmt: skip
    u, t = u.double(), t.to(u.device).double()
    smooth, estimate = smoothed(t, u)
    level = estimate if sigma is None else _deviations(sigma, u)
    level = level.clamp(min=1e-12 * float(u.abs().max()) + 1e-300)
    names = tuple(start)
    given = [torch.as_tensor(v).to(u).expand(len(u)) for v in start.values()]
    first = torch.stack(given, 1) if given else u.new_zeros(len(u), 0)
    f = rates(rhs, names)
    weak = regressed(f, first, t, u, smooth, generator)
    starts = torch.stack((torch.where(first.isnan(), weak, first), weak))
    problem = _problem(f, t, u, level, segments, substeps)
    width = torch.where(first.isnan() | (first == 0), torch.inf, prior * first.abs())
    problem = replace(problem, prior=starts[0], width=width)
    x = _solve(problem, starts, smooth, iterations)
    return _refined(rhs, names, problem, x, t, substeps, sigma is None)


def _check(rhs: tuple[Expr, ...], start: Mapping, t: Tensor, u: Tensor) -> None:
    if u.ndim != 3 or u.shape[1:] != (len(t), len(rhs)):
        expected = f"(windows, {len(t)}, {len(rhs)})"
        raise ValueError(f"{len(rhs)} equations at {len(t)} times need samples {expected}, got {tuple(u.shape)}")
    if not u.isfinite().all() or not t.isfinite().all() or (t.diff() <= 0).any():
        raise ValueError("samples must be finite and times increasing; cut the window where the data are missing")
    if missing := set().union(*(leaves(e, Param) for e in rhs)) - set(start):
        raise ValueError(f"no start value for {', '.join(sorted(missing))}; give nan where it is unknown")
    known = {f"u_{i}" for i in range(len(rhs))}
    if unknown := set().union(*(leaves(e, Field) for e in rhs)) - known:
        raise ValueError(f"the equations name {', '.join(sorted(unknown))}; fields are {', '.join(sorted(known))}")


def _deviations(sigma: float | Tensor, u: Tensor) -> Tensor:
    """Of the noise, ``(B, 1)`` or ``(B, D)``."""
    given = torch.as_tensor(sigma).to(u)
    given = given if given.ndim == 2 else given.reshape(-1, 1)
    return given.expand(len(u), -1)


def _problem(f: Rhs, t: Tensor, u: Tensor, sigma: Tensor, segments: int, substeps: int) -> Shooting:
    """The window cut into segments of equal length, the last one filled up with samples that do not count."""
    length = -(-len(t) // max(1, min(segments, len(t) // 2)))
    segments = -(-len(t) // length)
    extra = segments * length - len(t)
    steps = torch.cat((t.diff(), t.new_zeros(extra + 1))).view(segments, length)
    mask = torch.cat((torch.ones_like(t), t.new_zeros(extra))).view(segments, length)
    data = torch.cat((u, u[:, -1:].expand(-1, extra, -1)), 1).unflatten(1, (segments, length))
    nothing = u.new_zeros(len(u), 0)
    return Shooting(f, steps, data, sigma, mask, nothing, nothing, substeps)


def _solve(problem: Shooting, starts: Tensor, smooth: Tensor, iterations: int) -> Tensor:
    """The best unknowns ``(B, P + S D)`` reached from K start values of the constants ``(K, B, P)``."""
    k, (s, length) = len(starts), problem.steps.shape
    states = smooth[:, ::length][:, :s].flatten(1).expand(k, -1, -1)
    x = torch.cat((starts, states), -1).flatten(0, 1)
    many = replace(problem, **{name: torch.cat([getattr(problem, name)] * k) for name in BATCHED})
    x = _bounded(many, x, starts.shape[-1])
    for match, tolerance in ((1.0, 1e-3), (30.0, 1e-3), (MATCH, 1e-9)) if s > 1 else ((MATCH, 1e-9),):
        x = levenberg_marquardt(replace(many, match=match), x, iterations, tolerance)
    cost = replace(many, match=MATCH)(x)[0].square().sum(1)
    best = torch.where(cost.isfinite(), cost, torch.inf).view(k, -1).argmin(0)
    return x.view(k, -1, x.shape[-1])[best, torch.arange(len(best), device=x.device)]


def _bounded(problem: Shooting, x: Tensor, p: int, halvings: int = 8) -> Tensor:
    """Where runs blow up there is no slope to follow: their p constants halved until they do not."""
    for _ in range(halvings):
        blown = ~problem.nodes(x).flatten(1).isfinite().all(1, keepdim=True)
        if not blown.any():
            break
        x = torch.cat((torch.where(blown, x[:, :p] / 2, x[:, :p]), x[:, p:]), 1)
    return x


BATCHED = ("data", "sigma", "prior", "width")
MATCH = 1e3
"""The last weight of jumps between segments, in units of 1 / sigma; they are then about 1e-6 sigma."""


def _refined(rhs, names, problem: Shooting, x: Tensor, t: Tensor, substeps: int, rescale: bool) -> Refined:
    p, d = len(names), len(rhs)
    residuals, jacobian = replace(problem, match=MATCH)(x)
    covariance = _inverse(jacobian.mT @ jacobian)
    misfit, samples = residuals[:, : residuals.shape[1] - p].square().sum(1), t.numel() * d
    sigma, factor = problem.sigma, misfit / max(samples - p - d, 1)
    if rescale:
        sigma, covariance, misfit = sigma * factor[:, None].sqrt(), covariance * factor[:, None, None], misfit / factor
    step = float(t.diff().median()) / substeps
    covariance = covariance[:, : p + d, : p + d]
    initial = x[:, p : p + d]
    return Refined(rhs, names, x[:, :p], initial, covariance, misfit, sigma, samples, float(t[0]), step, factor)


def _inverse(normal: Tensor) -> Tensor:
    """Pseudo-inverses ``(B, n, n)`` by way of unit diagonals; nan where a matrix is not finite."""
    size = normal.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
    scale, eye = size[..., None] * size[:, None], torch.eye(normal.shape[-1]).to(normal)
    scaled = normal / scale + 1e-13 * eye
    good = scaled.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.where(good, torch.linalg.pinv(torch.where(good, scaled, eye), hermitian=True) / scale, torch.nan)
