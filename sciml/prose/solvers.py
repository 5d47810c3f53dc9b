"""Solutions of many equations of one form at once, each sample with its own parameters.

A solver reads the right-hand sides: the spectral one takes linear terms with constant coefficients exactly, all others
by Runge-Kutta; the finite-volume one takes fluxes of conservation laws, whose solutions have shocks or fronts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Expr, Field, Number, Param, dx, parts, wrap
from sciml.equation.readings import NotLinear, Spectral, multipliers, pointwise
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
        mesh = self.mesh(points, length)
        if u.ndim != 3 or u.shape[1:] != (len(rhs), mesh.nx):
            raise ValueError(f"states must have shape (n, {len(rhs)}, {mesh.nx}), got {tuple(u.shape)}")
        gaps = t.diff()
        if len(t) < 2 or not gaps[0] > 0 or not torch.allclose(gaps, gaps[0], rtol=1e-6, atol=0):
            raise ValueError("times must be evenly spaced and grow, two at least")
        return self.solve(rhs, params, u, t, points, length)


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


def split(rhs: Sequence[Expr], grid: Grid, params: Mapping[str, Tensor]) -> tuple[Tensor, list[list[Expr]]]:
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


def tendency(terms: list[list[Expr]], grid: Grid, params: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
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
def finite_volume(refine: int = 4, courant: float = 0.5) -> Solver:
    """Cell averages of one field in :math:`u_t = -f(u)_x + g(u)_{xx}`, kept to the last digit in sum.

    WENO5 reconstruction (Jiang & Shu 1996, JCP 126, 202), local Lax-Friedrichs fluxes, central differences of g, and
    the third-order strong-stability-preserving Runge-Kutta method (Shu & Osher 1988, JCP 77, 439, eq. 2.18), which keeps
    diffusion positive. The step is that of the fastest sample.

    Parameters
    ----------
    refine : cells of the mesh for each cell of the result, which holds their averages
    courant : step as part of what the fastest wave needs to cross a cell, or of the limit of diffusion
    """

    def mesh(points: int, length: float, device="cpu") -> Grid:
        return Grid(points * refine, 1, Lx=length, device=device)

    def solve(rhs, params, u, t, points, length):
        h, dt = length / points / refine, float(t[-1] - t[0]) / (len(t) - 1)
        f, rates = law(rhs, {name: v[:, None] for name, v in params.items()}, h)
        u = u[:, 0]
        out = [u]
        for _ in range(len(t) - 1):
            advective, diffusive = rates(u)
            steps = max(1, math.ceil(dt * (advective / h + 2 * diffusive / h**2) / courant))
            for _ in range(steps):
                u = ssp3(f, u, dt / steps)
            out.append(u)
        return torch.stack(out, 1).unflatten(-1, (points, refine)).mean(-1)[:, :, None]

    return Solver(mesh, solve)


def ssp3(f: Callable[[Tensor], Tensor], u: Tensor, dt: float) -> Tensor:
    """One step of the Runge-Kutta method of Shu & Osher (1988), eq. 2.18."""
    a = u + dt * f(u)
    b = 0.75 * u + 0.25 * (a + dt * f(a))
    return u / 3 + 2 / 3 * (b + dt * f(b))


def law(rhs: Sequence[Expr], params: Mapping[str, Tensor], h: float):
    """Tendency of cell averages ``(n, cells)`` and ``u -> (speed, diffusivity)``, the largest of all samples."""
    if len(rhs) != 1:
        raise ValueError(f"finite volumes are for one conserved field, got {len(rhs)}; use spectral")
    flux, potential = fluxes(rhs[0])

    def value(e: Expr, u: Tensor, slope: float = 1.0) -> Tensor:
        return torch.as_tensor(pointwise(e, lambda _, m, n: slope if m else u, params)) + torch.zeros_like(u)

    def f(u: Tensor) -> Tensor:
        faces = 0.0
        s = windows(u)
        if flux != Number(0):
            left, right = weno5(*s[:5]), weno5(*s[:0:-1])
            speed = torch.maximum(value(dx(flux), left).abs(), value(dx(flux), right).abs())
            faces = 0.5 * (value(flux, left) + value(flux, right) - speed * (right - left))
        if potential != Number(0):
            g = value(potential, u)
            g = torch.cat([g[:, -1:], g, g[:, :1]], -1)
            faces = faces - g.diff() / h
        return -faces.diff() / h  # type: ignore[union-attr]

    return f, lambda u: tuple(float(value(dx(e), u).abs().amax()) for e in (flux, potential))


def fluxes(e: Expr) -> tuple[Expr, Expr]:
    """f and g of ``-dx(f) + lap(g)``; ``ValueError`` where a right-hand side is anything else."""
    found = {"dx": wrap(0), "lap": wrap(0)}
    for term in parts(e, "add"):
        inner = [a for a in parts(term, "mul") if isinstance(a, Apply)]
        rest = [a for a in parts(term, "mul") if not isinstance(a, Apply)]
        if len(inner) != 1 or inner[0].op not in found or not all(isinstance(a, Number | Param) for a in rest):
            raise ValueError(f"{term} is not a number times dx or lap of a function of u_0; use spectral")
        found[inner[0].op] = found[inner[0].op] + math.prod(rest, start=wrap(1)) * inner[0].args[0]
    return -found["dx"], found["lap"]


def windows(u: Tensor) -> list[Tensor]:
    """For each of the ``cells + 1`` faces, the six cells around it from left to right."""
    wide = torch.cat([u[:, -3:], u, u[:, :3]], -1)
    return [wide[:, k : k + u.shape[-1] + 1] for k in range(6)]


def weno5(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
    """Value at the face between the cells c and d from five cell averages; Jiang & Shu (1996), eqs 2.8-2.10, 3.1."""
    first = 13 / 12 * (a - 2 * b + c) ** 2 + 0.25 * (a - 4 * b + 3 * c) ** 2
    second = 13 / 12 * (b - 2 * c + d) ** 2 + 0.25 * (b - d) ** 2
    third = 13 / 12 * (c - 2 * d + e) ** 2 + 0.25 * (3 * c - 4 * d + e) ** 2
    w = [weight / (1e-6 + beta) ** 2 for weight, beta in ((0.1, first), (0.6, second), (0.3, third))]
    p = 2 * a - 7 * b + 11 * c, 5 * c - b + 2 * d, 2 * c + 5 * d - e
    return (w[0] * p[0] + w[1] * p[1] + w[2] * p[2]) / (6 * (w[0] + w[1] + w[2]))
