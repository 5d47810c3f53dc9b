"""Where neural fields live: how positions become jets, and quadratures ``(nodes (n, d), weights (n,))``, sum 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sciml.grid import Grid
from sciml.nn.jets import Jet, coordinates, indices

Nodes = tuple[Tensor, Tensor]


class Domain(Protocol):
    """What stepping asks of a domain."""

    def jet(self, positions: Tensor, order: int) -> Jet:
        """Of positions, in the directions in which the equations differentiate."""
        ...

    def coords(self, positions: Tensor) -> dict[str, Tensor]:
        """Coordinates ``x`` and ``y`` as equations know them."""
        ...

    def nodes(self, n: int, generator: torch.Generator) -> Nodes:
        """About n."""
        ...


# -- boxes -----------------------------------------------------------------------------------------------------------
Offsets = Callable[[int, torch.Generator], Tensor]
"""Of nodes in their cells, ``(n, 2)`` from 0 to 1."""


def midpoints(n: int, generator: torch.Generator) -> Tensor:
    """Always the same: exact for periodic functions with fewer waves than nodes."""
    return torch.full((n, 2), 0.5, dtype=torch.float64)


def shifted(n: int, generator: torch.Generator) -> Tensor:
    """Even, with one random shift."""
    return torch.rand(1, 2, generator=generator, dtype=torch.float64).expand(n, 2)


def stratified(n: int, generator: torch.Generator) -> Tensor:
    """Random, one in each cell."""
    return torch.rand(n, 2, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Box:
    """The box of a grid, in one dimension where it has one row; positions are [x, y]."""

    grid: Grid
    offsets: Offsets = midpoints

    def jet(self, positions: Tensor, order: int) -> Jet:
        return coordinates(positions, 2 if self.grid.ny > 1 else 1, order)

    def coords(self, positions: Tensor) -> dict[str, Tensor]:
        return {"x": positions[..., 0], "y": positions[..., 1]}

    def nodes(self, n: int, generator: torch.Generator) -> Nodes:
        """One in each of about n cells that are about square."""
        grid = self.grid
        columns = n if grid.ny == 1 else max(1, round(math.sqrt(n * grid.Lx / grid.Ly)))
        rows = 1 if grid.ny == 1 else max(1, round(n / columns))
        j, i = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cell = torch.stack([i, j], -1).reshape(-1, 2).double()
        place = (cell + self.offsets(len(cell), generator)) / torch.tensor([columns, rows])
        weight = torch.full((len(cell),), 1 / len(cell), dtype=torch.float64)
        start, length = torch.tensor([[grid.x0, grid.y0], [grid.Lx, grid.Ly if grid.ny > 1 else 0.0]]).double()
        return (start + place * length).to(grid.device), weight.to(grid.device)


# -- the sphere ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sphere:
    r"""The unit sphere; positions are unit vectors, x is longitude and y latitude.

    Jets are in normal coordinates, s to the east and t to the north along great circles,
    :math:`p + s e + t n - (s^2 + t^2) p / 2 + O(3)`: first derivatives are the gradient's components, the sum of the
    pure second ones the Laplacian. Orders above 2 are refused, as there curvature enters.
    """

    def jet(self, positions: Tensor, order: int) -> Jet:
        if order > 2:
            raise ValueError("on the sphere equations may have second derivatives at most; use the form `momentum`")
        east, north = directions(positions)
        rows = [positions, east, north, -positions / 2, torch.zeros_like(positions), -positions / 2]
        return Jet(torch.stack(rows[: len(indices(2, order))]), 2, order)

    def coords(self, positions: Tensor) -> dict[str, Tensor]:
        return {"x": torch.atan2(positions[..., 1], positions[..., 0]), "y": torch.asin(positions[..., 2].clamp(-1, 1))}

    def nodes(self, n: int, generator: torch.Generator) -> Nodes:
        """Gaussian latitudes and twice as many meridians: exact for spherical harmonics up to about ``sqrt(2 n)``."""
        rows = max(2, round(math.sqrt(n / 2)))
        z, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(rows))
        lon = 2 * math.pi * torch.arange(2 * rows, dtype=torch.float64) / (2 * rows)
        positions = unit_vectors(lon[None, :], torch.asin(z)[:, None]).reshape(-1, 3)
        return positions, weight[:, None].expand(rows, 2 * rows).reshape(-1) / weight.sum() / (2 * rows)


def unit_vectors(lon: Tensor, lat: Tensor) -> Tensor:
    """``(..., 3)`` of longitudes and latitudes in radians."""
    parts = torch.broadcast_tensors(lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin())
    return torch.stack(parts, -1)


def directions(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors to the east and to the north; at the poles along and across the meridian of 0."""
    x, y, _ = positions.unbind(-1)
    across = torch.stack([-y, x, torch.zeros_like(x)], -1)
    length = across.norm(dim=-1, keepdim=True)
    pole = across.new_tensor([0.0, 1.0, 0.0]).expand_as(across)
    east = torch.where(length > 1e-12, across / length.clamp(min=1e-12), pole)
    return east, torch.linalg.cross(positions, east)
