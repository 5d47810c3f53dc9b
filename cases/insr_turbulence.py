r"""Decaying two-dimensional turbulence by a neural field.

    omega_t + J(psi, omega) = nu lap omega,  omega = lap psi,  on the periodic box of sides 2 pi

from random eddies of unit velocity, which turn around each other, draw filaments out and merge (McWilliams 1984, JFM
146, 21). One sine network gives the streamfunction; least squares in vorticity move its weights (after Du & Zaki 2021,
PRE 104, 045303). Truth is the spectral solver with 128 x 128 points; beside it the same with as many numbers as the
network has weights.

Expected (vorticity, L2, relative): 1e-2 at t = 2, five turnover times, with 961 weights, where the spectral solver of
as many numbers has 3e-2. Run time on one core: quick 20 s, default 4 minutes, full 20 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import neural
import torch
from common import Range, main
from torch import Tensor

import sciml as sm
from sciml.initial import random_field

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=12, omega=1.0, samples=1.5, iterations=60, tolerance=1e-4, epsilon=1e-6),
    "default": dict(width=20, omega=1.0, samples=2.0, iterations=150, tolerance=1e-4, epsilon=1e-7),
    "full": dict(width=28, omega=1.0, samples=1.5, iterations=300, tolerance=3e-5, epsilon=1e-7),
}
NX = 128


@dataclass(frozen=True)
class Options(neural.Neural):
    waves: Annotated[float, Range(1, 8)] = 2.0
    """Eddies across the box at the start, as a factor of one."""
    nu: Annotated[float, Range(2e-3, 1)] = 1e-2
    """Viscosity in m2/s (2e-3 at least: less needs a finer truth)."""
    end: Annotated[float, Range(0, 100, open=True)] | None = None
    """Length of the run in s (default: 2, with the preset quick 0.5)."""


def eddies(eq: sm.Equation, waves: float, seed: int) -> Tensor:
    """Vorticity ``(1, ny, nx)`` of random eddies whose root mean square velocity is 1."""
    grid = eq.grid
    psi = random_field(grid, lambda K: (K / waves) ** 6 * torch.exp(-3 * (K / waves) ** 2), seed)
    omega = grid.ifft(-grid.K2 * grid.fft(psi))[None]
    return omega / (2 * neural.energy(eq, omega)) ** 0.5


def problem(o: Options) -> neural.Problem:
    grid = sm.Grid(NX, NX, Lx=2 * torch.pi, Ly=2 * torch.pi, x0=0.0, y0=0.0, dealias=3 / 2)
    eq, end = sm.equation.Vorticity(grid=grid, nu=o.nu), o.end or (0.5 if o.preset == "quick" else 2.0)
    start = eddies(eq, o.waves, o.seed)
    truth = neural.reference(eq, start, [end * i / 20 for i in range(21)], 0.005, sm.rk4)
    return neural.Problem(eq, start, end, truth, sm.rk4, 0.005, energy=neural.energy, name="vorticity", units="s-1",
                          time_units="s")  # fmt: skip


def run(o: Options, out: Path) -> dict[str, Any]:
    return neural.solved(o, out, problem(o), SIZES[o.preset])


if __name__ == "__main__":
    main(run, Options)
