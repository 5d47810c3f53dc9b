r"""Two-dimensional vortices by a neural field, exactly without divergence and without a pressure.

    u_t = omega v + nu lap u,  v_t = -omega u + nu lap v  up to a gradient,  (u, v) = (-psi_y, psi_x),  omega = lap psi

on the periodic box of sides 2. Taylor's and Green's vortices are steady for nu = 0 and decay as exp(-2 nu k^2 t)
otherwise (k = pi); --flow two_scales is a large and a small vortex, whose truth is the spectral solver's on a fine
grid. The streamfunction is a sine network; least squares over the box project the gradient, pressure, out (vortices
that move are stepped by vorticity, which is less stiff). Chen et al. (2023, ICML) split each step of 0.05 s, which
alone gives an error of 6 % and loses 11 % of the energy until t = 5.

Beside it the spectral solver. Expected (velocity, L2, relative): 1e-6 to 3e-6 with 385 weights, energy within 1e-10;
two scales until t = 2 4e-4 to 6e-4, where the spectral solver has 3e-2 with as many numbers. Run time on one core:
quick 15 s, default 1 minute, full 3 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import neural
import torch
from common import Range, main
from torch import Tensor

import sciml as sm
from sciml.insr.systems import momentum, strong

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(omega=1.0, iterations=60, projected=True),
    "default": dict(omega=1.0, iterations=600, projected=True),
    "full": dict(omega=1.0, iterations=1000, tolerance=1e-7, projected=True),
}


@dataclass(frozen=True)
class Options(neural.Neural):
    flow: Literal["taylor_green", "two_scales"] = "taylor_green"
    """Steady vortices that fill the box, or a large and a small one."""
    nu: Annotated[float, Range(0, 1)] = 0.0
    """Viscosity in m2/s."""
    end: Annotated[float, Range(0, 100, open=True)] = 5.0
    """Length of the run in s."""

    @property
    def name(self) -> str:
        return f"insr_{self.flow}"


def velocity(eq: sm.Equation, omega: Tensor) -> Tensor:
    """``(u, v)`` of vorticity on the grid."""
    return eq.grid.ifft(eq.velocity(eq.init(omega)))  # type: ignore[attr-defined]


def vortices(grid: sm.Grid) -> Tensor:
    """Vorticity of Gaussian vortices of radii 0.3 and 0.075, ``(1, ny, nx)``, of opposite circulations."""
    x, y = grid.axes()
    total = torch.zeros(grid.shape, dtype=torch.float64)
    for a, b, radius, circulation in ((-0.3, 0.0, 0.3, 0.3), (0.45, 0.1, 0.075, -0.06)):
        for i in (-2, 0, 2):
            for j in (-2, 0, 2):
                square = (x - a - i) ** 2 + (y - b - j) ** 2
                total = total + circulation / (math.pi * radius**2) * torch.exp(-square / radius**2)
    return (total - total.mean())[None]


def problem(o: Options) -> neural.Problem:
    steady = o.flow == "taylor_green"
    n = 64 if steady else 192
    grid = sm.Grid(n, n, Lx=2.0, Ly=2.0, x0=-1.0, y0=-1.0, dealias=3 / 2)
    eq = sm.equation.Vorticity(grid=grid, nu=o.nu)
    if steady:
        start = -2 * torch.sin(math.pi * grid.x) * torch.sin(math.pi * grid.y)[None]
        truth = lambda t: start * math.exp(-2 * o.nu * math.pi**2 * t)  # noqa: E731
    else:
        start = vortices(grid)
        truth = neural.reference(eq, start, [o.end * i / 20 for i in range(21)], 0.005, sm.rk4)
    form, dt = (momentum, 0.02) if steady else (strong, 0.005)
    return neural.Problem(eq, start, o.end, truth, sm.rk4, dt, form=form, seen=velocity, energy=neural.energy,
                          name="velocity", components=("u", "v"), units="m s-1", time_units="s")  # fmt: skip


def run(o: Options, out: Path) -> dict[str, Any]:
    size = dict(SIZES[o.preset])
    if o.flow == "two_scales":
        size |= dict(samples=6.0, iterations=min(size["iterations"], 300), tolerance=1e-5, projected=False)
    return neural.solved(o, out, problem(o), size)


if __name__ == "__main__":
    main(run, Options)
