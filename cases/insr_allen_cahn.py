r"""Phases and their fronts by a neural field.

    u_t = kappa u_xx + u - u^3,  kappa = 5e-3,  0 <= x < 2 pi, until t = 4, from
    u = tanh(2 sin x) / 3 - exp(-23.5 (x - pi/2)^2) + exp(-27 (x - 4.2)^2) + exp(-38 (x - 5.4)^2)

The weights of a small sine network move along the tangent space by an adaptive Runge-Kutta method. Truth is the
spectral solver on a fine grid. Berman and Peherstorfer (2023, NeurIPS) report errors over space and time of 1.7e-5
(776 s on a GPU) and 5.3e-5 (63 s), global networks 4e-4 and more. Beside it the spectral solver.

Expected: 3e-5 over space and time with 361 weights. Run time on one core: quick 15 s, default 30 s, full 3 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import neural
import torch
from common import Range, main

import sciml as sm

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=10, iterations=100, tolerance=1e-5),
    "default": dict(iterations=500, tolerance=3e-7),
    "full": dict(width=16, iterations=1000, tolerance=1e-7),
}


@dataclass(frozen=True)
class Options(neural.Neural):
    kappa: Annotated[float, Range(1e-3, 1)] = 5e-3
    """Diffusivity in m2/s (1e-3 at least: thinner fronts need a finer truth)."""
    end: Annotated[float, Range(0, 100, open=True)] = 4.0
    """Length of the run in s."""


def problem(o: Options) -> neural.Problem:
    grid = sm.Grid(1024, 1, Lx=2 * math.pi, Ly=1.0, x0=0.0, y0=0.0, dealias=3 / 2)
    eq, x = sm.equation.AllenCahn(grid=grid, kappa=o.kappa), grid.x
    bumps = [
        -torch.exp(-23.5 * (x - math.pi / 2) ** 2),
        torch.exp(-27 * (x - 4.2) ** 2),
        torch.exp(-38 * (x - 5.4) ** 2),
    ]
    start = (torch.tanh(2 * torch.sin(x)) / 3 + sum(bumps))[None]
    truth = neural.reference(eq, start, [o.end * i / 20 for i in range(21)], 0.002)
    return neural.Problem(eq, start, o.end, truth, sm.etdrk4, 0.005, name="u")


def run(o: Options, out: Path) -> dict[str, Any]:
    return neural.solved(o, out, problem(o), SIZES[o.preset])


if __name__ == "__main__":
    main(run, Options)
