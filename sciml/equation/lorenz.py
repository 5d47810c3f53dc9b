"""The Lorenz (1963) and (1996) systems: the reference problems of data assimilation.

They are equations on a grid of one point, so that every stepper, rollout and analysis takes them as it takes a PDE;
their fields have shape ``(..., n)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.equation.base import Equation, Term
from sciml.equation.expression import Field, Param
from sciml.grid import Grid


def one_point() -> Grid:
    """The grid of an ordinary differential equation."""
    return Grid(1, 1, dealias=1.0)


@dataclass(frozen=True, kw_only=True)
class Ordinary(Equation):
    """Interface of systems of ordinary differential equations: states ``(..., n, 1, 1)``, fields ``(..., n)``."""

    grid: Grid = field(default_factory=one_point)

    def init(self, fields: Tensor) -> Tensor:
        fields = self.grid.real(fields)
        if fields.shape[-1] != len(self.prognostic):
            raise ValueError(f"fields must have shape (..., {len(self.prognostic)}), got {tuple(fields.shape)}")
        return torch.complex(fields, torch.zeros_like(fields))[..., None, None]

    def read(self, z: Tensor) -> Tensor:
        return z[..., 0, 0].real


@dataclass(frozen=True, kw_only=True)
class Lorenz63(Ordinary):
    """``dX = sigma (Y - X), dY = X (rho - Z) - Y, dZ = X Y - beta Z``; Lorenz (1963), eqs 25-27. dt = 0.01 with rk4.

    Examples
    --------
    >>> step = sm.rk4(sm.equation.Lorenz63(), 0.01)
    >>> side = math.sqrt(8 / 3 * 27)
    >>> fixed = torch.tensor([side, side, 27.0], dtype=torch.float64)  # the middle of a wing
    >>> bool((step.read(step(step.init(fixed))) - fixed).abs().max() < 1e-12)
    True
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3

    @property
    def prognostic(self):
        return ("X", "Y", "Z")

    @property
    def params(self):
        return {"sigma": self.sigma, "rho": self.rho, "beta": self.beta}

    @property
    def own_terms(self):
        X, Y, Z = (Field(n) for n in self.prognostic)
        yield Term("X", "relaxation", Param("sigma") * (Y - X))
        yield Term("Y", "coupling", X * (Param("rho") - Z))
        yield Term("Y", "damping", -Y)
        yield Term("Z", "coupling", X * Y)
        yield Term("Z", "damping", -Param("beta") * Z)

    def tendency(self, z: Tensor, t: float = 0.0) -> Tensor:
        if self.extra or self.tendencies:
            return super().tendency(z, t)
        X, Y, Z = z.unbind(-3)
        return torch.stack([self.sigma * (Y - X), X * (self.rho - Z) - Y, X * Y - self.beta * Z], -3)


@dataclass(frozen=True, kw_only=True)
class Lorenz96(Ordinary):
    """``dX_i = (X_{i+1} - X_{i-2}) X_{i-1} - X_i + F``, cyclic; Lorenz (1996), eq. 1. dt = 0.05 with rk4 is usual.

    Examples
    --------
    >>> still = torch.full((40,), 8.0, dtype=torch.float64)  # x = F does not move
    >>> step = sm.rk4(sm.equation.Lorenz96(), 0.05)
    >>> bool((step.read(step(step.init(still))) - still).abs().max() < 1e-12)
    True
    """

    n: int = 40
    F: float = 8.0

    def __post_init__(self):
        if self.n < 4:
            raise ValueError(f"the Lorenz 96 system needs at least 4 variables, got {self.n}")

    @property
    def prognostic(self):
        return tuple(f"X{i}" for i in range(1, self.n + 1))

    @property
    def params(self):
        return {"F": self.F}

    @property
    def own_terms(self):
        X = [Field(name) for name in self.prognostic]
        for i, name in enumerate(self.prognostic):
            yield Term(name, "advection", (X[(i + 1) % self.n] - X[i - 2]) * X[i - 1])
            yield Term(name, "damping", -X[i])
            yield Term(name, "force", Param("F") * 1)

    def tendency(self, z: Tensor, t: float = 0.0) -> Tensor:
        if self.extra or self.tendencies:
            return super().tendency(z, t)
        return (z.roll(-1, -3) - z.roll(2, -3)) * z.roll(1, -3) - z + self.F
