"""Quasi-geostrophic models of any number of layers, and of two layers with pyqg's parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from sciml.equation.base import matrix
from sciml.equation.qg import Profile, QuasiGeostrophic


@dataclass(frozen=True, kw_only=True)
class LayeredQG(QuasiGeostrophic):
    """Any number of layers.

    Parameters
    ----------
    H : thicknesses from the top [m]
    gprime : reduced gravity of each interface, ``len(H) - 1`` numbers [m s-2]
    U, V : mean flow of each layer [m s-1]; an entry of U may be a periodic profile ``(ny,)``

    Examples
    --------
    >>> grid = sm.Grid(32, Lx=1e6)
    >>> eq = sm.LayeredQG(grid=grid, H=(500.0, 1000.0, 2500.0), gprime=(0.02, 0.01), f0=1e-4, beta=1.5e-11, rek=1e-7)
    >>> eq.prognostic
    ('q1', 'q2', 'q3')
    >>> z = eq.init(sm.random_pv(eq, seed=0))
    >>> bool(torch.allclose(eq.pv(eq.grid.ifft(eq.psi(z))), z))  # PV and streamfunction invert each other
    True
    """

    H: tuple[float, ...] = (1.0,)
    gprime: tuple[float, ...] = ()
    U: tuple[Profile, ...] | None = None
    V: tuple[float, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.H, tuple | list) or not isinstance(self.gprime, tuple | list):
            raise ValueError("H and gprime must be tuples, one thickness a layer and one reduced gravity an interface")
        positive = all(0 < a < math.inf for a in (*self.H, *self.gprime)) and (self.f0 != 0 or self.n == 1)
        if len(self.gprime) != self.n - 1 or not positive:
            raise ValueError(
                f"{self.n} layers need {self.n} thicknesses and {self.n - 1} reduced gravities, all positive"
            )
        for name in ("U", "V"):
            flow = getattr(self, name)
            if flow is not None and len(flow) != self.n:
                raise ValueError(f"{name} needs one entry for each of the {self.n} layers, got {len(flow)}")

    @property
    def layers(self):
        return self.H

    @cached_property
    def S(self) -> Tensor:
        S: list[list[Any]] = [[0.0] * self.n for _ in range(self.n)]
        for i, g in enumerate(self.gprime):
            above, below = self.f0**2 / (g * self.H[i]), self.f0**2 / (g * self.H[i + 1])
            S[i][i] -= above
            S[i][i + 1] += above
            S[i + 1][i + 1] -= below
            S[i + 1][i] += below
        return matrix(S, self.grid)

    @property
    def mean_flow(self):
        zero = (0.0,) * self.n
        return tuple(zero if a is None else tuple(a) for a in (self.U, self.V))


@dataclass(frozen=True, kw_only=True)
class TwoLayerQG(QuasiGeostrophic):
    """Two layers with pyqg's parameters, ``F1 = rd^-2 / (1 + delta)``, ``F2 = delta F1``.

    Parameters
    ----------
    rd : deformation radius [m]
    delta : H1 / H2
    H1 : upper thickness [m]
    U1, U2, V1, V2 : mean flow [m s-1]; U1 and U2 may be periodic profiles ``(ny,)``

    Examples
    --------
    >>> eq = sm.TwoLayerQG(grid=sm.Grid(32, Lx=1e6), rd=15e3, delta=0.25, U1=0.025, beta=1.5e-11, rek=6e-7)
    >>> bool(sm.stability(eq).growth.max() > 0)  # the shear is baroclinically unstable
    True
    """

    rd: float = 15e3
    delta: float = 0.25
    H1: float = 500.0
    U1: Profile = 0.0
    U2: Profile = 0.0
    V1: float = 0.0
    V2: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not all(0 < a < math.inf for a in (self.rd, self.delta, self.H1)):
            raise ValueError(f"rd, delta and H1 must be positive, got {self.rd}, {self.delta}, {self.H1}")

    @property
    def layers(self):
        return self.H1, self.H1 / self.delta

    @cached_property
    def S(self) -> Tensor:
        F1 = self.rd**-2 / (1 + self.delta)
        F2 = self.delta * F1
        return matrix([[-F1, F1], [F2, -F2]], self.grid)

    @property
    def mean_flow(self):
        return (self.U1, self.U2), (self.V1, self.V2)

    @classmethod
    def preset(cls, name: str, nx: int | None = None, ny: int | None = None, **changes) -> QuasiGeostrophic:
        """One of the published set-ups of :data:`sciml.equation.presets.PRESETS`, with changes by keyword."""
        from sciml.equation.presets import preset

        return preset(name, nx, ny, **changes)
