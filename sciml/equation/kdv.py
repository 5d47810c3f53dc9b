r"""Korteweg-de Vries equation, :math:`u_t + 6 u u_x + u_{xxx} = 0`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Field, dx


@dataclass(frozen=True, kw_only=True)
class KortewegDeVries(Equation):
    r"""In one dimension, on ``Grid(nx, ny=1)``. A soliton is :math:`2 p^2 \mathrm{sech}^2(p (x - 4 p^2 t))`; two of
    them pass through each other (Zabusky & Kruskal 1965, PRL 15, 240). Step with etdrk4.

    Mass, momentum :math:`\int u^2` and energy :math:`\int (u_x^2 / 2 - u^3)` are conserved.

    Examples
    --------
    >>> eq = sm.equation.KortewegDeVries(grid=sm.Grid(128, 1, Lx=20.0, Ly=1.0, x0=-10.0))
    >>> soliton = lambda x: 2 / torch.cosh(x) ** 2
    >>> end = sm.rollout(sm.etdrk4(eq, 0.005), 200, every=200)(soliton(eq.grid.x)[None, None]).fields[-1]
    >>> bool((end - soliton(eq.grid.x - 4.0)).abs().max() < 1e-3)  # it moves at the speed 4
    True
    """

    @property
    def prognostic(self):
        return ("u",)

    @property
    def own_terms(self):
        u = Field("u")
        yield Term("u", "advection", -3.0 * dx(u**2))
        yield Term("u", "dispersion", -dx(dx(dx(u))))

    def cfl(self, z: Tensor, dt: float) -> float:
        return float(6 * self.read(z).abs().amax() / self.grid.dx * dt)
