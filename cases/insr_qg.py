r"""Two-layer quasi-geostrophic flow by a neural field: ten days from a smooth field, or a plane Rossby wave.

    q_i_t + J(psi_i, q_i) + mean-flow, beta and drag terms = 0,  q_i = lap psi_i + S_ij psi_j

The configuration `eddy` (a mean flow of 0.025 m/s above, beta, bottom drag), without its small-scale filter, from
eddies as large as half the box in the upper layer. One sine network gives both streamfunctions; least squares in PV
move its weights (after Du & Zaki 2021, PRE 104, 045303). Truth is the spectral solver with 64 x 64 x 2 points; beside
it the same with as many numbers as the network has weights, and the start kept as it is. The wave, without mean flow
and drag, psi_1 = psi_2 = cos(k x + l y - w t) with w = -beta k / (k^2 + l^2), is exact for the nonlinear equations.

Expected (PV of both layers, L2, relative): 1e-2 after ten days with 658 weights, a twelfth of the truth's numbers; the
wave 1e-6 to 5e-6 with 450 weights. Run time on one core: quick 20 s, default 2 (wave 5) minutes, full 8 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import neural
import torch
from common import Range, goes_with, main
from torch import Tensor

import sciml as sm
from sciml.equation.qg import QuasiGeostrophic

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=10, omega=1.0, samples=1.5, iterations=60, tolerance=1e-4),
    "default": dict(width=16, omega=1.0, samples=1.2, iterations=200, tolerance=1e-5),
    "full": dict(width=24, omega=1.0, samples=1.2, iterations=400, tolerance=1e-5),
}
ONE_LAYER: dict[str, Any] = dict(depth=1, omega=1.0, samples=2.0, projected=True)
WAVE: dict[str, dict[str, Any]] = {
    "quick": dict(width=32, iterations=150, epsilon=1e-11, tolerance=1e-7, **ONE_LAYER),
    "default": dict(width=64, iterations=600, epsilon=3e-13, tolerance=3e-9, **ONE_LAYER),
    "full": dict(width=64, iterations=1200, epsilon=1e-13, tolerance=1e-9, **ONE_LAYER),
}
DAY, CRESTS = 86400.0, (1, 2)


@dataclass(frozen=True)
class Options(neural.Neural):
    days: Annotated[int, Range(1, 100)] = 10
    """Length of the run in days."""
    start: Literal["eddies", "wave"] = "eddies"
    """Random eddies, or a plane Rossby wave with one crest along x and two along y."""
    eddies: Annotated[float, Range(0.5, 8)] = 2.0
    """Eddies across the box at the start, as a factor of one."""
    speed: Annotated[float, Range(0, 1, open=True)] = 0.2
    """Root mean square velocity of the upper layer at the start in m/s."""


def problem(o: Options) -> neural.Problem:
    still: dict[str, Any] = {"U1": 0.0, "rek": 0.0} if o.start == "wave" else {}
    eq = sm.TwoLayerQG.preset("eddy", nx=64, filterfac=0.0, **still)
    if o.start == "wave":
        truth = wave(eq, o.speed)
        start = truth(0.0)
    else:
        start = sm.random_pv(eq, seed=o.seed, speed=o.speed, scale=eq.grid.Lx / o.eddies)
        truth = neural.reference(eq, start, [DAY * i for i in range(o.days + 1)], 1800.0, sm.rk4)
    return neural.Problem(eq, start, o.days * DAY, truth, sm.rk4, 1800.0, outputs=o.days, energy=neural.energy,
                          name="PV", components=("layer 1", "layer 2"), units="s-1", time_units="s")  # fmt: skip


def wave(eq: QuasiGeostrophic, speed: float) -> Callable[[float], Tensor]:
    """PV of the plane Rossby wave, of a root mean square velocity, at a time."""
    grid = eq.grid
    k, l = (2 * math.pi * n / length for n, length in zip(CRESTS, (grid.Lx, grid.Ly), strict=True))  # noqa: E741
    x, y = grid.axes()
    size, w = speed * math.sqrt(2 / (k * k + l * l)), -eq.beta * k / (k * k + l * l)

    def q(t: float) -> Tensor:
        psi = size * torch.cos(k * x + l * y - w * t)
        return eq.read(eq.pv(torch.stack([psi, psi])))

    return q


def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.start == "eddies", "--start eddies", "eddies")
    return neural.solved(o, out, problem(o), (WAVE if o.start == "wave" else SIZES)[o.preset])


if __name__ == "__main__":
    main(run, Options)
