r"""Two-dimensional vorticity equation, :math:`\omega_t + J(\psi, \omega) = \nu \nabla^2 \omega - r \omega + f`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.base import Equation, Term, courant
from sciml.equation.expression import Field, J, Param, dx, lap


@dataclass(frozen=True, kw_only=True)
class Vorticity(Equation):
    r"""Navier-Stokes (``nu > 0``) or Euler flow, :math:`\nabla^2 \psi = \omega`, optionally on a beta plane.

    Parameters
    ----------
    nu : viscosity;  drag : linear drag r;  beta : gradient of planetary vorticity
    force : fixed vorticity source, ``(ny, nx)``, for example ``0.1 (sin 2 pi (x + y) + cos 2 pi (x + y))`` of
        Li et al. (2021), appendix A.3.3

    Examples
    --------
    >>> grid = sm.Grid(32, 32, Lx=2 * torch.pi, Ly=2 * torch.pi)
    >>> eq = sm.equation.Vorticity(grid=grid)
    >>> from sciml.initial import taylor_green
    >>> wave = eq.init(taylor_green(grid))  # steady without viscosity
    >>> bool(eq.tendency(wave).abs().max() < 1e-12)
    True
    """

    nu: float = 0.0
    drag: float = 0.0
    beta: float = 0.0
    force: Tensor | None = None

    @property
    def prognostic(self):
        return ("omega",)

    @property
    def params(self):
        return {"nu": self.nu, "drag": self.drag, "beta": self.beta}

    @property
    def diagnostic(self):
        return {"psi": -self.grid.invK2[None]}

    @property
    def fixed(self):
        return {} if self.force is None else {"force": self.grid.fft(self.grid.real(self.force))}

    @property
    def own_terms(self) -> Iterable[Term]:
        omega, psi = Field("omega"), Field("psi")
        yield Term("omega", "advection", -J(psi, omega))
        yield Term("omega", "viscosity", Param("nu") * lap(omega))
        yield Term("omega", "drag", -Param("drag") * omega)
        yield Term("omega", "beta", -Param("beta") * dx(psi))
        if self.force is not None:
            yield Term("omega", "force", Field("force"))

    def velocity(self, z: Tensor) -> Tensor:
        """``(u, v) = (-psi_y, psi_x)``, ``(..., 2, *modes)``, of vorticity ``(..., 1, *modes)``, all coefficients."""
        psi = -self.grid.real(self.grid.invK2) * z
        return torch.cat([-self.grid.il * psi, self.grid.ik * psi], -3)

    def energy(self, z: Tensor) -> Tensor:
        """Kinetic energy of a unit of mass, the mean over the box, ``(...)``."""
        return 0.5 * (self.grid.weight * self.velocity(z).abs() ** 2).sum((-3, -2, -1))

    def cfl(self, z: Tensor, dt: float) -> float:
        return courant(self.grid, -self.grid.real(self.grid.invK2) * z, dt)
