"""Filling gaps: values at scattered sensors of a periodic box -> fields on its whole grid.

An interpolator is a function ``(positions (m, 2) [x, y], values (..., m), sigma=0) -> fields (..., ny, nx)`` in
float64, periodic like the box. The snapshots of a batch share their sensors, so that work on positions is done once.
Positions may be anywhere and are wrapped into the box. All raise ``ValueError`` for values that do not fit or are not
finite, and for two sensors at one place. ``sigma``, the standard deviation of noise, is used by
:mod:`~sciml.kriging` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import CloughTocher2DInterpolator, RBFInterpolator
from scipy.spatial import KDTree
from torch import Tensor

from sciml.grid import Grid

Interpolator = Callable[..., Tensor]
SAME = 1e-6
"""Places less than this far apart, in cells, are one place."""


# -- sensors ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sensors:
    """Places ``(m, 2)`` inside the box, as offsets from the first point of the grid."""

    grid: Grid
    offset: Tensor

    def __len__(self) -> int:
        return len(self.offset)

    @cached_property
    def cell(self) -> tuple[Tensor, Tensor] | None:
        """Row and column of every sensor, or None where one is not at a point of the grid."""
        place = self.offset / self.offset.new_tensor([self.grid.dx, self.grid.dy])
        if bool(((place - place.round()).abs() > SAME).any()):
            return None
        column, row = place.round().long().T
        return row % self.grid.ny, column % self.grid.nx

    @cached_property
    def waves(self) -> tuple[Tensor, Tensor]:
        """``exp(i k x)`` and ``exp(i l y)``, ``(m, k)`` and ``(m, l)``."""
        return torch.exp(1j * self.offset[:, :1] * self.grid.k.T), torch.exp(1j * self.offset[:, 1:] * self.grid.l)

    def sample(self, fh: Tensor) -> Tensor:
        """Values ``(..., m)`` of coefficients ``(..., *modes)``."""
        if self.cell is not None:
            return self.grid.ifft(fh)[..., self.cell[0], self.cell[1]]
        ex, ey = self.waves
        return torch.einsum("...km,mk->...m", (self.grid.weight * fh) @ ey.T, ex).real

    def spread(self, w: Tensor) -> Tensor:
        """Adjoint of :meth:`sample` in the inner product of Parseval: ``sum_j w_j exp(-i (k x_j + l y_j))``."""
        if self.cell is not None:
            f = w.new_zeros(*w.shape[:-1], *self.grid.shape)
            f[..., self.cell[0], self.cell[1]] = w
            return self.grid.fft(f) * (self.grid.nx * self.grid.ny)
        ex, ey = self.waves
        return (w[..., None, :] * ex.conj().T) @ ey.conj()

    def values(self, v: Tensor, *levels: int) -> Tensor:
        """``v`` in float64, if it is ``(..., *levels, m)`` and finite."""
        wanted = (*levels, len(self))
        if v.shape[-len(wanted) :] != wanted:
            raise ValueError(f"values must be (..., {', '.join(map(str, wanted))}), got {tuple(v.shape)}")
        if not bool(torch.isfinite(v).all()):
            raise ValueError("a value is not finite; leave out sensors without one")
        return v.to(self.grid.device, torch.float64)


def offsets(grid: Grid) -> np.ndarray:
    """Places of all points of the grid, ``(ny * nx, 2)``."""
    x, y = np.meshgrid(np.arange(grid.nx) * grid.dx, np.arange(grid.ny) * grid.dy)
    return np.column_stack([x.ravel(), y.ravel()])


def sensors(grid: Grid, positions: Tensor) -> Sensors:
    """Sensors at ``positions (m, 2)``. Raises ``ValueError`` for NaNs and where two are at one place."""
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0:
        raise ValueError(f"positions must be (m, 2) with m at least 1, got {tuple(positions.shape)}")
    if not bool(torch.isfinite(positions).all()):
        raise ValueError("a position is not finite")
    place = positions.to(grid.device, torch.float64)
    length = place.new_tensor([grid.Lx, grid.Ly])
    offset = (place - place.new_tensor([grid.x0, grid.y0])) % length % length  # the first may round up to the length
    alike = KDTree(offset.cpu(), boxsize=length.cpu()).query_pairs(SAME * min(grid.dx, grid.dy))
    if alike:
        i, j = min(alike)
        raise ValueError(f"sensors {i} and {j} are at one place; average them first ({len(alike)} such pairs)")
    return Sensors(grid, offset)


# -- interpolation by neighbours -------------------------------------------------------------------------------------
def repeated(grid: Grid, method: Callable[[np.ndarray, np.ndarray], Callable]) -> Interpolator:
    """Interpolator from one of scipy's, ``method(places, columns)(points)``, which knows no period.

    It sees repeated sensors around the box, lengths in cells, and values scaled to one, as its tolerances are absolute.
    """
    unit, length, points = math.sqrt(grid.dx * grid.dy), np.array([grid.Lx, grid.Ly]), offsets(grid)

    def fill(positions, values, sigma=0.0):
        where = sensors(grid, positions)
        columns = where.values(values).reshape(-1, len(where)).cpu().numpy().T
        scale = np.abs(columns).max(0, initial=0.0)
        scale[scale == 0] = 1.0
        places, number = surround(where.offset.cpu().numpy(), points, length)
        try:
            found = method(places / unit, (columns / scale)[number])(points / unit) * scale
        except np.linalg.LinAlgError as e:
            raise ValueError("the nearest sensors of a point lie on a line or two; take more neighbours") from e
        return torch.tensor(found.T, device=grid.device).reshape(*values.shape[:-1], *grid.shape)

    return fill


def surround(inside: np.ndarray, points: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in the box and in a margin of several mean distances and largest gaps, and the sensors they repeat."""
    gap = KDTree(inside, boxsize=length).query(points)[0].max()
    margin = 6 * gap + 6 * math.sqrt(length.prod() / len(inside))
    nx, ny = np.ceil(margin / length).astype(int)
    copies = np.stack(np.meshgrid(np.arange(-nx, nx + 1), np.arange(-ny, ny + 1)), -1).reshape(-1, 1, 2)
    places = (inside + copies * length).reshape(-1, 2)
    near = np.flatnonzero(((places >= -margin) & (places <= length + margin)).all(1))
    return places[near], near % len(inside)


def cubic(grid: Grid) -> Interpolator:
    """Piecewise cubic with continuous slopes on a Delaunay triangulation (Clough & Tocher 1965; Nielson 1983).

    Passes through the values. Periodic to 1e-7 for sensors all over the box, 1e-2 for sensors along lines, where slopes
    depend on far ones. Of the triangulations that four sensors on a circle allow, some one is taken.
    """
    return repeated(grid, lambda places, v: CloughTocher2DInterpolator(places, v, tol=1e-10))


def radial(grid: Grid, kernel: str = "quintic", neighbours: int = 60, smoothing: float = 0.0) -> Interpolator:
    """Radial functions of the nearest sensors, with a polynomial (Fornberg & Flyer 2015, section 5).

    Options are those of ``scipy.interpolate.RBFInterpolator``; without smoothing it passes through the values. Raises
    ``ValueError`` where the nearest sensors lie on a line or two, which fixes no polynomial.
    """

    degree = {"cubic": 1, "thin_plate_spline": 1, "quintic": 2}.get(kernel, 0)

    def powers(places):  # which are interpolated without error where the nearest sensors fix them
        x, y = places.T
        return np.column_stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)])

    def method(places, v):
        own = RBFInterpolator(places, np.column_stack([v, powers(places)]), neighbours, smoothing, kernel)

        def at(points):
            found, exact = own(points), powers(points)
            if not np.allclose(found[:, v.shape[1] :], exact, rtol=0, atol=1e-6 * abs(exact).max()):
                raise np.linalg.LinAlgError
            return found[:, : v.shape[1]]

        return at

    return repeated(grid, method)


# -- least squares on the modes --------------------------------------------------------------------------------------
def nyquist(grid: Grid) -> Tensor:
    """Whether a mode is a Nyquist mode, ``(*modes)``: its values between points are not known."""
    return ((grid.ik == 0) & (grid.k != 0)) | ((grid.il == 0) & (grid.l != 0))


def spectral(
    grid: Grid, cut: float, ridge: float = 0.0, power: float = 4.0, tol: float = 1e-8, iterations: int = 2000
) -> Interpolator:
    r"""Least squares on the modes of wavenumber at most ``cut``,

    .. math:: \frac1m \sum_j (f(x_j) - y_j)^2 + \text{ridge} \sum_{k,l} (K / \text{cut})^{\text{power}} |\hat f|^2 .

    Raises ``ValueError`` where modes outnumber sensors without a ridge, and where residuals stay above ``tol``.
    """
    if not (cut > 0 and ridge >= 0):
        raise ValueError(f"cut must be positive and ridge not negative, got {cut} and {ridge}")
    kept = (grid.K2.sqrt() <= cut) & ~nyquist(grid)
    unknowns = int((grid.weight * kept).sum())
    penalty = ridge * (grid.K2.sqrt() / cut) ** power

    def fill(positions, values, sigma=0.0):
        where = sensors(grid, positions)
        if ridge == 0 and len(where) < unknowns:
            raise ValueError(f"{len(where)} sensors cannot fix {unknowns} modes; lower the cut or give a ridge")

        def normal(fh):
            return kept * where.spread(where.sample(fh)) / len(where) + penalty * fh

        right = kept * where.spread(where.values(values)) / len(where)
        return grid.ifft(conjugate_gradients(grid, normal, right, 1 / (1 + penalty), tol, iterations))

    return fill


def conjugate_gradients(
    grid: Grid, normal: Callable[[Tensor], Tensor], right: Tensor, scale: Tensor, tol: float, iterations: int
) -> Tensor:
    """Solution of ``normal(x) = right`` for every item of a batch; ``scale`` is about the inverse of ``normal``."""

    def dot(a, b):  # never quite zero, since one divides by it
        return (grid.weight * (a.conj() * b).real).sum((-2, -1), keepdim=True) + 1e-300

    x, residual, p, start = torch.zeros_like(right), right, scale * right, dot(right, right)
    for _ in range(iterations):
        if bool((dot(residual, residual) <= tol**2 * start + 2e-300).all()):
            return x
        ahead, old = normal(p), dot(residual, scale * residual)
        step = old / dot(p, ahead)
        x, residual = x + step * p, residual - step * ahead
        p = scale * residual + dot(residual, scale * residual) / old * p
    raise ValueError(f"least squares did not converge in {iterations} iterations; lower the cut or raise the ridge")


# -- spectral bias ---------------------------------------------------------------------------------------------------
def rings(grid: Grid) -> tuple[Tensor, Tensor]:
    """Wavenumbers ``(ring,)``, multiples of the larger spacing, and the ring of every mode, ``(*modes)``."""
    dk = 2 * math.pi / min(grid.Lx if grid.nx > 1 else math.inf, grid.Ly if grid.ny > 1 else math.inf)
    ring = (grid.K2.sqrt() / dk).round().long()
    return dk * torch.arange(int(ring.max()) + 1, dtype=torch.float64, device=ring.device), ring


def ring_sum(grid: Grid, density: Tensor) -> Tensor:
    """Sums ``(..., ring)`` of ``(..., *modes)``."""
    k, ring = rings(grid)
    return density.new_zeros(*density.shape[:-2], len(k)).index_add(-1, ring.flatten(), density.flatten(-2))


def error_by_wavenumber(grid: Grid, field: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Spectrum of the error over that of the truth: wavenumbers ``(ring,)`` and ratios ``(..., ring)``.

    One where a scale is missing, which shows spectral bias (Rahaman et al. 2019); NaN where there is no truth.
    """
    if field.shape != truth.shape or field.shape[-2:] != grid.shape:
        raise ValueError(f"fields must be (..., {grid.ny}, {grid.nx}), got {tuple(field.shape)}, {tuple(truth.shape)}")
    error, signal = (ring_sum(grid, grid.weight * grid.fft(f.double()).abs() ** 2) for f in (field - truth, truth))
    return rings(grid)[0], error / torch.where(signal > 0, signal, math.nan)
