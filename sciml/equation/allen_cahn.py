r"""Allen-Cahn equation, :math:`u_t = \kappa \nabla^2 u + a (u - u^3)`."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Field, Param, lap


@dataclass(frozen=True, kw_only=True)
class AllenCahn(Equation):
    r"""Phases -1 and 1 and fronts between them, of the width :math:`\sqrt{2 \kappa / a}`, in one dimension or two.

    ``tanh(x / sqrt(2 kappa / a))`` is steady; ``(1 - tanh((x - s t) / sqrt(8 kappa / a))) / 2`` moves at
    ``s = 3 sqrt(a kappa / 2)`` (Allen & Cahn 1979, Acta Metall. 27, 1085). Good values: ``kappa = 5e-3, a = 1`` on a
    box of 2 pi, or ``kappa = 1e-4, a = 5`` on one of 2.

    Examples
    --------
    >>> eq = sm.equation.AllenCahn(grid=sm.Grid(128, 1, Lx=2 * math.pi, Ly=1.0), kappa=5e-3)
    >>> end = sm.rollout(sm.etdrk4(eq, 0.05), 100, every=100)(0.1 * torch.sin(eq.grid.x)[None, None]).fields[-1]
    >>> bool(end.abs().max() > 0.9)  # phases near -1 and 1
    True
    """

    kappa: float = 5e-3
    a: float = 1.0

    @property
    def prognostic(self):
        return ("u",)

    @property
    def params(self):
        return {"kappa": self.kappa, "a": self.a}

    @property
    def own_terms(self):
        u = Field("u")
        yield Term("u", "diffusion", Param("kappa") * lap(u))
        yield Term("u", "growth", Param("a") * u)
        yield Term("u", "saturation", -Param("a") * u**3)
