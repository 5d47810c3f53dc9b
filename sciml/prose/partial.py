r"""The twenty families of partial differential equations of PROSE-PDE, on the periodic interval [0, 2].

Liu, Sun, He, Pickering, Yang & Schaeffer (2024), *PROSE-PDE*, arXiv 2404.12355, table 1 and its released code: heat,
porous medium, advection, Korteweg-de Vries, Fokker-Planck, four diffusion-reaction equations, six conservation laws
with viscosity or without (Burgers, sine, cubic flux), viscous linear flux, Cahn-Hilliard, wave, Klein-Gordon and
sine-Gordon.

**Time.** Every family runs on t in [0, 2]: physical time is :math:`\tau = t\, t_f / 2`, and the factor
:math:`t_f / 2` (its square in the second-order equations) is part of the coefficients, so that the equation written is
the one that is integrated. Where PROSE draws a quantity whose square or quotient appears (KdV's :math:`\delta^2`), the
coefficient itself is drawn here, as a token for a number holds three digits.

**Differences from the released code.**

- Fluxes are in conservative form: :math:`k u u_x` is ``c*dx(u_0**2)`` with c about 1/2, and 0.333 for 1/3 of a cube.
- Cahn-Hilliard is :math:`u_\tau = \partial_{xx}(u^3 - u - \epsilon u_{xx})` with :math:`\epsilon = 0.01` from states in
  [-1, 1]. With :math:`\epsilon^2 = 10^{-4}` in its place, as published, disturbances grow by :math:`e^{1250}` within
  :math:`t_f` and interfaces are two cells wide: such a solution is not determined in double precision.
- The Fokker-Planck potential :math:`\cos(k x)` has k = 9.42, three waves in the box. The published k = 10 is not
  periodic, and 3 pi has more digits than a token; 9.42 leaves a jump of 1 % in the force, 1e-4 in the solution.
  Diffusion :math:`D = k_B T / (6 \pi \eta r)` = 2.20 and drift :math:`1.21 k D` = 25.0 (water at 300 K, a sphere of
  radius 0.1 um; micrometres and seconds) are drawn each by itself.
- The bistable reaction has the threshold 0, as published: :math:`\rho u^2 (1 - u)`.
- Fields of second order start at rest, :math:`u_1 = 0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Expr, Param, leaves, parse, parts
from sciml.grid import Grid
from sciml.prose.solvers import Solver, finite_volume, spectral
from sciml.prose.states import Shape, bump, scaled, waves
from sciml.prose.system import System

LENGTH, POINTS, TIMES, SPAN = 2.0, 128, 64, 2.0
"""Length of the box, points in it, times kept and the last of them."""
WAVES, SPECTRAL = waves(4), spectral()


@dataclass(frozen=True)
class PDE(System):
    """A family of equations for ``u_0`` and, of second order, ``u_1 = u_0'``, on the periodic interval [0, 2].

    Parameters
    ----------
    t_f : physical time that t = 2 stands for; the coefficients hold the factor ``t_f / 2`` already
    shape : random initial states of ``u_0``, scaled to ``states``; ``u_1`` starts at zero
    solver : :func:`~sciml.prose.solvers.spectral` or :func:`~sciml.prose.solvers.finite_volume` with their meshes
    """

    t_f: float = 2.0
    shape: Shape = WAVES
    states: tuple[float, float] = (0.0, 1.0)
    solver: Solver = SPECTRAL

    def initial(self, n: int, generator: torch.Generator, shape: Shape | None = None) -> Tensor:
        """Random states of all fields on the mesh of the solver, float64 ``(n, fields, points)``."""
        x = self.solver.mesh(POINTS, LENGTH).x[0]
        u = torch.zeros(n, len(self.rhs), x.numel(), dtype=torch.float64)
        u[:, 0] = scaled(shape or self.shape, *self.states)(n, LENGTH, generator)(x)
        return u

    def solve(self, params: dict[str, Tensor], u: Tensor, t: Tensor) -> Tensor:
        """Fields ``(n, times, fields, 128)`` at evenly spaced times t from states of :meth:`initial`.

        ``params`` holds one value for each sample, ``(n,)``.
        """
        out = u.new_empty(len(u), len(t), len(self.rhs), POINTS)
        for values, rows in groups({name: params[name] for name in self.choices}, len(u)):
            rhs = self.written(values)
            drawn = {name: params[name][rows].to(u) for name in self.centres}
            out[rows] = self.solver(rhs, drawn, u[rows], t, POINTS, LENGTH)
        return out


def groups(choices: dict[str, Tensor], n: int):
    """Values of the discrete parameters with the indices of the samples that have them."""
    if not choices:
        yield {}, torch.arange(n)
        return
    table = torch.stack([v.cpu() for v in choices.values()], 1)
    values, which = table.unique(dim=0, return_inverse=True)
    for i, row in enumerate(values.tolist()):
        yield dict(zip(choices, row, strict=True)), (which == i).nonzero()[:, 0]


def _pde(name: str, rhs: str, centres: dict[str, float], m: tuple[float, ...] = (), **options) -> PDE:
    """A family from the text of its right-hand sides in u and v for u_0 and u_1."""
    choices = {"m": m} if m else {}
    names = (*centres, *choices)
    rhs = rhs.replace("u", "u_0").replace("v", "u_1")
    return PDE(name, tuple(parse(e, names) for e in rhs.split(";")), centres, choices, **options)


def _families() -> list[PDE]:
    gentle, fine, cells = spectral(steps=1), spectral(refine=4, steps=8), finite_volume(refine=4)
    viscous, diffusive = {"c": 0.5, "e": 0.00318}, {"d": 3e-3, "r": 1.0}
    return [
        _pde("heat", "d*lap(u)", {"d": 3e-3}, solver=gentle),
        _pde(
            "porous_medium", "0.05*lap(u**m)", {}, (2.0, 3.0, 4.0), t_f=0.1,
            shape=bump(0.38, 0.52, 0.45, 0.55), solver=finite_volume(refine=2),
        ),
        _pde("advection", "-b*dx(u)", {"b": 0.5}, shape=waves(2), solver=gentle),
        _pde("kdv", "-0.25*dx(u**2) - d*dx(dx(dx(u)))", {"d": 2.42e-4}, t_f=1.0, shape=waves(2), states=(0.0, 0.5)),
        _pde("fokker_planck", "d*lap(u) - a*dx(u*sin(9.42*x))", {"d": 0.11, "a": 1.25}, t_f=0.1, shape=bump(0.1, 0.5)),
        _pde("logistic", "d*lap(u) + r*u*(1 - u)", diffusive, solver=gentle),
        _pde("linear_reaction", "d*lap(u) + r*u", {"d": 3e-3, "r": 0.1}, solver=gentle),
        _pde("bistable", "d*lap(u) + r*u**2*(1 - u)", diffusive, solver=gentle),
        _pde("squared_logistic", "d*lap(u) + r*u**2*(1 - u)**2", diffusive, solver=gentle),
        _pde("burgers", "e*lap(u) - c*dx(u**2)", viscous, solver=fine),
        _pde("linear_flux", "e*lap(u) - c*dx(u)", {"c": 1.0, "e": 0.00318}, solver=gentle),
        _pde("sine_flux", "e*lap(u) - c*dx(sin(u))", {"c": 1.0, "e": 0.00318}, solver=fine),
        _pde("cubic_flux", "e*lap(u) - c*dx(u**3)", {"c": 0.333, "e": 0.00318}, solver=fine),
        _pde("inviscid_burgers", "-c*dx(u**2)", {"c": 0.5}, solver=cells),
        _pde("inviscid_sine_flux", "-c*dx(sin(u))", {"c": 1.0}, solver=cells),
        _pde("inviscid_cubic_flux", "-c*dx(u**3)", {"c": 0.333}, solver=cells),
        _pde(
            "cahn_hilliard", "0.25*lap(u**3) - 0.25*lap(u) - e*lap(lap(u))", {"e": 2.5e-3}, t_f=0.5,
            shape=waves(2), states=(-1.0, 1.0), solver=spectral(steps=8),
        ),
        _pde("wave", "v; s*lap(u)", {"s": 0.0625}, t_f=1.0, shape=waves(2), solver=gentle),
        _pde("klein_gordon", "v; s*lap(u) - m*u", {"s": 0.25, "m": 2.5e-3}, t_f=1.0, shape=waves(2), solver=gentle),
        _pde("sine_gordon", "v; 0.25*lap(u) - s*sin(u)", {"s": 0.25}, t_f=1.0, shape=waves(2), solver=gentle),
    ]  # fmt: skip


PDES: dict[str, PDE] = {pde.name: pde for pde in _families()}
"""The families by name."""


@dataclass(frozen=True, kw_only=True)
class Evolution(Equation):
    """Right-hand sides of ``u_0``, ``u_1``, ... as an equation; made by :func:`as_equation`."""

    rhs: tuple[Expr, ...]

    @property
    def prognostic(self):
        return tuple(f"u_{i}" for i in range(len(self.rhs)))

    @property
    def own_terms(self):
        for field, e in zip(self.prognostic, self.rhs, strict=True):
            for term in parts(e, "add"):
                yield Term(field, str(term), term)


def as_equation(rhs: Sequence[Expr], grid: Grid | None = None) -> Evolution:
    """Right-hand sides with numbers only as an equation that every stepper takes; each summand is a term.

    On 128 points of the periodic interval [0, 2] unless a grid is given. Step with ``etdrk4``. It is not for shocks:
    those of the conservation laws without viscosity need :func:`~sciml.prose.solvers.finite_volume`, and those with it
    a grid of 512 points (:func:`~sciml.prose.solvers.fitting` chooses by the form of an equation).

    Raises
    ------
    ValueError : where an expression names other fields or parameters without values
    """
    if params := set().union(*(leaves(e, Param) for e in rhs)):
        raise ValueError(f"parameters {sorted(params)} have no values; put numbers in with System.written")
    equation = Evolution(grid=grid or Grid(POINTS, 1, Lx=LENGTH), rhs=tuple(rhs))
    _ = equation.terms  # names of unknown fields are refused now
    return equation
