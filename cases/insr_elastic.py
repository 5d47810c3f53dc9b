r"""Elastic bodies whose displacement is a neural field: four scenes of a stable Neo-Hookean solid.

    minimise over weights  rho |u - 2 u_n + u_(n-1)|^2 / (2 dt^2) + elastic, contact and external energy

    stretch    a square, symmetric at two faces, is drawn to twice its length; exact by the traction-free sides
    bar        a slender bar, fixed at one end, is let go from sin(pi x / 2 L); c = sqrt(E' / rho), E' = E / (1 - nu^2)
    collision  a square flies against a disc and bounces; depth in the disc, and energy
    twist      a square prism is twisted by 180 degrees; against triquadratic finite elements

A sine network, exact on held faces by construction, is moved by damped Gauss-Newton steps (Chen et al. 2023, ICML,
where Adam does that). Beside it finite elements of the same energy with as many numbers, and the finest that take as
long. Expected with the default preset: stretch 1e-6 (displacement, L2, relative), bar 1e-3 (frequency) and energy
within 1e-3, collision depth 7e-4 of the body's size and no energy gained, twist 1 % (displacement) and 3 % (energy).
Run time on one core: quick 1 to 10 s, default 1 s (stretch) to 1 minute (bar), full several times that.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import elastic as shared
import elements as fe
import numpy as np
import torch
from common import Common, Range, asked, main
from elastic import Row, Run, Scene
from scipy.optimize import brentq, curve_fit
from torch import Tensor

from sciml.insr.body import Body, Face, Motion, ball
from sciml.insr.hyperelastic import Energy, lame, stable_neo_hookean
from sciml.insr.increment import IMPLICIT_EULER, IMPLICIT_MIDPOINT, QUASI_STATIC

COMMON: dict[str, Any] = dict(depth=2, omega=1.0, samples=2.0, iterations=30, tolerance=1e-5, damping=1e-2, outputs=8,
                              most=1e-2)  # fmt: skip
TWIST: dict[str, Any] = dict(steps=3, outputs=3, samples=6.0, tolerance=2e-3, most=0.1)
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "stretch": {
        "quick": dict(width=6, steps=4, outputs=4),
        "default": dict(width=10, steps=8),
        "full": dict(width=16, steps=16),
    },
    "bar": {
        "quick": dict(width=8, steps=64, iterations=10, tolerance=3e-4),
        "default": dict(width=8, steps=640, iterations=10, tolerance=3e-4, outputs=40),
        "full": dict(width=8, steps=1280, iterations=10, tolerance=1e-4, outputs=40),
    },
    "collision": {
        "quick": dict(width=8, steps=120, tolerance=1e-2, damping=1.0, most=0.1, outputs=12),
        "default": dict(width=8, steps=240, tolerance=3e-3, damping=1.0, most=0.1, outputs=12),
        "full": dict(width=10, steps=480, tolerance=3e-3, damping=1.0, most=0.1, outputs=12),
    },
    "twist": {
        "quick": dict(width=10, mesh=(2, 2, 6), omega=2.0, damping=0.1, **TWIST),
        "default": dict(width=12, mesh=(3, 3, 10), omega=1.5, iterations=60, **TWIST),
        "full": dict(width=16, mesh=(4, 4, 12), omega=1.5, iterations=100, **TWIST),
    },
}


@dataclass(frozen=True)
class Options(Common):
    scene: Literal["stretch", "bar", "collision", "twist"] = "stretch"
    """What is done to the body."""
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: neural fields are stepped on the CPU."""
    load: Annotated[float, Range(0, 4, open=True)] = 1.0
    """Stretch, amplitude, speed or angle as a factor of the scene's own."""
    young: Annotated[float, Range(0, 1e12, open=True)] | None = None
    """Young's modulus in Pa, J m-3 (default: 1, in the collision 100)."""
    poisson: Annotated[float, Range(-0.99, 0.4999)] = 0.3
    """Poisson's ratio, a factor from -1 to 0.5."""
    width: Annotated[int, Range(1, 4_096)] | None = None
    """Neurons in each hidden layer (default: with the preset)."""
    depth: Annotated[int, Range(1, 64)] | None = None
    """Hidden layers (default: with the preset)."""
    omega: Annotated[float, Range(0, 1e6, open=True)] | None = None
    """Factor in the sines of the network (default: with the preset)."""
    samples: Annotated[float, Range(0, 1e4, open=True)] | None = None
    """Nodes times directions as a factor of the number of weights (default: with the preset)."""
    steps: Annotated[int, Range(1, 1_000_000)] | None = None
    """Steps from the start to the end (default: with the preset)."""
    iterations: Annotated[int, Range(1, 1_000_000)] | None = None
    """Gauss-Newton steps in each, at most (default: with the preset)."""
    tolerance: Annotated[float, Range(0, 1, open=True)] | None = None
    """Distance from the minimum where a step ends, as a factor of the energy's norm (default: with the preset)."""
    damping: Annotated[float, Range(0, 1e6, open=True)] | None = None
    """Of the layers below the head, as a factor of the mean diagonal (default: with the preset)."""
    resume: bool = False
    """Go on from the last state saved in --out."""
    movie: bool = False
    """Also write movie.gif, a frame for each output."""

    @property
    def name(self) -> str:
        return f"insr_elastic_{self.scene}"


# -- stretch ---------------------------------------------------------------------------------------------------------
def stretch(o: Options, size: Mapping[str, Any]) -> Scene:
    energy, amount = material(o, 1.0), 1.0 * o.load

    def motion(x: Tensor, t: float) -> Tensor:
        return torch.stack([amount * t * x[:, 0], 0 * x[:, 1]], -1)

    def truth(x: Tensor, t: float) -> np.ndarray:
        return np.stack([amount * t * x[:, 0].numpy(), (lateral(energy, 1 + amount * t) - 1) * x[:, 1].numpy()], -1)

    body = Body((1.0, 1.0), energy, faces=(Face(0, 0, (0,)), Face(1, 0, (1,)), Face(0, 1, (0,))), motion=motion)

    def solve(n: int) -> Row:
        mesh, started = fe.Mesh(body, (n, n)), time.process_time()
        u = fe.bent(mesh, 4)
        wanted = truth(torch.from_numpy(mesh.nodes), 1.0)
        error = float(np.linalg.norm(u - wanted) / np.linalg.norm(wanted))
        return Row(f"finite elements, {n} x {n}", u.size, error, time.process_time() - started)

    def rivals(weights: int, seconds: float) -> list[Row]:
        n = max(1, round(math.sqrt(weights / 2)) - 1)
        return shared.refined(solve, [n * 2**i for i in range(4)], seconds)

    shape = (17, 17)
    grid = even(body, shape)
    return Scene(body, 1.0, QUASI_STATIC, shape, lambda run: error(truth, grid, run), "error of displacement", truth,
                 rivals=rivals)  # fmt: skip


def lateral(energy: Energy, along: float) -> float:
    """Stretch across a body without traction there, in plane strain."""

    def traction(across: float) -> float:
        return float(energy.stress(torch.diag(torch.tensor([along, across], dtype=torch.float64))[None])[0, 1, 1])

    return float(brentq(traction, 0.05, 5.0, xtol=1e-15))  # type: ignore[arg-type]


# -- bar -------------------------------------------------------------------------------------------------------------
LENGTH, HALF = 10.0, 0.5


def bar(o: Options, size: Mapping[str, Any]) -> Scene:
    energy, amplitude = material(o, 1.0), 1e-2 * o.load
    k = math.pi / 2 / LENGTH
    frequency = k * math.sqrt((1.0 if o.young is None else o.young) / (1 - o.poisson**2))
    side, periods = o.poisson / (1 - o.poisson), 2 if o.preset == "quick" else 10
    body = Body((LENGTH, HALF), energy, faces=(Face(0, 0, (0,)), Face(1, 0, (1,))))
    end = periods * 2 * math.pi / frequency

    def shape(x: Tensor, t: float) -> Tensor:
        return amplitude * torch.stack([(k * x[:, 0]).sin(), -side * k * (k * x[:, 0]).cos() * x[:, 1]], -1)

    def truth(x: Tensor, t: float) -> np.ndarray:
        return math.cos(frequency * t) * shape(x, 0.0).numpy()

    def solve(n: int) -> Row | None:
        mesh, started, dt = fe.Mesh(body, (n, 1)), time.process_time(), end / size["steps"]
        steps, tips = size["steps"] * min(periods, 2) // periods, []
        state = fe.begun(mesh, shape(torch.from_numpy(mesh.nodes), 0.0).numpy(), dt)
        for i in range(steps):
            state = fe.moved(mesh, state, dt, i * dt)
            tips.append(state.now[-1, 0])
        seconds = (time.process_time() - started) * periods / min(periods, 2)
        return Row(f"finite elements, {n} x 1", state.now.size, fitted(dt, np.array(tips), frequency), seconds)

    def rivals(weights: int, seconds: float) -> list[Row]:
        n = max(2, weights // 4 - 1)
        return shared.refined(solve, [n, 2 * n, 4 * n], seconds)

    def own(run: Run) -> dict[str, Any]:
        change = run.energy / run.energy[0] - 1
        return {"energy_change": float(np.abs(change).max()), "thickness_effect": -((side * k * HALF) ** 2) / 6}

    dt = end / size["steps"]
    return Scene(body, end, IMPLICIT_MIDPOINT, (61, 5), lambda run: fitted(dt, run.column(6), frequency),
                 "error of frequency", truth, start=shape, scale=amplitude, rivals=rivals,
                 magnify=100 / o.load, own=own)  # fmt: skip


def fitted(dt: float, tips: np.ndarray, frequency: float) -> float:
    """Relative error of the frequency of the nearest harmonic motion."""
    t = dt * np.arange(1, len(tips) + 1)

    def harmonic(t, a, w, phase):
        return a * np.cos(w * t + phase)

    (_, w, _), _ = curve_fit(harmonic, t, tips, p0=[np.abs(tips).max(), frequency, 0.0])
    return float(abs(w / frequency - 1))


# -- collision -------------------------------------------------------------------------------------------------------
def collision(o: Options, size: Mapping[str, Any]) -> Scene:
    circle = (0.35, -0.55, 0.5)
    body = Body((1.0, 1.0), material(o, 100.0), obstacles=(ball(circle[:2], circle[2]),),
                stiffness=8e5 * (100.0 if o.young is None else o.young) / 100.0)  # fmt: skip

    def velocity(x: Tensor, t: float) -> Tensor:
        return torch.stack([0 * x[:, 0], -o.load + 0 * x[:, 1]], -1)

    def own(run: Run) -> dict[str, Any]:
        total = np.concatenate([[0.5 * o.load**2], run.energy])
        return {"energy_gained": float(max(0.0, np.diff(total).max()) / total[0]),
                "energy_at_the_end": float(total[-1] / total[0]),
                "rebound": float(torch.diff(torch.stack(run.fields)[-2:, 1].mean((1, 2)))[0]
                                 / (run.times[-1] - run.times[-2]) / o.load)}  # fmt: skip

    return Scene(body, 0.6 / o.load, IMPLICIT_EULER, (25, 25), lambda run: float(run.column(5).max()),
                 "depth over the size of the body", velocity=velocity, circle=circle, own=own)  # fmt: skip


# -- twist -----------------------------------------------------------------------------------------------------------
TALL = 4.0


def twist(o: Options, size: Mapping[str, Any]) -> Scene:
    angle = math.pi * o.load
    every = (0, 1, 2)
    body = Body((1.0, 1.0, TALL), material(o, 1.0), faces=(Face(2, 0, every), Face(2, 1, every)), motion=turned(angle))
    reference, shape = fe.Mesh(body, size["mesh"], 2), (17, 17, 65)
    u, grid = fe.bent(reference, 1, lambda x, u, t: body.lifted(torch.from_numpy(x), t)[0].numpy()), even(body, shape)

    def truth(x: Tensor, t: float) -> np.ndarray:
        return reference.at(u, x.numpy()) if t > 1 - 1e-9 else np.full(x.shape, np.nan)

    def solve(n: int) -> Row:
        mesh, started = fe.Mesh(body, (n, n, 4 * n)), time.process_time()
        found = fe.bent(mesh, 1, lambda x, u, t: body.lifted(torch.from_numpy(x), t)[0].numpy())
        seconds, wanted = time.process_time() - started, truth(grid, 1.0)
        error = float(np.linalg.norm(mesh.at(found, grid.numpy()) - wanted) / np.linalg.norm(wanted))
        return Row(f"finite elements, {n} x {n} x {4 * n}", found.size, error, seconds)

    def rivals(weights: int, seconds: float) -> list[Row]:
        wanted = truth(grid, 1.0)
        alone = float(np.linalg.norm(body.lifted(grid, 1.0)[0].numpy() - wanted) / np.linalg.norm(wanted))
        n = max(n for n in range(1, 20) if n == 1 or 3 * (n + 1) ** 2 * (4 * n + 1) <= 1.1 * weights)
        return [Row("uniform twist, without a network", 0, alone, 0.0),
                *shared.refined(solve, [n, n + 1, n + 2, n + 3, n + 4], seconds)]  # fmt: skip

    def own(run: Run) -> dict[str, Any]:
        stored = reference.energy(u)
        return {"error_of_energy": float(run.energy[-1] / stored - 1)}

    return Scene(body, 1.0, QUASI_STATIC, shape, lambda run: error(truth, grid, run), "error of displacement", truth,
                 rivals=rivals, own=own)  # fmt: skip


def turned(angle: float) -> Motion:
    """Cross-sections turned about the axis of a prism in proportion to their height."""

    def motion(x: Tensor, t: float) -> Tensor:
        turn, a, b = angle * t * x[:, 2] / TALL, x[:, 0] - 0.5, x[:, 1] - 0.5
        c, s = turn.cos() - 1, turn.sin()
        return torch.stack([c * a - s * b, s * a + c * b, 0 * a], -1)

    return motion


# -- all -------------------------------------------------------------------------------------------------------------
def material(o: Options, young: float) -> Energy:
    return stable_neo_hookean(*lame(young if o.young is None else o.young, o.poisson))


def even(body: Body, shape: tuple[int, ...]) -> Tensor:
    """The grid that is read."""
    return torch.from_numpy(fe.Mesh(body, tuple(n - 1 for n in shape)).nodes)


def error(truth, grid: Tensor, run: Run) -> float:
    """At the end, L2, relative."""
    wanted = truth(grid, run.times[-1])
    return float(np.linalg.norm(run.fields[-1].flatten(1).mT.numpy() - wanted) / np.linalg.norm(wanted))


SCENES = {"stretch": stretch, "bar": bar, "collision": collision, "twist": twist}


def run(o: Options, out: Path) -> dict[str, Any]:
    size = asked(o, {**COMMON, **SIZES[o.scene][o.preset]})
    size["outputs"] = min(size["outputs"], size["steps"])
    return shared.finish(o, out, SCENES[o.scene](o, size), size)


if __name__ == "__main__":
    main(run, Options)
