r"""Helmholtz problem :math:`-\nabla^2 u - (\omega / c)^2 u = f` on the unit square with a given flux on its boundary.

Bilinear finite elements on a vertex grid of ``n x n`` points, 3 x 3 Gauss points in every square, after de Hoop et al.
(2022, J. Mach. Learn. 1, 299). The matrix is real, symmetric and indefinite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from sciml.equation.coefficients import cosines

Array = NDArray[np.float64]
Function = Callable[[Array, Array], Array]

NODES, WEIGHTS = np.array([0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5]), np.array([5, 8, 5]) / 18
"""Gauss points and weights of the unit interval."""
S, T = (a.ravel() for a in np.meshgrid(NODES, NODES))
W = np.outer(WEIGHTS, WEIGHTS).ravel()
SHAPE = np.stack([(1 - S) * (1 - T), S * (1 - T), (1 - S) * T, S * T])
"""The four shape functions (south-west, south-east, north-west, north-east) at the nine points."""
DX, DY = np.stack([T - 1, 1 - T, -T, T]), np.stack([S - 1, -S, 1 - S, S])
STIFFNESS = np.einsum("q,iq,jq->ij", W, DX, DX) + np.einsum("q,iq,jq->ij", W, DY, DY)


def speed(points: int, seed: int, modes: int = 100) -> Array:
    r"""Wave speed ``20 + tanh(a)``, ``a`` the ``modes`` gravest modes of :math:`N(0, (-\nabla^2 + 9)^{-2})`, Neumann.

    Modes are sorted by wavenumber; the mean is left out.
    """
    n = np.arange(modes)
    k2 = n[:, None] ** 2 + n**2
    kept = np.argsort(k2, axis=None, kind="stable")[1 : modes + 1]
    norm = np.where(n == 0, 1.0, np.sqrt(2))
    amplitude = (norm[:, None] * norm / (np.pi**2 * k2 + 9)).ravel()[kept]
    side = int(np.sqrt(k2.ravel()[kept].max())) + 1
    c = np.zeros((side, side))
    c[np.unravel_index(kept, k2.shape)] = amplitude * np.random.default_rng(seed).standard_normal(modes)
    if points < side:
        raise ValueError(f"{modes} modes need a grid of at least {side} points, got {points}")
    return 20 + np.tanh(cosines(c, points))


def window(s: Array) -> Array:
    """The flux of de Hoop et al. through the top: 1 within 0.15 of its middle, 0 elsewhere."""
    return (np.abs(s - 0.5) <= 0.15).astype(float)


def squares(n: int) -> NDArray[np.int64]:
    """Numbers of the four points of every square, ``(4, (n - 1)^2)``."""
    i = np.arange(n * n).reshape(n, n)
    return np.stack([i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel()])


def matrix(c: Array, omega: float) -> sp.csc_matrix:
    """The matrix of the problem, for a wave speed ``(n, n)`` that is bilinear in every square."""
    n, corners = len(c), squares(len(c))
    k2 = (omega / (SHAPE.T @ c.ravel()[corners])) ** 2 / (n - 1) ** 2
    local = STIFFNESS[..., None] - np.einsum("q,iq,jq,qe->ije", W, SHAPE, SHAPE, k2, optimize=True)
    rows, columns = (np.broadcast_to(a, local.shape).ravel() for a in (corners[:, None], corners[None]))
    return sp.csc_matrix((local.ravel(), (rows, columns)), shape=(n * n, n * n))


def load(f: Function, n: int) -> Array:
    """Integrals of a source ``f(x, y)`` times each shape function, ``(n^2,)``."""
    y, x = (a.ravel() for a in np.mgrid[: n - 1, : n - 1])
    at = f((x + S[:, None]) / (n - 1), (y + T[:, None]) / (n - 1))
    weighted = (SHAPE @ (W[:, None] * at)).ravel() / (n - 1) ** 2
    return np.bincount(squares(n).ravel(), weighted, n * n).astype(float)


def top_load(flux: Callable[[Array], Array], n: int) -> Array:
    """Integrals of ``du/dn = flux(x)`` on the side ``y = 1`` times each shape function, ``(n^2,)``."""
    i = np.arange(n - 1)
    weighted = WEIGHTS[:, None] * flux((i + NODES[:, None]) / (n - 1)) / (n - 1)
    out = np.zeros((n, n))
    out[-1, :-1] += (1 - NODES) @ weighted
    out[-1, 1:] += NODES @ weighted
    return out.ravel()


def helmholtz(c: Array, omega: float = 1000.0, source: Array | None = None) -> Array:
    """Solution ``(n, n)`` for a wave speed ``(n, n)``; ``source`` is a load (default: :func:`window` on the top)."""
    c = np.asarray(c, dtype=float)
    if c.ndim != 2 or len(c) < 2 or c.shape[0] != c.shape[1] or not (np.isfinite(c).all() and c.min() > 0):
        raise ValueError(f"the wave speed must be positive and finite on a square grid, got shape {c.shape}")
    rhs = top_load(window, len(c)) if source is None else source
    return splu(matrix(c, omega), permc_spec="MMD_AT_PLUS_A").solve(rhs).reshape(c.shape)
