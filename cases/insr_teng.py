r"""Heat, phases and a steepening wave in two dimensions by a neural field, the problems of TENG.

    heat         u_t = D lap u
    allen_cahn   u_t = D lap u + u - u^3
    burgers      u_t + u (u_x + u_y) = D lap u,   D = 1/10, on the periodic box of sides 2 pi, until t = 4, from
    u = cosh(3 sin x) sinh(sin y) / 25

The start has 42 Fourier coefficients above 1e-6, as many as the published one. Weights move along the tangent space by
an adaptive Runge-Kutta method. Truth is the spectral solver with 128 x 128 points; beside it the same with as many
numbers as the network has weights. Chen et al. (2024, ICML) fit a network of 8361 weights at each of 800 steps by
Gauss-Newton, with random subsets of the weights, on 65 536 samples and more.

Expected, at t = 4 with 505 weights: heat 6e-6, phases 2e-5, steepening wave 4e-5 (quick, 281 weights: 2e-5 to 2e-4).
Run time on one core: quick 15 s, default 1 minute, full 6 minutes.

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
from sciml.equation.base import Term
from sciml.equation.expression import Field, dx, dy

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=10, omega=1.0, iterations=60, tolerance=1e-5),
    "default": dict(width=14, omega=1.0, iterations=300, tolerance=1e-6, epsilon=1e-10),
    "full": dict(width=18, omega=1.0, iterations=500, tolerance=1e-7, epsilon=1e-11),
}


@dataclass(frozen=True)
class Options(neural.Neural):
    problem: Literal["heat", "allen_cahn", "burgers"] = "heat"
    """Diffusion alone, with growth and saturation, or with advection by the field itself."""
    D: Annotated[float, Range(1e-2, 10)] = 0.1
    """Diffusivity in m2/s (1e-2 at least: thinner fronts need a finer truth)."""
    end: Annotated[float, Range(0, 100, open=True)] = 4.0
    """Length of the run in s."""

    @property
    def name(self) -> str:
        return f"insr_teng_{self.problem}"


def equation(o: Options, grid: sm.Grid) -> sm.Equation:
    """Of the names."""
    if o.problem == "allen_cahn":
        return sm.equation.AllenCahn(grid=grid, kappa=o.D)
    still = sm.equation.Advection(grid=grid, U=0.0, kappa=o.D)
    c = Field("c")
    return still + Term("c", "steepening", -0.5 * dx(c**2) - 0.5 * dy(c**2)) if o.problem == "burgers" else still


def wave(grid: sm.Grid) -> Tensor:
    """The start, ``(1, ny, nx)``."""
    x, y = grid.axes()
    return (torch.cosh(3 * torch.sin(x)) * torch.sinh(torch.sin(y)) / 25)[None]


def problem(o: Options) -> neural.Problem:
    grid = sm.Grid(128, 128, Lx=2 * math.pi, Ly=2 * math.pi, x0=0.0, y0=0.0, dealias=3 / 2)
    eq, start = equation(o, grid), wave(grid)
    truth = neural.reference(eq, start, [o.end * i / 20 for i in range(21)], 0.02)
    return neural.Problem(eq, start, o.end, truth, sm.etdrk4, 0.02, name="u")


def run(o: Options, out: Path) -> dict[str, Any]:
    return neural.solved(o, out, problem(o), SIZES[o.preset])


if __name__ == "__main__":
    main(run, Options)
