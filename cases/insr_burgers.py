r"""A steepening front by a neural field.

    u_t + u u_x = nu u_xx,  nu = 1e-3,  -1 <= x < 1,  u = (1 - x^2) exp(-30 (x + 0.5)^2) at t = 0, until t = 4

The weights of a small sine network move along the tangent space by an adaptive Runge-Kutta method. Truth is the
spectral solver on a fine grid. Berman and Peherstorfer (2023, NeurIPS) report errors over space and time of 6.1e-5
(2378 s on a GPU) and 2.1e-4 (188 s), global networks 5e-4 and more. Beside it the spectral solver.

Expected, over space and time: 6e-5 to 2e-4 with 361 weights, full 4e-5 to 6e-5 with 609.
Run time on one core: quick 40 s, default 2 minutes, full 7 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import neural
import torch
from common import Range, main

import sciml as sm

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(samples=4.0, iterations=100, tolerance=1e-4, epsilon=1e-6),
    "default": dict(samples=4.0),
    "full": dict(width=16, samples=4.0, iterations=500, tolerance=3e-7),
}


@dataclass(frozen=True)
class Options(neural.Neural):
    nu: Annotated[float, Range(1e-4, 1)] = 1e-3
    """Viscosity in m2/s (1e-4 at least: thinner fronts need a finer truth)."""
    end: Annotated[float, Range(0, 100, open=True)] | None = None
    """Length of the run in s (default: 4, with the preset quick 1)."""


def problem(o: Options) -> neural.Problem:
    grid = sm.Grid(2048, 1, Lx=2.0, Ly=1.0, x0=-1.0, y0=0.0, dealias=3 / 2)
    eq, end, x = sm.equation.Burgers(grid=grid, nu=o.nu), o.end or (1.0 if o.preset == "quick" else 4.0), grid.x
    start = ((1 - x**2) * torch.exp(-30 * (x + 0.5) ** 2))[None]
    truth = neural.reference(eq, start, [end * i / 20 for i in range(21)], 5e-4)
    return neural.Problem(eq, start, end, truth, sm.etdrk4, 1e-3, name="u")


def run(o: Options, out: Path) -> dict[str, Any]:
    return neural.solved(o, out, problem(o), SIZES[o.preset])


if __name__ == "__main__":
    main(run, Options)
