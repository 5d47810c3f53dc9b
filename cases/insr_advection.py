r"""A Gaussian pulse carried along by a neural field, the first test of neural-field time stepping.

    u_t + v u_x = 0,  v = 0.25,  -2 <= x <= 2,  u = exp(-(x + 1.5)^2 / 0.02) at t = 0, until t = 12

Exact is the pulse at x = 1.5. The weights of a small sine network move along the tangent space by an adaptive
Runge-Kutta method. Chen et al. (2023, ICML) fit the network anew at each step of 0.05 s, by the midpoint rule, which
alone leaves an error of 5.3e-2, and Adam: --method adam --boundary penalty does that (hours on one core).

Beside it the spectral solver, and central differences in space with the midpoint rule, of as many numbers.
Expected: error (L2, relative) 1e-5 with 361 weights. Run time on one core: quick 10 s, default 20 s, full 1 minute.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import neural
import torch
from common import Range, Refused, main
from torch import Tensor

import sciml as sm
from sciml.nn.encodings import Coordinates

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=10, depth=2, iterations=300, tolerance=1e-5),
    "default": dict(width=12, depth=3, iterations=500, tolerance=1e-7, epsilon=1e-10),
    "full": dict(width=16, depth=3, iterations=1000, tolerance=1e-8, epsilon=1e-10),
}
SPEED, SIGMA, START = 0.25, 0.1, -1.5


@dataclass(frozen=True)
class Options(neural.Neural):
    boundary: Literal["periodic", "dirichlet", "penalty"] = "periodic"
    """Exactly periodic, exactly zero at both ends, or a penalty there (with --method adam)."""
    end: Annotated[float, Range(0, 1000, open=True)] = 12.0
    """Length of the run in s."""


def pulse(x: Tensor, t: float, periodic: bool = True) -> Tensor:
    """At positions x."""
    distance = x - START - SPEED * t
    distance = torch.remainder(distance + 2, 4) - 2 if periodic else distance
    return torch.exp(-(distance**2) / (2 * SIGMA**2))


def differences(nx: int, end: float, dt: float = 0.05) -> neural.Row:
    """Central differences and the midpoint rule, by their factor for each wave."""
    x = -2 + 4 * torch.arange(nx, dtype=torch.float64) / nx
    k = 2 * math.pi / 4 * torch.fft.rfftfreq(nx, 1 / nx, dtype=torch.float64)
    started = time.monotonic()
    rate = -1j * SPEED * torch.sin(k * 4 / nx) / (4 / nx) * dt / 2
    u = torch.fft.irfft(torch.fft.rfft(pulse(x, 0.0)) * ((1 + rate) / (1 - rate)) ** round(end / dt), n=nx)
    error = float((u - pulse(x, end)).norm() / pulse(x, end).norm())
    return neural.Row("central differences (equal memory)", nx, error, time.monotonic() - started)


def problem(o: Options) -> neural.Problem:
    grid = sm.Grid(1024, 1, Lx=4.0, Ly=1.0, x0=-2.0, y0=0.0, dealias=3 / 2)
    periodic = o.boundary == "periodic"

    def truth(t: float) -> Tensor:
        return pulse(grid.x, t, periodic)[None]

    p = neural.Problem(
        sm.equation.Advection(grid=grid, U=SPEED), truth(0.0), o.end, truth, sm.rk4, 0.002, outputs=24, name="u"
    )
    if periodic:
        return p
    return replace(p, encoding=partial(Coordinates, reach=2.0), dirichlet=o.boundary == "dirichlet",
                   function=lambda x: pulse(x[:, 0], 0.0, periodic=False)[None])  # fmt: skip


def run(o: Options, out: Path) -> dict[str, Any]:
    if o.boundary != "periodic" and o.end > 13:
        raise Refused(f"--end must be at most 13 s, when the pulse is near a wall, got {o.end:g}")
    if (o.boundary == "penalty") != (o.method == "adam"):
        raise Refused("--boundary penalty and --method adam go together: least squares have exact boundaries")
    size = dict(SIZES[o.preset])
    if o.method == "adam":
        size |= dict(width=20, depth=3, omega=30.0, samples=5.5)
        o = replace(o, step=o.step or 0.05)
    weights = neural.weights(o, size, problem(o))
    return neural.solved(o, out, problem(o), size, [differences(weights, o.end)])


if __name__ == "__main__":
    main(run, Options)
