"""Decoded equations of one-dimensional fields: whether they are any, how far they are off, and what they forecast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.equation.expression import Coord, Expr, Param, leaves
from sciml.equation.readings import Spectral
from sciml.equation.tokens import read
from sciml.grid import Grid
from sciml.prose.field_fit import evenly, expanded, project
from sciml.prose.partial import LENGTH
from sciml.prose.refine import freed
from sciml.prose.solvers import Solver, fitting
from sciml.prose.states import gaussian_process, scaled

Equations = tuple[Expr, ...]


def random_fields(n: int, fields: int, points: int, generator: torch.Generator) -> Tensor:
    """Smooth periodic fields between -1 and 1, float64 ``(n, fields, points)``, to compare equations on."""
    state = scaled(gaussian_process(), -1.0, 1.0)(n * fields, LENGTH, generator)
    return state(Grid(points, 1, Lx=LENGTH).x[0]).unflatten(0, (n, fields))


def right_sides(system: Sequence[Expr], u: Tensor) -> Tensor:
    """du/dt ``(n, fields, points)`` of fields u, derivatives by Fourier modes.

    Raises ``ValueError`` or ``KeyError`` where the equations name other fields or constants without values.
    """
    u = u.double().cpu()
    grid = Grid(u.shape[-1], 1, Lx=LENGTH)
    z = grid.fft(u[:, :, None])
    spectral = Spectral(grid, {f"u_{i}": z[:, i] for i in range(u.shape[1])})
    rows = [grid.ifft(spectral(e))[..., 0, :].expand(len(u), -1) for e in system]
    return torch.stack(rows, 1)


def valid(tokens: Sequence[str], components: int, probes: Tensor) -> Equations | None:
    """The equations that tokens say, or None: another number of them, placeholders, coordinates other than x (no solver
    takes the time), values that are not finite on ``probes``."""
    try:
        system = read(tokens, [f"u_{i}" for i in range(components)])
        if len(system) != components or any(leaves(e, Param) | leaves(e, Coord) - {"x"} for e in system):
            return None
        found = right_sides(system, probes)
    except (ValueError, KeyError, ArithmeticError, RecursionError):
        return None
    return system if bool(found.isfinite().all()) else None


def difference(system: Sequence[Expr], truth: Sequence[Expr], u: Tensor) -> float:
    """``||f - f*|| / ||f*||`` on fields ``u (n, fields, points)``, the largest of the right-hand sides."""
    found, true = right_sides(system, u), right_sides(truth, u)
    size = true.square().sum((0, 2)).sqrt().clamp(min=1e-12)
    return float(((found - true).square().sum((0, 2)).sqrt() / size).amax())


def forecast(systems: Sequence[Equations | None], states: Sequence[Tensor], times: Tensor) -> Tensor:
    """u_0 ``(B, T, points)`` at times of each system from a state of its own ``(fields, points)`` at the first time.

    Systems of one structure are integrated together; nan where there is no system, or where it has no solution. A
    conservation law whose state would change by more than :data:`FASTEST` times itself in a time unit counts as having
    none, as finite volumes would take as many steps.
    """
    points, times = states[0].shape[-1], evenly(times).cpu()
    out = torch.full((len(systems), len(times), points), torch.nan, dtype=torch.float64)
    for rhs, rows, values in structures(systems):
        slow = [k for k, i in enumerate(rows) if _slow(systems[i] or (), states[i])]
        if slow:
            u = torch.stack([states[rows[k]] for k in slow]).double().cpu()
            own = {n: v[slow] for n, v in values.items()}
            out[[rows[k] for k in slow]] = _solved(rhs, own, u, times)
    return out


FASTEST = 2e3


def _slow(system: Equations, state: Tensor) -> bool:
    return bool(right_sides(system, state[None]).abs().max() <= FASTEST * state.abs().max().clamp(min=1e-3))


def _solved(rhs: Equations, values: dict[str, Tensor], u: Tensor, times: Tensor) -> Tensor:
    solver = fitting(rhs)
    try:
        found = solver(rhs, values, lifted(u, solver), times, u.shape[-1], LENGTH)[:, :, 0]
    except (ValueError, KeyError):  # terms that no solver takes
        return u.new_full((len(u), len(times), u.shape[-1]), torch.nan)
    good = found.isfinite().flatten(1).all(1)
    if len(u) > 1 and not bool(good.all()):  # steps are shared, so that one may have spoilt all
        return torch.cat([_solved(rhs, {n: v[[i]] for n, v in values.items()}, u[[i]], times) for i in range(len(u))])
    return torch.where(good[:, None, None], found, torch.nan)


def structures(systems: Sequence[Equations | None]) -> list[tuple[Equations, list[int], dict[str, Tensor]]]:
    """Systems of equal form: right-hand sides with constants, the numbers of the systems, and their constants."""
    rows: dict[Equations, list[int]] = {}
    starts: list[dict[str, float]] = []
    for i, system in enumerate(systems):
        rhs, start = freed(system) if system is not None else ((), {})
        starts.append(start)
        if rhs:
            rows.setdefault(rhs, []).append(i)
    return [
        (rhs, mine, {n: torch.tensor([starts[i][n] for i in mine], dtype=torch.float64) for n in starts[mine[0]]})
        for rhs, mine in rows.items()
    ]


def lifted(u: Tensor, solver: Solver) -> Tensor:
    """States on the points of the mesh of a solver, by their Fourier modes."""
    n = u.shape[-1]
    return expanded(project(u, n // 2 - 1), solver.mesh(n, LENGTH).x[0].to(u), LENGTH)
