"""Constants and initial states of one-dimensional fields by least squares through a solver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.base import substituted
from sciml.equation.expression import Expr, Param, leaves
from sciml.prose.partial import LENGTH
from sciml.prose.shooting import differences, levenberg_marquardt
from sciml.prose.solvers import Solver, check, fitting
from sciml.prose.wiener import noise_level, rate

MESHES = ((1, 2), (2, 4))
"""Points of the mesh for each point of the data and steps between frames, from coarse to fine."""
MODES = (3, 24)
"""Fewest and most waves of an initial state."""
REACH = 4.0
"""Constants stay within so many times their start values, and states within so many times the data."""


@dataclass(frozen=True)
class FieldFit:
    """Fits of one structure to B windows.

    Parameters
    ----------
    rhs, names : right-hand sides, and the constants in them in the order of ``constants``
    constants, std : estimates ``(B, P)`` and their standard errors, for noise that is white
    coefficients : Fourier coefficients ``(B, fields, 2 waves + 1)`` at the time of the first frame
    misfit : root mean square of what is left over the noise level ``(B,)``, near 1 where the structure is right
    """

    rhs: tuple[Expr, ...]
    names: tuple[str, ...]
    constants: Tensor
    std: Tensor
    coefficients: Tensor
    misfit: Tensor
    points: int
    length: float
    first: float = 0.0
    """time of the first frame"""

    def written(self, b: int = 0) -> tuple[Expr, ...]:
        """The right-hand sides of window b with numbers."""
        values = dict(zip(self.names, self.constants[b].tolist(), strict=True))
        return tuple(substituted(e, values) for e in self.rhs)

    def predict(self, times: Tensor, solver: Solver | None = None) -> Tensor:
        """Fields ``(B, T, fields, points)`` at evenly spaced times, the first of them that of the first frame.

        By the solver that :func:`~sciml.prose.solvers.fitting` chooses unless one is given. Raises ``ValueError`` for
        other times.
        """
        if abs(float(times[0]) - self.first) > 1e-3 * abs(float(times[-1]) - self.first):
            raise ValueError(f"times must begin with that of the first frame, {self.first:g}, got {float(times[0]):g}")
        solver, times = solver or fitting(self.rhs), evenly(times)
        mesh = solver.mesh(self.points, self.length).x[0].to(self.coefficients)
        params = dict(zip(self.names, self.constants.unbind(1), strict=True))
        return solver(self.rhs, params, expanded(self.coefficients, mesh, self.length), times, self.points, self.length)


def fit_fields(
    rhs: Sequence[Expr], start: Mapping[str, float | Tensor], t: Tensor, u: Tensor, *, length: float = LENGTH,
    prior: float = math.inf, meshes: Sequence[tuple[int, int]] = MESHES, iterations: int = 12, tolerance: float = 1e-4,
) -> FieldFit:  # fmt: skip
    r"""Least-squares constants of ``rhs`` and initial states from noisy frames ``u (B, n, points)`` of u_0.

    Minimises :math:`\sum_{ij} (u_0(x_i, t_j; c, a) - u_{ij})^2 / \sigma^2` over the constants c and the Fourier
    coefficients a of all fields at the first time, as many as stand out of the noise, by the method of Levenberg and
    Marquardt; the Jacobian is of differences, all columns in one batch. Fields that are not seen (u_1 of second order)
    start from the rate of u_0. The mesh is the coarsest of ``meshes`` (points for each point, steps between frames)
    that agrees with the next one to a fiftieth of the noise, or the last.

    Parameters
    ----------
    start : values of the parameters of ``rhs``, numbers or ``(B,)``, such as those of a decoded equation
    t : evenly spaced times ``(n,)``
    prior : standard deviation of the start values as a part of them, which counts like data; unknown without it

    Raises
    ------
    ValueError : for windows that are not finite or do not belong to the times, constants without start values, and
        where no window has a solution from these
    """
    rhs, t, u = tuple(rhs), evenly(t), u.double()
    _check(rhs, start, t, u)
    names = tuple(start)
    given = [torch.as_tensor(v).to(u).expand(len(u)) for v in start.values()]
    first = torch.stack(given, 1) if given else u.new_zeros(len(u), 0)
    # numbers of three digits say no less than this of a field in single precision
    sigma = torch.maximum(noise_level(u), 1e-5 * u.square().mean((1, 2), keepdim=True).sqrt())
    states = project(first_state(t, u, len(rhs)), waves_kept(u, sigma))
    problem = _meshed(rhs, names, t, u, sigma, first, states, prior, meshes, length)
    if not bool(problem.run(problem.start).isfinite().flatten(1).all(1).any()):
        raise ValueError("the equations have no solution over the window from their start values; use others")
    x = levenberg_marquardt(problem, problem.start, iterations, tolerance)
    return replace(_fitted(problem, x), first=float(t[0]))


def evenly(t: Tensor) -> Tensor:
    """The same times in double precision, as evenly spaced as solvers want them; ``ValueError`` where they are not."""
    even = torch.linspace(float(t[0]), float(t[-1]), len(t), dtype=torch.float64, device=t.device)
    if len(t) < 2 or not t[-1] > t[0] or bool((even - t).abs().max() > 1e-3 * (even[1] - even[0])):
        raise ValueError("times must be evenly spaced and grow, two at least")
    return even


def first_state(t: Tensor, u: Tensor, fields: int) -> Tensor:
    """Estimates ``(B, fields, points)`` at the first frame, noisy."""
    states = [u[:, 0], rate(t, u, 0)]
    return torch.stack([*states, *[torch.zeros_like(u[:, 0])] * (fields - 2)][:fields], 1)


def waves_kept(u: Tensor, sigma: Tensor) -> int:
    """The shortest wave of the first frames of any window that noise alone would not make, and one more."""
    power = torch.fft.rfft(u[:, 0], norm="forward").abs().square()
    found = (power > 12 * sigma[:, 0].square() / u.shape[2]).any(0).nonzero()
    return min(max(int(found.amax()) + 1 if len(found) else 0, MODES[0]), MODES[1], u.shape[2] // 4)


def project(states: Tensor, waves: int) -> Tensor:
    """Coefficients ``(..., 2 waves + 1)`` of 1, cosines and sines of points, the first at half a cell."""
    modes = torch.fft.rfft(states, norm="forward")[..., : waves + 1]
    phase = torch.pi / states.shape[-1] * torch.arange(waves + 1).to(states)
    modes = modes * torch.exp(-1j * phase)
    return torch.cat([modes.real[..., :1], 2 * modes.real[..., 1:], -2 * modes.imag[..., 1:]], -1)


def expanded(coefficients: Tensor, x: Tensor, length: float) -> Tensor:
    """Values ``(..., len(x))`` at points x of :func:`project`'s coefficients."""
    waves = coefficients.shape[-1] // 2
    phase = 2 * torch.pi / length * torch.arange(1, waves + 1).to(x)[:, None] * x
    basis = torch.cat([torch.ones_like(x)[None], phase.cos(), phase.sin()])
    return coefficients @ basis.to(coefficients)


@dataclass(frozen=True)
class Problem:
    """Residuals and Jacobian in unknowns ``(B, P + D (2 waves + 1))``: constants over ``scale``, and coefficients."""

    rhs: tuple[Expr, ...]
    names: tuple[str, ...]
    t: Tensor
    data: Tensor
    sigma: Tensor
    scale: Tensor
    start: Tensor
    prior: float
    solver: Solver
    length: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p, eye = len(self.names), torch.eye(x.shape[1]).to(x)
        values, slopes = differences(self.run, x, eye)
        residuals = ((values - self.data) / self.sigma).flatten(1), (x - self.start)[:, :p] / self.prior
        rows = (slopes / self.sigma).flatten(2).movedim(0, -1), (eye[:p] / self.prior).expand(len(x), -1, -1)
        return torch.cat(residuals, 1), torch.cat(rows, 1)

    def coefficients(self, x: Tensor) -> Tensor:
        """Of the initial states, ``(..., D, 2 waves + 1)``."""
        return x[:, len(self.names) :].unflatten(1, (len(self.rhs), -1))

    def run(self, x: Tensor) -> Tensor:
        """u_0 at all frames ``(k B, n, points)``, nan where the unknowns are beyond reach."""
        k, p = len(x) // len(self.start), len(self.names)
        mesh = self.solver.mesh(self.data.shape[-1], self.length).x[0].to(x)
        states, top = expanded(self.coefficients(x), mesh, self.length), self.data.abs().amax((1, 2)).repeat(k)
        good = (x[:, :p].abs() <= REACH).all(1) & (states[:, 0].abs() <= REACH * top[:, None]).all(1)
        if not bool(good.any()):
            return self.data.new_full((len(x), *self.data.shape[1:]), torch.nan)
        # others would only make the steps short
        other = good.nonzero()[0]
        constants = torch.where(good[:, None], x[:, :p], x[other, :p]) * self.scale.repeat(k, 1)
        params = dict(zip(self.names, constants.unbind(1), strict=True))
        states = torch.where(good[:, None, None], states, states[other])
        out = self.solver(self.rhs, params, states, self.t, self.data.shape[-1], self.length)[:, :, 0]
        return torch.where(good[:, None, None], out, torch.nan)


def _check(rhs: tuple[Expr, ...], start: Mapping, t: Tensor, u: Tensor) -> None:
    if u.ndim != 3 or u.shape[1] != len(t):
        raise ValueError(f"windows must have shape (B, {len(t)}, points) for {len(t)} times, got {tuple(u.shape)}")
    if not bool(u.isfinite().all()):
        raise ValueError("the windows are not finite everywhere; leave out such windows, or fill the gaps")
    check(rhs, start)
    if missing := set(start) - set().union(*(leaves(e, Param) for e in rhs)):
        raise ValueError(f"the equations have no constants {sorted(missing)}; leave their start values out")
    if bad := [n for n, v in start.items() if not bool(torch.as_tensor(v).isfinite().all())]:
        raise ValueError(f"the start values of {bad} are not finite; give numbers")


def _meshed(rhs, names, t, u, sigma, first, states, prior, meshes, length) -> Problem:
    """The problem on the coarsest mesh that is fine enough."""
    scale = torch.where(first == 0, 1.0, first.abs())
    start = torch.cat([first / scale, states.flatten(1)], 1)
    made = [Problem(rhs, names, t, u, sigma, scale, start, prior, fitting(rhs, *mesh), length) for mesh in meshes]
    before = None
    for problem, coarser in zip(made, [None, *made], strict=False):
        now = problem.run(start)
        if before is not None and coarser is not None:
            off = ((now - before) / sigma).square().mean((1, 2)).sqrt()
            if bool((off < 0.02).all()):  # false for nan
                return coarser
        before = now
    return made[-1]


def _fitted(problem: Problem, x: Tensor) -> FieldFit:
    residuals, jacobian = problem(x)
    p, columns, seen = len(problem.names), jacobian.shape[2], problem.data[0].numel()
    misfit = (residuals[:, :seen].square().sum(1) / max(seen - columns, 1)).sqrt()
    normal = torch.nan_to_num(jacobian.mT @ jacobian)
    size = normal.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
    inverse = torch.linalg.pinv(normal / (size[..., None] * size[:, None]), hermitian=True)
    std = inverse.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt() / size * misfit[:, None]
    constants, std = x[:, :p] * problem.scale, std[:, :p] * problem.scale
    return FieldFit(
        problem.rhs, problem.names, constants, std, problem.coefficients(x), misfit, problem.data.shape[-1],
        problem.length,
    )  # fmt: skip
