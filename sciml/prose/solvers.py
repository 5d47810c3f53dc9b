"""Solutions of many equations of one form at once, each sample with its own parameters.

A solver reads the right-hand sides: the spectral one takes linear terms with constant coefficients exactly, all others
by Runge-Kutta; the finite-volume one takes fluxes of conservation laws, whose solutions have shocks or fronts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Coord, Expr, Field, Number, Param, dx, expand, leaves, parts, wrap
from sciml.equation.readings import NotLinear, Spectral, evaluated, multipliers
from sciml.grid import Grid
from sciml.step import phi_functions

Solve = Callable[[Sequence[Expr], Mapping[str, Tensor], Tensor, Tensor, int, float], Tensor]


@dataclass(frozen=True)
class Solver:
    """``solver(rhs, params, u, t, points, length) -> (n, times, fields, points)``.

    Parameters
    ----------
    mesh : ``(points, length)`` to the grid that the states ``u (n, fields, mesh points)`` are given on
    solve : the method; ``params`` are ``(n,)``, ``t`` are evenly spaced times that start at the time of ``u``
    """

    mesh: Callable[..., Grid]
    solve: Solve

    def __call__(self, rhs, params, u, t, points, length) -> Tensor:
        check(rhs, params)
        mesh = self.mesh(points, length)
        if u.ndim != 3 or u.shape[1:] != (len(rhs), mesh.nx):
            raise ValueError(f"states must have shape (n, {len(rhs)}, {mesh.nx}), got {tuple(u.shape)}")
        gaps = t.diff()
        if len(t) < 2 or not gaps[0] > 0 or not torch.allclose(gaps, gaps[0], rtol=1e-6, atol=0):
            raise ValueError("times must be evenly spaced and grow, two at least")
        return self.solve(rhs, params, u, t, points, length)


def fitting(rhs: Sequence[Expr], refine: int = 4, steps: int = 8) -> Solver:
    """A solver for any right-hand sides, such as decoded ones, that looks for a conservation law without viscosity.

    Finite volumes where one field has fluxes only, nonlinear ones among them, and no ``lap`` of the field itself; else
    the spectral solver, by default on a mesh that resolves PROSE's viscous shocks.
    """
    try:
        _, potential = fluxes(rhs[0])
    except ValueError:
        return spectral(refine, steps)
    smooth = any(isinstance(parts(term, "mul")[-1], Field) for term in parts(potential, "add"))
    linear = all(isinstance(parts(term, "mul")[-1].args[0], Field) for term in parts(rhs[0], "add"))
    return spectral(refine, steps) if len(rhs) > 1 or smooth or linear else finite_volume(refine)


def check(rhs: Sequence[Expr], params: Mapping[str, Any]) -> None:
    """``ValueError`` for fields that are not stepped and parameters that have no values."""
    known = {f"u_{i}" for i in range(len(rhs))}
    for e in rhs:
        if unknown := leaves(e) - known:
            raise ValueError(f"{e} names {sorted(unknown)}; the fields of {len(rhs)} equations are {sorted(known)}")
        if missing := leaves(e, Param) - set(params):
            raise ValueError(f"{e} has parameters {sorted(missing)} without values; give them, (n,) each")


# -- spectral --------------------------------------------------------------------------------------------------------
def spectral(refine: int = 1, steps: int = 4) -> Solver:
    """Fourier modes with products dealiased by the 2/3 rule, in time ETDRK4 (Cox & Matthews 2002, eqs 26-29).

    Parameters
    ----------
    refine : points of the mesh for each point of the result
    steps : steps between two times
    """

    def mesh(points: int, length: float, device="cpu") -> Grid:
        return Grid(points * refine, 1, Lx=length, x0=length / points / 2, device=device)

    def solve(rhs, params, u, t, points, length):
        grid = mesh(points, length, u.device)
        columns = {name: v[:, None, None] for name, v in params.items()}
        linear, rest = split(rhs, grid, columns)
        step = exponential(linear, tendency(rest, grid, columns), float(t[-1] - t[0]) / (len(t) - 1) / steps)
        z = grid.fft(u[:, :, None])
        out = [u[..., ::refine]]
        for _ in range(len(t) - 1):
            for _ in range(steps):
                z = step(z)
            out.append(grid.ifft(z)[:, :, 0, ::refine])
        return torch.stack(out, 1)

    return Solver(mesh, solve)


def split(rhs: Sequence[Expr], grid: Grid, params: Mapping[str, Any]) -> tuple[Tensor, list[list[Expr]]]:
    """Linear operator ``(fields, fields, n, *modes)`` and, for each field, the terms that are not part of it."""
    n = max((len(v) for v in params.values()), default=1)
    L = torch.zeros(len(rhs), len(rhs), n, *grid.modes, dtype=torch.complex128, device=grid.device)
    rest: list[list[Expr]] = [[] for _ in rhs]
    for i, e in enumerate(rhs):
        for term in parts(e, "add"):
            try:
                symbol = multipliers(term, grid, params)
            except NotLinear:
                rest[i].append(term)
                continue
            for name, m in symbol.items():
                L[i, int(name.removeprefix("u_"))] += m
    return L, rest


def tendency(terms: list[list[Expr]], grid: Grid, params: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """``z -> dz/dt`` of the given terms, coefficients ``(n, fields, *modes)``."""

    def f(z: Tensor) -> Tensor:
        read = Spectral(grid, {f"u_{i}": z[:, i] for i in range(z.shape[1])}, params)
        rows = [sum((read(e) for e in row), torch.zeros_like(z[:, 0])) for row in terms]
        return torch.stack(rows, 1)

    return f if any(terms) else torch.zeros_like


def exponential(L: Tensor, N: Callable[[Tensor], Tensor], dt: float) -> Callable[[Tensor], Tensor]:
    """One ETDRK4 step of ``dz/dt = L z + N(z)`` with an operator for each sample."""
    E2, P, _, _ = phi_functions(L * (dt / 2))
    E, phi1, phi2, phi3 = phi_functions(L * dt)
    P, A = P * (dt / 2), dt * (phi1 - 3 * phi2 + 4 * phi3)
    B, C = dt * (2 * phi2 - 4 * phi3), dt * (4 * phi3 - phi2)

    def step(z: Tensor) -> Tensor:
        if N is torch.zeros_like:
            return mix(E, z)
        n0, carried = N(z), mix(E2, z)
        a = carried + mix(P, n0)
        na = N(a)
        nb = N(carried + mix(P, na))
        nc = N(mix(E2, a) + mix(P, 2 * nb - n0))
        return mix(E, z) + mix(A, n0) + mix(B, na + nb) + mix(C, nc)

    return step


def mix(M: Tensor, z: Tensor) -> Tensor:
    """Matrices ``(m, fields, n, *modes)`` times states ``(n, fields, *modes)``."""
    if len(M) == 1:
        return M[0, 0][:, None] * z
    return torch.stack([(row.transpose(0, 1) * z).sum(1) for row in M], 1)


# -- finite volumes --------------------------------------------------------------------------------------------------
def finite_volume(refine: int = 4, courant: float = 0.8) -> Solver:
    r"""Cell averages of one field in :math:`u_t = -f(u)_x + g(u)_{xx}`, kept to rounding in sum.

    WENO5 reconstruction (Jiang & Shu 1996, JCP 126, 202), local Lax-Friedrichs fluxes, central differences of g. In
    time the third-order strong-stability-preserving Runge-Kutta method (Shu & Osher 1988, JCP 77, 439, eq. 2.18), or
    RKL2 where there is diffusion only (:func:`rkl2`). The step is that of the fastest sample.

    Parameters
    ----------
    refine : cells of the mesh for each cell of the result, which holds their averages
    courant : step as part of what the fastest wave needs to cross a cell
    """

    def mesh(points: int, length: float, device="cpu") -> Grid:
        return Grid(points * refine, 1, Lx=length, device=device)

    def solve(rhs, params, u, t, points, length):
        h, dt = length / points / refine, float(t[-1] - t[0]) / (len(t) - 1)
        f, rates = law(rhs, {name: v[:, None] for name, v in params.items()}, h)
        u = u[:, 0]
        out = [u]
        for _ in range(len(t) - 1):
            u = march(f, u, dt, *rates(u), courant)
            out.append(u)
        return torch.stack(out, 1).unflatten(-1, (points, refine)).mean(-1)[:, :, None]

    return Solver(mesh, solve)


STEPS = 50_000
"""Explicit steps between two times, beyond which there is no solution: decoded equations may hold any power."""


def march(f, u: Tensor, dt: float, advective: float, diffusive: float, courant: float) -> Tensor:
    """The time ``dt`` in steps that are stable where waves cross ``advective`` cells per time, and explicit steps of
    diffusion may be no longer than ``1 / diffusive``; nan where that takes more than :data:`STEPS`."""
    if not dt * (advective + diffusive) / courant < STEPS:
        return torch.full_like(u, math.nan)
    if advective == 0:
        steps = 4
        stages = math.ceil((math.sqrt(9 + 16 * dt * diffusive / steps) - 1) / 2)
        advance, stages = (lambda f, u, dt: rkl2(f, u, dt, stages)), max(3, stages | 1)
    else:
        steps, advance = math.ceil(dt * (advective + diffusive) / courant), ssp3
    for _ in range(steps):
        u = advance(f, u, dt / steps)
    return u


def ssp3(f: Callable[[Tensor], Tensor], u: Tensor, dt: float) -> Tensor:
    """One step of the Runge-Kutta method of Shu & Osher (1988), eq. 2.18."""
    a = u + dt * f(u)
    b = 0.75 * u + 0.25 * (a + dt * f(a))
    return u / 3 + 2 / 3 * (b + dt * f(b))


def rkl2(f: Callable[[Tensor], Tensor], u: Tensor, dt: float, stages: int) -> Tensor:
    """One second-order Runge-Kutta-Legendre step of diffusion, ``(stages^2 + stages - 2) / 4`` explicit ones long.

    Meyer, Balsara & Aslam (2014), JCP 257, 594, eqs 16-18; an odd number of stages damps the shortest waves.
    """
    b = [1 / 3, 1 / 3] + [(j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, stages + 1)]
    w, start = 4 / (stages**2 + stages - 2), f(u)
    before, now = u, u + b[1] * w * dt * start
    for j in range(2, stages + 1):
        mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], (1 - j) / j * b[j] / b[j - 2]
        pushed = w * mu * dt * (f(now) - (1 - b[j - 1]) * start)
        before, now = now, mu * now + nu * before + (1 - mu - nu) * u + pushed
    return now


def law(rhs: Sequence[Expr], params: Mapping[str, Any], h: float):
    """Tendency of cell averages ``(n, cells)``, and ``u -> (cells crossed, steps of diffusion)`` per time at most."""
    if len(rhs) != 1:
        raise ValueError(f"finite volumes are for one conserved field, got {len(rhs)}; use spectral")
    flux, potential = (function(e, params) for e in fluxes(rhs[0]))
    speed, diffusivity = (function(dx(e), params) for e in fluxes(rhs[0]))

    def f(u: Tensor) -> Tensor:
        faces = torch.zeros_like(u[:, :1])
        if flux is not None and speed is not None:
            s = windows(u)
            left, right = weno5(*s[:5]), weno5(*s[:0:-1])
            fastest = torch.maximum(speed(left).abs(), speed(right).abs())
            faces = 0.5 * (flux(left) + flux(right) - fastest * (right - left))
        if potential is not None:
            g = potential(u)
            faces = faces - torch.cat([g[:, -1:], g, g[:, :1]], -1).diff() / h
        return -faces.diff() / h

    def rates(u: Tensor) -> tuple[float, float]:
        fastest, largest = (0.0 if e is None else float(e(u).abs().amax()) for e in (speed, diffusivity))
        return fastest / h, 2 * largest / h**2

    return f, rates


def function(e: Expr, params: Mapping[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """``u -> e``, or the derivative of f where e is ``dx(f)``; None for zero."""
    expanded = expand(e)
    if expanded == Number(0):
        return None

    def value(u: Tensor) -> Tensor:
        out = evaluated(expanded, lambda _, m, n: 1.0 if m else u, params, {})
        return out if isinstance(out, Tensor) and out.shape == u.shape else out + torch.zeros_like(u)

    return value


def fluxes(e: Expr) -> tuple[Expr, Expr]:
    """f and g of ``-dx(f) + lap(g)``, functions of u_0; ``ValueError`` where a right-hand side is anything else."""
    found = {"dx": wrap(0), "lap": wrap(0)}
    for term in parts(e, "add"):
        inner = [a for a in parts(term, "mul") if isinstance(a, Apply)]
        rest = [a for a in parts(term, "mul") if not isinstance(a, Apply)]
        plain = len(inner) == 1 and all(isinstance(a, Number | Param) for a in rest)
        if not plain or inner[0].op not in found or not algebraic(inner[0].args[0]):
            raise ValueError(f"{term} is not a number times dx or lap of a function of u_0; use spectral")
        found[inner[0].op] = found[inner[0].op] + math.prod(rest, start=wrap(1)) * inner[0].args[0]
    return -found["dx"], found["lap"]


def algebraic(e: Expr) -> bool:
    """Whether an expression has no derivatives and no coordinates."""
    if isinstance(e, Apply):
        return e.op not in ("dx", "dy", "lap", "J", "mean_x") and all(map(algebraic, e.args))
    return not isinstance(e, Coord)


def windows(u: Tensor) -> list[Tensor]:
    """For each of the ``cells + 1`` faces, the six cells around it from left to right."""
    wide = torch.cat([u[:, -3:], u, u[:, :3]], -1)
    return [wide[:, k : k + u.shape[-1] + 1] for k in range(6)]


def weno5(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
    """Value at the face between the cells c and d from five cell averages; Jiang & Shu (1996), eqs 2.8-2.10, 3.1."""
    first = 13 / 12 * (a - 2 * b + c).square() + 0.25 * (a - 4 * b + 3 * c).square()
    second = 13 / 12 * (b - 2 * c + d).square() + 0.25 * (b - d).square()
    third = 13 / 12 * (c - 2 * d + e).square() + 0.25 * (3 * c - 4 * d + e).square()
    w = [weight / (1e-6 + beta).square() for weight, beta in ((0.1, first), (0.6, second), (0.3, third))]
    p = 2 * a - 7 * b + 11 * c, 5 * c - b + 2 * d, 2 * c + 5 * d - e
    return (w[0] * p[0] + w[1] * p[1] + w[2] * p[2]) / (6 * (w[0] + w[1] + w[2]))
