"""Bodies for neural elasticity: boxes at rest, what holds them, what they touch, and quadratures over them.

Positions are ``(n, d)``, d 2 or 3, in the reference configuration; displacements too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sciml.field import Constraint, NeuralField
from sciml.insr.hyperelastic import Energy
from sciml.nn.encodings import Coordinates
from sciml.nn.jets import Activation, Jet, coordinates, sines

Motion = Callable[[Tensor, float], Tensor]
"""``(positions (n, d), time) -> (n, d)``"""
Obstacle = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``places (n, d) -> signed distances (n,), negative inside, and outward unit normals (n, d)``"""
Nodes = tuple[Tensor, Tensor]
"""Positions ``(n, d)`` and weights ``(n,)``, whose sum is the volume or area [m^d or m^(d-1)]."""
Quadrature = Callable[[Sequence[float], int, torch.Generator], Nodes]
"""``(lengths, about how many, generator) -> nodes`` of a box from the origin."""


class Face(NamedTuple):
    """Where some components of the displacement are prescribed."""

    axis: int
    side: int
    """0 where the coordinate is least, 1 where it is largest"""
    components: tuple[int, ...]


@dataclass(frozen=True)
class Body:
    """A box from the origin.

    Raises ``ValueError`` for sides, a density, faces and a stiffness that cannot be.

    Parameters
    ----------
    lengths : of its sides [m], two (plane strain) or three
    energy : see :mod:`sciml.insr.hyperelastic`
    density : mass [kg m-3]
    faces : where it is held
    motion : a displacement [m] of the whole body, differentiable, that is as prescribed on these faces; zero by default
    force : per mass [m s-2]
    obstacles, stiffness : what it does not enter, by a pressure [Pa] of ``stiffness`` [Pa m-1] times the depth
    """

    lengths: tuple[float, ...]
    energy: Energy
    density: float = 1.0
    faces: tuple[Face, ...] = ()
    motion: Motion | None = None
    force: Motion | None = None
    obstacles: tuple[Obstacle, ...] = ()
    stiffness: float = 0.0

    def __post_init__(self):
        if self.d not in (2, 3) or not all(0 < a < math.inf for a in self.lengths):
            raise ValueError(f"a body has two or three sides of positive length, got {self.lengths}")
        if not 0 < self.density < math.inf:
            raise ValueError(f"the density must be positive, got {self.density}")
        if self.obstacles and not 0 < self.stiffness < math.inf:
            raise ValueError(f"obstacles need a positive stiffness, got {self.stiffness}")
        for face in self.faces:
            if not (0 <= face.axis < self.d and face.side in (0, 1) and {*face.components} <= {*range(self.d)}):
                raise ValueError(f"in {self.d} dimensions there is no face {tuple(face[:3])}")

    @property
    def d(self) -> int:
        return len(self.lengths)

    @property
    def volume(self) -> float:
        return math.prod(self.lengths)

    def held(self, component: int) -> list[Face]:
        return [f for f in self.faces if component in f.components]

    def lifted(self, positions: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """The motion that is given and its gradient ``(n, d, d)``, component first."""
        if self.motion is None:
            return torch.zeros_like(positions), positions.new_zeros(*positions.shape, self.d)
        return differentiated(self.motion, positions, time)


def differentiated(motion: Motion, positions: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """A displacement ``(n, d)`` and its gradient ``(n, d, d)``, component first."""
    with torch.enable_grad():
        x = positions.detach().clone().requires_grad_()
        u = motion(x, time)
        rows = [torch.autograd.grad(c.sum(), x, retain_graph=True, allow_unused=True)[0] if c.requires_grad else None
                for c in u.unbind(-1)]  # fmt: skip
    return u.detach(), torch.stack([torch.zeros_like(x) if r is None else r for r in rows], 1).detach()


def held(body: Body, scale: float) -> Constraint:
    """What the head gives, times ``scale`` [m] and, for each component, the distances from the faces that hold it."""

    def constraint(positions: Jet, values: Jet) -> Jet:
        columns = []
        for i in range(body.d):
            column = values[i : i + 1] * scale
            for face in body.held(i):
                place = positions[face.axis : face.axis + 1] * (1 / body.lengths[face.axis])
                column = column * (place * -1.0 + 1.0 if face.side else place)
            columns.append(column.c)
        return Jet(torch.cat(columns, -1), values.dims, values.order)

    return constraint


# -- networks --------------------------------------------------------------------------------------------------------
class Centred(Coordinates):
    """Coordinates from -1 to 1 along every side of a body."""

    def __init__(self, body: Body):
        nn.Module.__init__(self)
        self.dims = self.width = body.d
        self.reach = 1.0
        self.register_buffer("origin", torch.zeros(body.d, dtype=torch.float64))
        self.register_buffer("length", torch.tensor(body.lengths, dtype=torch.float64))


def displacement(
    body: Body, widths: Sequence[int], omega: float = 1.0, seed: int = 0, activation: Activation | None = None
) -> NeuralField:
    """A sine network (Sitzmann et al. 2020), or one of another ``activation``, that is zero everywhere at first."""
    bounds = [1 / body.d, *(math.sqrt(6 / n) / omega for n in widths)]
    net = NeuralField(Centred(body), widths, body.d, seed, activation or sines(omega), bounds)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    return net


# -- obstacles -------------------------------------------------------------------------------------------------------
def ball(centre: Sequence[float], radius: float) -> Obstacle:
    """A disc or a sphere. Raises ``ValueError`` for a radius that is not positive."""
    if not 0 < radius < math.inf:
        raise ValueError(f"the radius of an obstacle must be positive, got {radius}")

    def obstacle(places: Tensor) -> tuple[Tensor, Tensor]:
        away = places - places.new_tensor(centre)
        distance = away.norm(dim=-1).clamp(min=1e-12)
        return distance - radius, away / distance[:, None]

    return obstacle


def floor(height: float, axis: int = -1) -> Obstacle:
    """All below a height along an axis."""

    def obstacle(places: Tensor) -> tuple[Tensor, Tensor]:
        normal = torch.zeros_like(places)
        normal[:, axis] = 1.0
        return places[:, axis] - height, normal

    return obstacle


# -- quadratures -----------------------------------------------------------------------------------------------------
def cells(lengths: Sequence[float], n: int) -> list[int]:
    """Numbers along each side of about n cells that are about cubes."""
    edge = (math.prod(lengths) / n) ** (1 / len(lengths))
    return [max(1, round(length / edge)) for length in lengths]


def gauss(lengths: Sequence[float], n: int, generator: torch.Generator, order: int = 3) -> Nodes:
    """Gauss and Legendre's, with ``order`` nodes along each side of each cell."""
    line, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(order))
    axes, weights = [], []
    for length, count in zip(lengths, cells(lengths, max(1, round(n / order ** len(lengths)))), strict=True):
        step = length / count
        axes.append(((torch.arange(count)[:, None] + 0.5 + line / 2) * step).flatten())
        weights.append((weight * step / 2).repeat(count))
    return tensor_product(axes), tensor_product(weights).prod(-1)


def stratified(lengths: Sequence[float], n: int, generator: torch.Generator) -> Nodes:
    """One at random in each cell."""
    counts = cells(lengths, n)
    corner = tensor_product([torch.arange(c).double() for c in counts])
    place = (corner + torch.rand(corner.shape, generator=generator, dtype=torch.float64)) / torch.tensor(counts)
    return place * torch.tensor(lengths).double(), torch.full((len(place),), math.prod(lengths) / len(place)).double()


def tensor_product(axes: Sequence[Tensor]) -> Tensor:
    """``(n, d)``, the last axis running fastest."""
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def surface(body: Body, n: int, generator: torch.Generator, quadrature: Quadrature = gauss) -> Nodes:
    """About n nodes on all faces together."""
    axes = range(body.d)
    areas = [body.volume / length for length in body.lengths]
    places, weights = [], []
    for axis, side in itertools.product(axes, (0, 1)):
        others = [body.lengths[i] for i in axes if i != axis]
        x, w = quadrature(others, max(1, round(n * areas[axis] / (2 * sum(areas)))), generator)
        columns = list(x.unbind(-1))
        columns.insert(axis, torch.full_like(w, side * body.lengths[axis]))
        places.append(torch.stack(columns, -1))
        weights.append(w)
    return torch.cat(places), torch.cat(weights)


def jets(positions: Tensor) -> Jet:
    """Positions with first derivatives."""
    return coordinates(positions, positions.shape[-1], 1)
