r"""Linear advection and diffusion, :math:`c_t + U c_x + V c_y = \kappa \nabla^2 c`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Field, Param, dx, dy, lap


@dataclass(frozen=True, kw_only=True)
class Advection(Equation):
    """A tracer in a uniform flow ``(U, V)`` with diffusivity ``kappa``: the start, shifted and smoothed.

    Examples
    --------
    >>> eq = sm.equation.Advection(grid=sm.Grid(32, 32, Lx=1.0, Ly=1.0), kappa=0.01)
    >>> flat = torch.ones(1, 32, 32, dtype=torch.float64)
    >>> bool(eq.tendency(eq.init(flat)).abs().max() < 1e-12)
    True
    """

    U: float = 1.0
    V: float = 0.0
    kappa: float = 0.0

    @property
    def prognostic(self):
        return ("c",)

    @property
    def params(self):
        return {"U": self.U, "V": self.V, "kappa": self.kappa}

    @property
    def own_terms(self):
        c = Field("c")
        yield Term("c", "advection", -Param("U") * dx(c) - Param("V") * dy(c))
        yield Term("c", "diffusion", Param("kappa") * lap(c))

    def cfl(self, z: Tensor, dt: float) -> float:
        return float(abs(self.U) / self.grid.dx + abs(self.V) / self.grid.dy) * dt
