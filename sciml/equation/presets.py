"""Published quasi-geostrophic set-ups by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sciml.equation.layered import LayeredQG, TwoLayerQG
from sciml.equation.qg import QuasiGeostrophic
from sciml.grid import Grid

GRID_OPTIONS = ("Lx", "Ly", "dealias", "x0", "y0", "dtype", "device")


def preset(name: str, nx: int | None = None, ny: int | None = None, **changes) -> QuasiGeostrophic:
    """The set-up ``name`` of :data:`PRESETS` on ``nx x ny`` points; ``changes`` are parameters or grid options.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=32, rek=0.0)
    >>> float(eq.rek), eq.prognostic
    (0.0, ('q1', 'q2'))
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    if wrong := [n for n in (nx, ny) if n is not None and n < 1]:
        raise ValueError(f"a grid has at least one point along an axis, got {wrong[0]}")
    grid = {key: changes.pop(key) for key in GRID_OPTIONS if key in changes}
    return PRESETS[name](nx, ny, grid, changes)


def eddy(nx, ny, grid, changes) -> TwoLayerQG:
    """Isotropic eddies: pyqg's defaults, Ross et al. (2023), JAMES 15, e2022MS003258. dt = 7200 s at 64^2."""
    defaults = dict(rd=15e3, delta=0.25, H1=500.0, U1=0.025, beta=1.5e-11, rek=5.787e-7, filterfac=23.6)
    return TwoLayerQG(grid=box(nx or 64, ny, grid), **(defaults | changes))


def jet(nx, ny, grid, changes) -> TwoLayerQG:
    """Zonal jets of Ross et al. (2023): as eddy with rek = 7e-8, delta = 0.1, beta = 1e-11."""
    return eddy(nx, ny, grid, dict(rek=7e-8, delta=0.1, beta=1e-11) | changes)


def phillips(nx, ny, grid, changes) -> TwoLayerQG:
    """Equal layers and strong shear, the classical Phillips problem (growth 1.374345e-06 s-1 without drag)."""
    return eddy(nx, ny, grid, dict(delta=1.0, U1=0.1) | changes)


def relaxation_jet(nx, ny, grid, changes) -> TwoLayerQG:
    """A jet kept up by thermal relaxation, with a sponge in y, nondimensional: MEDIDA, JAMES 16, e2023MS004033.

    dt = 0.025. beta y is not part of q; see ``docs/equations.md``.
    """
    nx, ny = nx or 96, ny or (2 * nx if nx else 192)
    grid = dict(Lx=46.0, Ly=68.0, dealias=1.5, x0=-23.0, y0=-34.0) | grid
    made = Grid(nx, ny, **grid)
    y = made.y0 + np.arange(ny) * made.dy
    edge = np.minimum(y - made.y0, made.y0 + made.Ly - y)
    sigma = 3.5
    at_edge = np.cosh(edge / sigma) ** -2
    jet = np.cosh(y / sigma) ** -2 - at_edge
    defaults = dict(
        rd=1 / math.sqrt(2),
        delta=1.0,
        H1=1.0,
        f0=1.0,
        beta=0.196,
        rek=0.07,
        nu_axes=1e-6,
        nu_order=4,
        nondimensional=True,
    )
    defaults |= dict(
        nondimensional=True, relax=0.01, relax_jet=0.01, psi_R=minus_integral(jet, made.Ly), sponge=at_edge
    )
    return TwoLayerQG(grid=made, **(defaults | changes))


def barotropic(nx, ny, grid, changes) -> LayeredQG:
    """One layer on the 2 pi box, nondimensional, decaying: pyqg's ``BTModel`` with its filter."""
    made = box(nx or 256, ny, dict(Lx=2 * math.pi) | grid)
    return LayeredQG(grid=made, **(dict(H=(1.0,), filterfac=23.6, nondimensional=True) | changes))


def box(nx: int, ny: int | None, options: dict[str, Any]) -> Grid:
    """Square cells, a side of 1e6 m in x, products left to alias as in pyqg, whose filter goes with that."""
    defaults: dict[str, Any] = dict(Lx=1e6, dealias=1.0)
    return Grid(nx, ny or nx, **(defaults | options))


def minus_integral(u: np.ndarray, length: float) -> np.ndarray:
    """psi with ``u = -d psi/dy`` and mean zero, as a column; the mean of u has no periodic streamfunction."""
    l = 2 * np.pi / length * np.arange(u.size // 2 + 1)  # noqa: E741
    uh = np.fft.rfft(u)
    psih = np.zeros_like(uh)
    psih[1:] = -uh[1:] / (1j * l[1:])
    if u.size % 2 == 0:
        psih[-1] = 0
    return np.fft.irfft(psih, u.size)[:, None]


PRESETS = {f.__name__: f for f in (eddy, jet, phillips, relaxation_jet, barotropic)}
