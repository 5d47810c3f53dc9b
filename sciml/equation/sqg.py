r"""Surface quasi-geostrophic flow, :math:`\partial_t b + J(\psi, b) = 0` with :math:`\hat b = K \hat\psi`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.equation.base import Equation, Term, courant
from sciml.equation.expression import Field, J
from sciml.equation.filter import exponential_filter


@dataclass(frozen=True, kw_only=True)
class SurfaceQG(Equation):
    """Scaled surface buoyancy ``b`` (Held et al. 1995, JFM 282, 1); ``filterfac`` as in layered models.

    Examples
    --------
    >>> eq = sm.equation.SurfaceQG(grid=sm.Grid(16, 16, Lx=1.0, Ly=1.0))
    >>> eq.prognostic, tuple(eq.diagnostic)
    (('b',), ('psi',))
    """

    filterfac: float = 0.0

    @property
    def prognostic(self):
        return ("b",)

    @property
    def diagnostic(self):
        return {"psi": self.grid.invK2.sqrt()[None]}

    @property
    def own_terms(self):
        yield Term("b", "advection", -J(Field("psi"), Field("b")))

    @property
    def filter(self) -> Tensor | None:
        return exponential_filter(self.grid, self.filterfac)

    def cfl(self, z: Tensor, dt: float) -> float:
        return courant(self.grid, self.grid.real(self.grid.invK2.sqrt()) * z, dt)
