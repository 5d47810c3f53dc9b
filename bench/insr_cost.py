"""Cost of one least-squares step of a neural field against the number of samples.

    python bench/insr_cost.py [--width 12] [--samples 1000 2000 4000 8000] [--repeats 5]

Process time of a step's linear problem (Jacobian, its Gram matrix, Cholesky) of Burgers' equation for a fixed network,
the least of some repeats, and the exponent of its growth, fitted to all (1: linear).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro

import sciml as sm
from sciml.field import Siren
from sciml.insr.solve import primal
from sciml.insr.tangent import linearised


@dataclass(frozen=True)
class Options:
    width: int = 12
    """Of the three layers of the network."""
    samples: tuple[int, ...] = (1000, 2000, 4000, 8000)
    """Nodes of the quadrature."""
    repeats: int = 5
    """Of each time, of which the least counts."""


def seconds(width: int, samples: int, repeats: int) -> float:
    """Process time of one evaluation of the weights' derivative."""
    grid = sm.Grid(64, 1, Lx=2 * math.pi, Ly=1.0, x0=0.0, y0=0.0)
    step = sm.insr(
        sm.equation.Burgers(grid=grid, nu=0.05), Siren(grid, 1, (width,) * 3, omega=1.0), 0.1, samples=samples
    )
    x, root = step.nodes(torch.Generator())
    found = []
    for _ in range(repeats + 1):
        started = time.process_time()
        J, _, f, _ = linearised(step, step.start, 0.0, x, root, x.new_ones(1), ())
        primal(J, f, 1e-8)
        found.append(time.process_time() - started)
    return min(found[1:])


def run(o: Options) -> float:
    """The exponent."""
    times = [seconds(o.width, n, o.repeats) for n in o.samples]
    for n, t in zip(o.samples, times, strict=True):
        print(f"{n:8d} samples {1000 * t:9.1f} ms {1e6 * t / n:9.2f} us a sample")
    exponent = float(np.polyfit(np.log(o.samples), np.log(times), 1)[0])
    print(f"cost grows as samples^{exponent:.2f}")
    return exponent


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(tyro.cli(Options, description=__doc__))
