r"""Elliptic problem :math:`-\nabla \cdot (a \nabla u) = f` on the unit square, :math:`u = 0` on its boundary.

Vertex grids: ``ny x nx`` points, those of the boundary included. Finite volumes around the interior points, with five
points and second order: the flux through a face is conductance times difference of the two points beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.fft import dstn, idstn
from scipy.sparse.linalg import splu

Array = NDArray[np.float64]
Mean = Callable[[Array, Array], Array]


class Conductance(NamedTuple):
    """Coefficient times length of face over distance of points, for the faces that bound the interior cells."""

    x: Array
    """faces between neighbours in x, ``(ny - 2, nx - 1)``"""
    y: Array
    """faces between neighbours in y, ``(ny - 1, nx - 2)``"""


def harmonic(p: Array, q: Array) -> Array:
    """Coefficient of a face half way between two materials, exact in one dimension where they meet at the face."""
    return 2 * p * q / (p + q)


def arithmetic(p: Array, q: Array) -> Array:
    return (p + q) / 2


def conductance(a: Array, mean: Mean = harmonic) -> Conductance:
    """Conductance of coefficients ``(ny, nx)`` given at the points.

    Both means are second order for smooth coefficients; where these jump both are first order, and the harmonic mean
    keeps the flux through an interface between two points continuous.
    """
    a = positive(a)
    ratio = (a.shape[1] - 1) / (a.shape[0] - 1)
    return Conductance(mean(a[1:-1, :-1], a[1:-1, 1:]) * ratio, mean(a[:-1, 1:-1], a[1:, 1:-1]) / ratio)


def positive(a: Array) -> Array:
    """``a`` as a coefficient on a vertex grid; raises ``ValueError`` where it is none."""
    a = np.asarray(a, dtype=float)
    if a.ndim != 2 or min(a.shape) < 3:
        raise ValueError(f"a coefficient has shape (ny, nx) with at least 3 points each, got {a.shape}")
    if not (np.isfinite(a).all() and a.min() > 0):
        raise ValueError("the coefficient must be positive and finite everywhere")
    return a


def linear_elements(a: Callable[[Array, Array], Array], ny: int, nx: int) -> Conductance:
    """Conductance of linear finite elements on right triangles for ``a(x, y)``, by quadrature at the centroids.

    The two points of a diagonal do not couple on right triangles, so that linear elements have the same five points:
    the coefficient of an edge is the mean over the two triangles beside it.
    """
    x, y, ratio = np.arange(nx - 1)[None, :], np.arange(ny - 1)[:, None], (nx - 1) / (ny - 1)
    lower, upper = (a((x + s) / (nx - 1), (y + s) / (ny - 1)) for s in (1 / 3, 2 / 3))
    return Conductance(arithmetic(lower[1:], upper[:-1]) * ratio, arithmetic(lower[:, 1:], upper[:, :-1]) / ratio)


def operator(k: Conductance) -> sp.csc_matrix:
    """The symmetric matrix of the interior points, row by row of the grid."""
    nx = k.x.shape[1] - 1
    diagonal = k.x[:, 1:] + k.x[:, :-1] + k.y[1:] + k.y[:-1]
    east = -k.x[:, 1:].copy()
    east[:, -1] = 0  # the last point of a row has no neighbour in the next one
    offsets: Any = [1, nx]
    upper: Any = sp.diags_array([east.ravel()[:-1], -k.y[1:-1].ravel()], offsets=offsets)
    return sp.csc_matrix(upper + upper.T + sp.diags_array(diagonal.ravel()))


def outflow(k: Conductance, u: Array) -> Array:
    """Flux out of every interior cell, for interior values ``u`` and zeros around them."""
    padded = np.pad(u, 1)
    x, y = (c * np.diff(padded[s], axis=i) for c, s, i in ((k.x, np.s_[1:-1], 1), (k.y, np.s_[:, 1:-1], 0)))
    return -np.diff(x, axis=1) - np.diff(y, axis=0)


def direct(k: Conductance, source: Array) -> Array:
    """Interior solution by sparse LU factors (SuperLU, minimum degree), for coefficients of any contrast."""
    mode = {"SymmetricMode": True}
    factors = splu(operator(k), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=mode)
    return factors.solve(source.ravel()).reshape(source.shape)


def conjugate_gradients(k: Conductance, source: Array, tolerance: float = 1e-9, most: int = 200) -> Array:
    """Interior solution by conjugate gradients preconditioned with the Laplacian, which sine transforms invert.

    The condition number is at most ``max a / min a`` on every grid (Concus & Golub 1973, SINUM 10, 1103). Ends when the
    residual is ``tolerance`` times the source.
    """
    inverse = laplacian_inverse(source.shape)
    u, r = np.zeros_like(source), source.copy()
    p = z = inverse(r)
    size, enough = float(np.vdot(r, z)), tolerance * np.linalg.norm(source)
    for _ in range(most):
        if np.linalg.norm(r) <= enough:
            return u
        q = outflow(k, p)
        step = size / float(np.vdot(p, q))
        u += step * p
        r -= step * q
        z = inverse(r)
        size, old = float(np.vdot(r, z)), size
        p = z + (size / old) * p
    raise ValueError(f"no solution after {most} iterations: the contrast of the coefficient is large; use solve=direct")


def laplacian_inverse(shape: tuple[int, int]) -> Callable[[Array], Array]:
    """The inverse of :func:`operator` for ``a = 1``."""
    ny, nx = shape
    ratio = (nx + 1) / (ny + 1)
    x, y = (2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) for n in (nx, ny))
    eigenvalues = x[None, :] * ratio + y[:, None] / ratio
    return lambda r: np.asarray(idstn(np.asarray(dstn(r, type=1)) / eigenvalues, type=1, overwrite_x=True))


Solve = Callable[[Conductance, Array], Array]


def elliptic(k: Conductance, f: float | Array = 1.0, solve: Solve = conjugate_gradients) -> Array:
    """Solution ``(ny, nx)``, boundary included, for a source given as a number or at all points."""
    ny, nx = k.x.shape[0] + 2, k.y.shape[1] + 2
    source = np.broadcast_to(np.asarray(f, dtype=float), (ny, nx))[1:-1, 1:-1] / ((nx - 1) * (ny - 1))
    return np.pad(solve(k, source), 1)


def darcy(a: Array, f: float | Array = 1.0, mean: Mean = harmonic, solve: Solve = conjugate_gradients) -> Array:
    """Pressure ``(ny, nx)`` of Darcy flow for a coefficient ``(ny, nx)``."""
    return elliptic(conductance(a, mean), f, solve)
