"""Data sets on which neural operators are compared, made from seeds: Darcy flow, Helmholtz, Navier-Stokes.

The recipes are those of the published files, whose samples these are not: they are drawn from the same distributions.
Every sample has a seed of its own, so that a larger set begins with the smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from sciml.equation import coefficients, helmholtz
from sciml.equation.elliptic import darcy, direct, elliptic, linear_elements
from sciml.equation.vorticity import Vorticity
from sciml.grid import Grid
from sciml.initial import gaussian_random_field
from sciml.rollout import rollout
from sciml.step import etdrk4

SPLITS = ("train", "test")
Pair = tuple[np.ndarray, np.ndarray]


class Recipe(NamedTuple):
    """An operator from a coefficient to a solution on the unit square."""

    text: str
    make: Callable[[int, int], Pair]
    """``(points, seed) -> (coefficient, solution)`` on a vertex grid"""
    points: int
    fine: int
    """points of the grid on which the problem is solved"""
    names: tuple[str, str] = ("coefficient", "solution")


def darcy_of(coefficient: Callable[[int, int], np.ndarray]) -> Callable[[int, int], Pair]:
    """The recipe of Darcy flow through random coefficients ``(points, seed) -> (ny, nx)``."""

    def make(points: int, seed: int) -> Pair:
        a = coefficient(points, seed)
        return a, darcy(a)

    return make


def multiscale(points: int, seed: int) -> Pair:
    """Multiscale trigonometric coefficient and the solution by linear elements."""
    a, s = coefficients.trigonometric(seed), np.linspace(0, 1, points)
    return a(s[None, :], s[:, None]), elliptic(linear_elements(a, points, points), solve=direct)


def waves(points: int, seed: int) -> Pair:
    """Wave speed and the solution of the Helmholtz problem for the angular frequency 1000."""
    c = helmholtz.speed(points, seed)
    return c, helmholtz.helmholtz(c)


DARCY = "-div(a grad u) = 1, u = 0 on the boundary; finite volumes, 5 points, harmonic means; a = "
PHASES = " where N(0, tau^(2 alpha - 2) (-lap + tau^2)^-alpha), Neumann, is not negative, else "
RECIPES: Mapping[str, Recipe] = {
    "darcy-smooth": Recipe(f"{DARCY}12{PHASES}3; alpha = 2, tau = 3", darcy_of(coefficients.smooth_phases), 85, 253),
    "darcy-rough": Recipe(f"{DARCY}12{PHASES}2; alpha = 2, tau = 5", darcy_of(coefficients.rough_phases), 85, 253),
    "multiscale": Recipe(
        "-div(a grad u) = 1, u = 0 on the boundary; linear elements; a = prod_k (1 + cos(a_k pi (x + y)) / 2) "
        "(1 + sin(a_k pi (y - 3 x)) / 2), a_k in [2^(k-1), 1.5 2^(k-1)], k = 1 to 6",
        multiscale, 85, 421,
    ),
    "helmholtz": Recipe(
        "-lap u - (1000 / a)^2 u = 0, du/dn = 1 on the top where |x - 0.5| <= 0.15, else 0; bilinear elements; a = "
        "20 + tanh of the 100 gravest modes of N(0, (-lap + 9)^-2), Neumann",
        waves, 101, 101, ("wave speed", "solution"),
    ),
}  # fmt: skip


# -- seeds and grids -------------------------------------------------------------------------------------------------
def sample_seeds(seed: int, split: str, start: int, stop: int) -> list[int]:
    """Seeds of the samples ``start`` to ``stop - 1``; those of train and test have nothing in common."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    entropy = ([seed, SPLITS.index(split), i] for i in range(start, stop))
    return [int(np.random.SeedSequence(e).generate_state(1, np.uint64)[0] >> 1) for e in entropy]


def stride(fine: int, points: int, periodic: bool = False) -> int:
    """Every how many points of the fine grid there is one of the coarse grid."""
    intervals, coarse = (fine, points) if periodic else (fine - 1, points - 1)
    if points < 3 or intervals % coarse:
        hint = f"{2 * coarse + (not periodic)} or {3 * coarse + (not periodic)}"
        raise ValueError(f"the points of a grid of {points} are not among those of {fine}; take fine = {hint}")
    return intervals // coarse


def coordinates(points: int, periodic: bool = False) -> dict[str, Any]:
    """CF coordinates of the unit square."""
    s = np.linspace(0, 1, points, endpoint=not periodic)
    more = {"period": 1.0} if periodic else {}
    return {n: (n, s, {"units": "1", "axis": n.upper(), "long_name": f"{n} coordinate", **more}) for n in ("y", "x")}


def described(data: Mapping[str, Any], coords: Mapping[str, Any], **attrs: Any) -> xr.Dataset:
    return xr.Dataset(data, coords, {"Conventions": "CF-1.11", "source": f"sciml {version('sciml')}", **attrs})


# -- the data sets ---------------------------------------------------------------------------------------------------
def elliptic_samples(task: str, seeds: Sequence[int], points: int | None = None, fine: int | None = None) -> xr.Dataset:
    """CF Dataset with ``a`` and ``u (sample, y, x)`` in single precision, by a recipe of :data:`RECIPES`.

    The problem is solved on ``fine`` points in each direction, ``points`` of which are kept.
    """
    if task not in RECIPES:
        raise ValueError(f"there is no task {task!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[task]
    points = points or recipe.points
    fine = fine or (recipe.fine if points == recipe.points else 3 * (points - 1) + 1)
    s = stride(fine, points)
    pairs = [recipe.make(fine, seed) for seed in seeds]
    values = [np.stack([p[i][::s, ::s] for p in pairs]).astype(np.float32) for i in (0, 1)]
    about = [{"units": "1", "long_name": n} for n in recipe.names]
    data = {n: (("sample", "y", "x"), v, d) for n, v, d in zip("au", values, about, strict=True)}
    return described(data, coordinates(points), title=task, recipe=recipe.text, points_solved=fine)


class Flow(NamedTuple):
    r"""Navier-Stokes flow of Li et al. (2021), appendix A.3.3, on the unit torus.

    .. math:: \omega_t + u \cdot \nabla \omega = \nu \nabla^2 \omega + 0.1 (\sin 2\pi(x + y) + \cos 2\pi(x + y)),
        \qquad \omega_0 \sim N(0, 7^3 (-\nabla^2 + 49)^{-2.5})
    """

    nu: float = 1e-5
    records: int = 20
    """times 1, 2, ... that are kept besides the start"""
    points: int = 64
    fine: int = 128
    steps: int | None = None
    """steps per unit time (default: 100 for 128 points and in proportion, which keeps the Courant number below 1)"""
    device: str = "cpu"

    @property
    def grid(self) -> Grid:
        return Grid(self.fine, Lx=1.0, x0=0.0, y0=0.0, device=self.device)

    @property
    def steps_per_time(self) -> int:
        return self.steps or math.ceil(self.fine / 1.28)


PUBLISHED = Flow()
"""The case of viscosity 1e-5, on half the points of the published runs in each direction."""


def forcing(grid: Grid) -> torch.Tensor:
    x, y = grid.axes()
    return 0.1 * (torch.sin(2 * math.pi * (x + y)) + torch.cos(2 * math.pi * (x + y)))


def first_vorticity(grid: Grid, seeds: Sequence[int]) -> torch.Tensor:
    """Start of every sample, ``(sample, 1, ny, nx)``."""
    return torch.stack([gaussian_random_field(grid, seed, tau=7.0, alpha=2.5, sigma=7**1.5) for seed in seeds])[:, None]


def flow_samples(seeds: Sequence[int], flow: Flow = PUBLISHED) -> xr.Dataset:
    """CF Dataset with ``omega (sample, time, y, x)`` in single precision; products are dealiased by the 2/3 rule.

    Samples are advanced together, which takes half the time; ``etdrk4`` takes the place of the published first-order
    scheme, whose step is 1e-4.
    """
    grid, n = flow.grid, flow.steps_per_time
    s = stride(flow.fine, flow.points, periodic=True)
    step = etdrk4(Vorticity(grid=grid, nu=flow.nu, force=forcing(grid)), 1 / n)

    def kept(state) -> torch.Tensor:
        return step.read(state)[:, 0, ::s, ::s].float().cpu()

    with torch.no_grad():
        omega = rollout(step, flow.records * n, n, kept)(first_vorticity(grid, seeds)).fields.transpose(0, 1)
    time = np.arange(flow.records + 1.0), {"units": "1", "axis": "T", "long_name": "time"}
    data = {"omega": (("sample", "time", "y", "x"), omega.numpy(), {"units": "1", "long_name": "vorticity"})}
    text = "w_t + u.grad w = nu lap w + 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)); w_0 = N(0, 343 (-lap + 49)^-2.5)"
    attrs = {"title": "ns", "recipe": text, "nu": flow.nu, "points_solved": flow.fine, "steps_per_time": n}
    return described(data, {"time": ("time", *time), **coordinates(flow.points, periodic=True)}, **attrs)
