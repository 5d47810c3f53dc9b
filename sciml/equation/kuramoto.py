r"""Kuramoto-Sivashinsky equation, :math:`u_t + u u_x + u_{xx} + u_{xxxx} = 0`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Field, Param, dx, lap


@dataclass(frozen=True, kw_only=True)
class KuramotoSivashinsky(Equation):
    r"""In one dimension, on ``Grid(nx, ny=1, Lx=L)``; chaotic for L above about 20.

    ``a, b, c`` are the coefficients of :math:`u u_x, u_{xx}, u_{xxxx}`, all 1 for the true equation; ``d`` is that of
    an additional :math:`u_{xxx}`. Kassam & Trefethen (2005), SIAM J. Sci. Comput. 26, 1214; step with etdrk4 or imex.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    d: float = 0.0

    @property
    def prognostic(self):
        return ("u",)

    @property
    def params(self):
        return {"a": self.a, "b": self.b, "c": self.c, "d": self.d}

    @property
    def own_terms(self):
        u = Field("u")
        yield Term("u", "advection", -0.5 * Param("a") * dx(u**2))
        yield Term("u", "production", -Param("b") * lap(u))
        yield Term("u", "dissipation", -Param("c") * lap(lap(u)))
        if self.d:
            yield Term("u", "dispersion", -Param("d") * dx(lap(u)))

    def cfl(self, z: Tensor, dt: float) -> float:
        return float(self.read(z).abs().amax() / self.grid.dx * dt)
