r"""Two-layer quasi-geostrophic flow by a neural field: ten days from a smooth field.

    q_i_t + J(psi_i, q_i) + mean-flow, beta and drag terms = 0,  q_i = lap psi_i + S_ij psi_j

The configuration `eddy` (a mean flow of 0.025 m/s above, beta, bottom drag), without its small-scale filter, from
eddies as large as half the box in the upper layer. One sine network gives both streamfunctions; least squares in PV
move its weights (after Du & Zaki 2021, PRE 104, 045303). Truth is the spectral solver with 64 x 64 x 2 points; beside
it the same with as many numbers as the network has weights.

Expected (PV of both layers, L2, relative): 2e-3 after ten days with 658 weights, a twelfth of the truth's numbers.
Run time on one core: quick 20 s, default 1.5 minutes, full 8 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import neural
from common import Range, main

import sciml as sm

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=10, omega=1.0, samples=1.5, iterations=60, tolerance=1e-4),
    "default": dict(width=16, omega=1.0, samples=1.2, iterations=200, tolerance=1e-5),
    "full": dict(width=24, omega=1.0, samples=1.2, iterations=400, tolerance=1e-5),
}
DAY = 86400.0


@dataclass(frozen=True)
class Options(neural.Neural):
    days: Annotated[int, Range(1, 100)] = 10
    """Length of the run in days."""
    eddies: Annotated[float, Range(0.5, 8)] = 2.0
    """Eddies across the box at the start, as a factor of one."""
    speed: Annotated[float, Range(0, 1, open=True)] = 0.05
    """Root mean square velocity of the upper layer at the start in m/s."""


def problem(o: Options) -> neural.Problem:
    eq = sm.TwoLayerQG.preset("eddy", nx=64, filterfac=0.0)
    start = sm.random_pv(eq, seed=o.seed, speed=o.speed, scale=eq.grid.Lx / o.eddies)
    truth = neural.reference(eq, start, [DAY * i for i in range(o.days + 1)], 1800.0, sm.rk4)
    return neural.Problem(eq, start, o.days * DAY, truth, sm.rk4, 1800.0, outputs=o.days, energy=neural.energy,
                          name="PV", components=("layer 1", "layer 2"), units="s-1", time_units="s")  # fmt: skip


def run(o: Options, out: Path) -> dict[str, Any]:
    return neural.solved(o, out, problem(o), SIZES[o.preset])


if __name__ == "__main__":
    main(run, Options)
