r"""Many written flows at once: pseudo-spectral, members in the batch axis, a coefficient tensor instead of numbers.

.. math:: \dot z = L z + f - J(\psi, C z + h \eta), \qquad \psi = S^{-1} z

with operators of every member, the damping of each wavevector exactly and the rest by the classical Runge-Kutta method
(integrating factor, Canuto et al. 2007, "Spectral Methods: Evolution to Complex Geometries", section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Expr, Field, Number, leaves
from sciml.equation.readings import NotLinear, Spectral, evaluated, multipliers
from sciml.grid import Grid
from sciml.prose.flows import coefficients, inversion_row, inverted, layers_of

Place = tuple[int, Expr]
"""Row of a written flow and a term without its coefficient."""


@dataclass(frozen=True)
class Terms:
    """All terms that occur in some written flows of one number of layers."""

    layers: int
    places: tuple[Place, ...]


def tabulated(equations: Sequence[Sequence[Expr]]) -> tuple[Terms, Tensor]:
    """Terms of written flows with numbers, and their coefficients ``(members, terms)``, float64.

    Raises ``ValueError`` where flows have different numbers of layers, or parameters without numbers.
    """
    rows = [coefficients(e) for e in equations]
    layers = {layers_of(e) for e in equations}
    if len(layers) != 1:
        raise ValueError(f"flows of {sorted(layers)} layers cannot be stepped together; group them by layers")
    places = tuple(dict.fromkeys(place for row in rows for place in row))
    if any(not isinstance(c, Number) for row in rows for c in row.values()):
        raise ValueError("a coefficient has no number: substitute all parameters, or use `coefficient_function`")
    values = [[row[p].value if p in row else 0.0 for p in places] for row in rows]  # type: ignore[union-attr]
    return Terms(layers.pop(), places), torch.tensor(values, dtype=torch.float64)


def coefficient_function(structure: Sequence[Expr]) -> tuple[Terms, Callable[[Mapping[str, Tensor]], Tensor]]:
    """Terms of a flow in parameters, and the function from values ``(B,)`` by name to coefficients ``(B, terms)``."""
    found = coefficients(structure)

    def values(params: Mapping[str, Tensor]) -> Tensor:
        like = next(iter(params.values())) if params else torch.zeros(1, dtype=torch.float64)
        columns = [torch.as_tensor(evaluated(c, None, params, {}), dtype=like.dtype) for c in found.values()]
        return torch.stack([c.to(like.device).expand_as(like) for c in columns], -1)

    return Terms(layers_of(structure), tuple(found)), values


@dataclass(frozen=True)
class FlowSolver:
    """Operators of ``B`` members; states are coefficients ``(..., B, layers, *grid.modes)``."""

    grid: Grid
    stretch: Tensor
    """q from psi, ``(B, n, n, *modes)``"""
    invert: Tensor
    linear: Tensor
    """everything linear but the damping, ``(B, n, n, *modes)``, complex"""
    decay: Tensor
    """damping rates that the integrating factor takes care of, ``(B, n, *modes)``, none positive"""
    force: Tensor
    """``(B, n, *modes)``, complex"""
    carried: Tensor
    """what each streamfunction advects, from the state, ``(B, n, n, *modes)``"""
    bottom: Tensor
    """what each streamfunction advects besides, ``(B, n, *modes)``, complex"""

    def psi(self, z: Tensor) -> Tensor:
        return applied(self.invert, z)

    def pv(self, psi: Tensor) -> Tensor:
        """States of streamfunctions given as coefficients."""
        return applied(self.stretch, psi)

    def slow(self, z: Tensor) -> Tensor:
        """dz/dt without the damping."""
        grid, psi = self.grid, self.psi(z)
        ik, il = grid.complex(grid.ik), grid.complex(grid.il)
        along, up, what = grid.ifft(torch.stack([ik * psi, il * psi, applied(self.carried, z) + self.bottom]))
        flux_x, flux_y = grid.fft(torch.stack([up * what, along * what]))
        return applied(self.linear, z) + self.force + (il * flux_y - ik * flux_x)

    def tendency(self, z: Tensor) -> Tensor:
        return self.slow(z) + self.decay * z

    def stepper(self, dt: float) -> Callable[[Tensor], Tensor]:
        """One step of the Runge-Kutta method."""
        half = torch.exp(self.decay * (dt / 2))
        whole, f = half * half, self.slow

        def step(z: Tensor) -> Tensor:
            a = f(z)
            b = f(half * (z + dt / 2 * a))
            c = f(half * z + dt / 2 * b)
            d = f(whole * z + dt * half * c)
            return whole * (z + dt / 6 * a) + dt / 3 * half * (b + c) + dt / 6 * d

        return step

    def run(self, z: Tensor, duration: float, steps: int) -> Tensor:
        """The state after ``steps`` equal steps."""
        step = self.stepper(duration / steps)
        for _ in range(steps):
            z = step(z)
        return z


def applied(M: Tensor, z: Tensor) -> Tensor:
    """Matrices ``(B, n, n, *modes)`` times states ``(..., B, n, *modes)``."""
    return M[..., 0, :, :, :] * z if M.shape[-3] == 1 else (M * z.unsqueeze(-4)).sum(-3)


def flow_solver(terms: Terms, values: Tensor, grid: Grid, eta: Tensor | None = None) -> FlowSolver:
    """Solver of members with coefficients ``values (B, terms)`` and maps ``eta (B, ny, nx)`` (or ``(ny, nx)``).

    Raises ``ValueError`` for terms that it cannot step; :func:`~sciml.prose.flows.as_equation` steps all others.
    """
    n, c = terms.layers, values.to(device=grid.device, dtype=torch.float64)
    symbols = [_symbol(row, e, n, grid) for row, e in terms.places]
    made = _Operators(n, c, grid)
    for j, ((row, e), symbol) in enumerate(zip(terms.places, symbols, strict=True)):
        made.add(row, e, symbol, c[:, j])
    invert = inverted(made.stretch)
    linear = made.of_q + torch.einsum("bij...,bjk...->bik...", made.of_psi, invert.to(made.of_psi.dtype))
    diagonal = torch.stack([made.of_q[:, i, i].real for i in range(n)], 1).clamp(max=0)
    linear = linear - torch.stack([_at(i, n, diagonal[:, i]) for i in range(n)], 1)
    carried = made.of_carried + torch.einsum("bij,bjk...->bik...", made.psi_carried, invert)
    bottom = torch.zeros_like(made.force)
    if made.h.any():
        if eta is None:
            raise ValueError("these flows have topography: give the map eta")
        bottom = made.h[..., None, None] * grid.fft(grid.real(eta)).to(made.force.dtype).unsqueeze(-3)
    real, cplx = grid.real, grid.complex
    return FlowSolver(
        grid, real(made.stretch), real(invert), cplx(linear), real(diagonal), cplx(made.force), real(carried),
        cplx(bottom),
    )  # fmt: skip


def _at(i: int, n: int, diagonal: Tensor) -> Tensor:
    """Row ``(B, n, *modes)`` that has ``diagonal`` in column ``i``."""
    return torch.stack([diagonal if j == i else torch.zeros_like(diagonal) for j in range(n)], 1)


class _Operators:
    """Sums of the terms of each kind; all float64 or complex128."""

    def __init__(self, n: int, c: Tensor, grid: Grid):
        self.n, self.grid = n, grid
        real = c.new_zeros(c.shape[0], n, n, *grid.modes)
        self.stretch = self.of_carried = real
        self.of_q = self.of_psi = real.to(torch.complex128)
        self.force = self.of_q[:, 0]
        self.psi_carried, self.h = c.new_zeros(c.shape[0], n, n), c.new_zeros(c.shape[0], n)

    def add(self, row: int, e: Expr, symbol, c: Tensor) -> None:
        unit = torch.eye(self.n, dtype=torch.float64, device=c.device)
        wide = c[:, None, None, None, None]
        if row >= self.n:
            self.stretch = self.stretch + wide * unit[row - self.n][:, None, None, None] * symbol
        elif isinstance(symbol, dict):
            for name, rows in symbol.items():
                setattr(self, name, getattr(self, name) + wide * unit[row][:, None, None, None] * rows)
        elif isinstance(symbol, Tensor):
            self.force = self.force + wide[..., 0] * unit[row][:, None, None] * symbol
        else:
            self._advect(row, str(symbol), c, unit)

    def _advect(self, row: int, what: str, c: Tensor, unit: Tensor) -> None:
        if what == "eta":
            self.h = self.h + c[:, None] * unit[row]
            return
        pair = torch.outer(unit[row], unit[int(what[-1]) - 1])
        if what.startswith("psi"):
            self.psi_carried = self.psi_carried + c[:, None, None] * pair
        else:
            self.of_carried = self.of_carried + c[:, None, None, None, None] * pair[..., None, None]


def _symbol(row: int, e: Expr, n: int, grid: Grid):
    """What a term without its coefficient is: multipliers, a fixed forcing, or the name of what psi advects."""
    psi, q = [[f"{s}{i + 1}" for i in range(n)] for s in ("psi", "q")]
    if row >= n:
        return inversion_row(e, psi, grid)
    if not leaves(e):
        return Spectral(grid, {})(e).to(torch.complex128)
    if isinstance(e, Apply) and e.op == "J":
        a, b = e.args
        allowed = {*psi, *q, "eta"}
        if a == Field(psi[row]) and isinstance(b, Field) and b.name in allowed:
            return b.name
        raise ValueError(f"row {row + 1} may have J(psi{row + 1}, f) with f one of {sorted(allowed)}, not {e}")
    try:
        found = multipliers(e, grid)
    except NotLinear as error:
        raise ValueError(f"the batched solver cannot step the term {e}: {error}") from None
    if unknown := set(found) - {*psi, *q}:
        raise ValueError(f"the term {e} names unknown fields {sorted(unknown)}")
    zero = torch.zeros(grid.modes, dtype=torch.complex128, device=grid.device)
    rows = {kind: [found.get(name, zero) + zero for name in names] for kind, names in (("of_q", q), ("of_psi", psi))}
    return {kind: torch.stack(r) for kind, r in rows.items()}
