r"""A Rossby-Haurwitz wave on the turning sphere by a neural field.

    u_t = (omega + 2 Omega sin(lat)) v,  v_t = -(omega + 2 Omega sin(lat)) u  up to a gradient,  omega = lap psi

in units of the radius and of days (Omega = 2 pi). The wave of Haurwitz (1940, J. Mar. Res. 3, 254), four crests around
the pole, turns at a constant rate without change: exact for the nonlinear equation, by a wavelength in 7.4 days. The
streamfunction is a network of spherical harmonics of unit vectors (Russwurm et al. 2024, ICLR): no pole, no mesh.

Beside it a spectral solver with as many numbers (harmonics up to a degree, on Gaussian latitudes), which holds the wave
exactly. Errors are of velocity. The wave is unstable: any error grows by e in 2.3 days, in the spectral solver as well,
so that a network's 3e-6 is 1e-2 after two weeks. Expected: 2e-5 after a day, 2e-4 after 7.4 days with 297 weights.
Run time on one core: quick 10 s, default 1 minute, full 3 minutes.

Writes fields.nc, state.safetensors, error.png, fields.png and summary.json.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import neural
import numpy as np
import torch
import xarray as xr
from common import Range, main
from torch import Tensor

import sciml as sm
from sciml.equation.expression import Field, dx, dy, expand
from sciml.field import NeuralField
from sciml.insr.build import insr_on_sphere
from sciml.insr.domain import Sphere, unit_vectors
from sciml.insr.step import NeuralStep
from sciml.nn.encodings import Harmonics
from sciml.nn.jets import sines

SIZES: dict[str, dict[str, Any]] = {
    "quick": dict(width=8, depth=1, omega=1.0, samples=2.5, iterations=150, tolerance=1e-5),
    "default": dict(width=8, depth=1, omega=1.0, samples=2.5, iterations=500, tolerance=1e-6),
    "full": dict(width=12, depth=1, omega=1.0, samples=2.5, iterations=1000, tolerance=1e-8),
}
OMEGA, R, W = 2 * math.pi, 4, 7.848e-6 / 7.292e-5 * 2 * math.pi
RATE = (R * (3 + R) * W - 2 * OMEGA) / ((1 + R) * (2 + R))
"""of the turning, rad/day; K = W, as in Williamson et al. (1992, JCP 102, 211), case 6"""
SHAPE = 90, 180


@dataclass(frozen=True)
class Options(neural.Neural):
    degree: Annotated[int, Range(1, 12)] = 5
    """Highest degree of the harmonics that the network sees."""
    days: Annotated[float, Range(0, 100, open=True)] | None = None
    """Length of the run in days (default: 7.4, one wavelength; with the preset quick 1)."""


def wave(days: float):
    """Streamfunction of unit vectors ``(n, 3)``, ``(1, n)``."""

    def psi(positions: Tensor) -> Tensor:
        at = Sphere().coords(positions)
        lon, lat = at["x"], at["y"]
        return (W * lat.sin() * (lat.cos() ** R * torch.cos(R * (lon - RATE * days)) - 1))[None]

    return psi


def spectral(degree: int, days: float, dt: float = 0.02) -> neural.Row:
    """The vorticity equation for coefficients of harmonics, projected on Gaussian nodes, by a fourth-order method."""
    domain, harmonics = Sphere(), Harmonics(degree)
    x, weight = domain.nodes(2 * (3 * degree // 2 + 2) ** 2, torch.Generator())
    jet, sin_lat = harmonics.jet(domain.jet(x, 2)), x[:, 2]
    Y, east, north = jet.c[0], jet.derivative(1), jet.derivative(0, 1)
    eigen = ((jet.derivative(2) + jet.derivative(0, 2)) * Y * weight[:, None]).sum(0)
    started = time.monotonic()

    def slope(a: Tensor) -> Tensor:
        """Of ``omega_t = -div (u, v) (omega + f)``, times each harmonic and by parts."""
        total = weight * (Y @ (eigen * a) + 2 * OMEGA * sin_lat)
        return (east.T @ (total * -(north @ a)) + north.T @ (total * (east @ a))) / eigen

    a = Y.T @ (weight * wave(0.0)(x)[0])
    for _ in range(round(days / dt)):
        k1 = slope(a)
        k2 = slope(a + dt / 2 * k1)
        k3 = slope(a + dt / 2 * k2)
        a = a + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(a + dt * k3))
    true = Y.T @ (weight * wave(round(days / dt) * dt)(x)[0])
    error = float(((eigen.abs() * (a - true).square()).sum() / (eigen.abs() * true.square()).sum()).sqrt())
    return neural.Row(
        f"spectral, harmonics to degree {degree} (equal memory)", len(a), error, time.monotonic() - started
    )


def network(o: Options, size: dict[str, Any]) -> NeuralField:
    """Sines of harmonics."""
    encoding, width = Harmonics(o.degree), size["width"]
    bounds = [1 / encoding.width, *[math.sqrt(6 / width) / size["omega"]] * size["depth"]]
    return NeuralField(encoding, (width,) * size["depth"], 1, o.seed, sines(size["omega"]), bounds)


def run(o: Options, out: Path) -> dict[str, Any]:
    size = neural.chosen(o, SIZES[o.preset])
    days = o.days if o.days is not None else 1.0 if o.preset == "quick" else 2 * math.pi / RATE / R
    lat, lon = (np.arange(n) for n in SHAPE)
    lat, lon = 180 * ((lat + 0.5) / SHAPE[0] - 0.5), 360 * lon / SHAPE[1]
    axes = {
        "lat": xr.DataArray(lat, dims="lat", attrs={"units": "degrees_north", "axis": "Y", "long_name": "latitude"}),
        "lon": xr.DataArray(lon, dims="lon", attrs={"units": "degrees_east", "axis": "X", "long_name": "longitude"}),
    }
    radians = torch.deg2rad(torch.from_numpy(lat))[:, None]
    points = unit_vectors(torch.deg2rad(torch.from_numpy(lon)), radians).reshape(-1, 3)
    none = sm.equation.Vorticity(grid=sm.Grid(1))  # what the others solve
    p = neural.Problem(none, torch.zeros(1), days, lambda t: exact(step, points, t), sm.rk4, 0.0, name="velocity",
                       components=("eastward", "northward"), time_units="days",
                       axes=axes, weight=radians.cos(), function=wave(0.0))  # fmt: skip
    net = network(o, size)
    samples = round(size["samples"] * neural.count(net))
    step = insr_on_sphere(OMEGA, net, neural.spacing(o, p), neural.method(o, size), samples=samples,
                             iterations=size["iterations"])  # fmt: skip
    step = replace(step, output=(points, (expand(-dy(Field("psi"))), expand(dx(Field("psi")))), SHAPE))
    degree = max(R + 1, round(math.sqrt(neural.count(net))) - 1)
    return neural.finish(o, out, p, step, lambda run: [spectral(degree, days)])


def exact(step: NeuralStep, points: Tensor, days: float) -> Tensor:
    """Velocity of the wave."""
    values = step.differentiated(wave(days), points)
    return step.system.read_with(step.system.left, values, step.coords(points, days)).detach().reshape(2, *SHAPE)


if __name__ == "__main__":
    main(run, Options)
