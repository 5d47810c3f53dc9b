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
