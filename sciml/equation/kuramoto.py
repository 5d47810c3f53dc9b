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

    Examples
    --------
    >>> eq = sm.equation.KuramotoSivashinsky(grid=sm.Grid(64, 1, Lx=22.0, Ly=1.0))
    >>> start = 0.01 * torch.cos(2 * math.pi * eq.grid.x / 11)[None, None]
    >>> end = sm.rollout(sm.etdrk4(eq, 0.1), 500, every=500)(start).fields[-1]
    >>> bool(1 < end.abs().max() < 10)  # long waves grow until the nonlinear term stops them
    True
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
