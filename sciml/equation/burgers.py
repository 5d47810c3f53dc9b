r"""Viscous Burgers equation, :math:`u_t + u u_x = \nu u_{xx}`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Field, Param, dx, lap


@dataclass(frozen=True, kw_only=True)
class Burgers(Equation):
    """In one dimension, on ``Grid(nx, ny=1)``. Advection is read in flux form, ``-1/2 d_x u^2``.

    Good values: ``nu = 0.01 / pi`` on a box of length 2, start ``-sin(pi x)`` (a shock forms at t = 1/pi).

    Examples
    --------
    >>> eq = sm.equation.Burgers(grid=sm.Grid(64, 1, Lx=2.0, Ly=1.0), nu=0.05)
    >>> u = -torch.sin(torch.pi * eq.grid.axes()[0]).reshape(1, 1, 64)
    >>> end = sm.rollout(sm.etdrk4(eq, 0.01), 50, every=50)(u).fields[-1]
    >>> bool(end.square().mean() < u.square().mean()), bool(end.mean().abs() < 1e-12)  # loses energy, keeps momentum
    (True, True)
    """

    nu: float = 0.01

    @property
    def prognostic(self):
        return ("u",)

    @property
    def params(self):
        return {"nu": self.nu}

    @property
    def own_terms(self):
        u = Field("u")
        yield Term("u", "advection", -0.5 * dx(u**2))
        yield Term("u", "viscosity", Param("nu") * lap(u))

    def cfl(self, z: Tensor, dt: float) -> float:
        return float(self.read(z).abs().amax() / self.grid.dx * dt)
