"""Random coefficients of the elliptic problems on which neural operators are compared, on vertex grids of the unit
square."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

Array = NDArray[np.float64]


def cosine_field(points: int, seed: int, tau: float, alpha: float, modes: int | None = None) -> Array:
    r"""Gaussian field of covariance :math:`\tau^{2\alpha-2} (-\nabla^2 + \tau^2)^{-\alpha}`, Neumann, mean zero.

    A sum of orthonormal cosines with ``modes`` (default ``points``) wavenumbers in each direction, shape
    ``(points, points)``; with the same ``modes`` a seed gives the same field on every grid. Li et al. (2021),
    appendix A.3.2.
    """
    modes = points if modes is None else modes
    if not 1 < modes <= points:
        raise ValueError(f"a grid of {points} points holds from 2 to {points} modes, not {modes}")
    n = np.arange(modes)
    k2 = np.pi**2 * (n[:, None] ** 2 + n**2)
    amplitude = tau ** (alpha - 1) * (k2 + tau**2) ** (-alpha / 2)
    amplitude[0, 0] = 0
    norm = np.where(n == 0, 1.0, math.sqrt(2))
    noise = np.random.default_rng(seed).standard_normal((modes, modes))
    return cosines(amplitude * noise * norm[:, None] * norm, points)


def cosines(c: Array, points: int) -> Array:
    """Sum of ``c[m, n] cos(pi m y) cos(pi n x)`` at the points of a vertex grid."""
    padded = np.zeros((points, points))
    padded[: c.shape[0], : c.shape[1]] = c
    weight = np.full(points, 0.5)
    weight[[0, -1]] = 1.0  # the transform counts inner modes twice
    return np.asarray(dctn(padded * weight[:, None] * weight, type=1))


def two_phase(field: Array, above: float, below: float) -> Array:
    """``above`` where the field is not negative, ``below`` elsewhere."""
    return np.where(field >= 0, above, below)


def smooth_phases(points: int, seed: int) -> Array:
    """Coefficient of "Darcy smooth": 12 and 3, alpha 2, tau 3 (Li et al. 2021, appendix A.3.2)."""
    return two_phase(cosine_field(points, seed, tau=3.0, alpha=2.0), 12.0, 3.0)


def rough_phases(points: int, seed: int) -> Array:
    """Coefficient of "Darcy rough": 12 and 2, alpha 2, tau 5.

    The name of the published file says tau 5, a tag in it 20, which would be tau = sqrt(20) = 4.47.
    """
    return two_phase(cosine_field(points, seed, tau=5.0, alpha=2.0), 12.0, 2.0)


def trigonometric(seed: int, scales: int = 6) -> Callable[[Array, Array], Array]:
    r"""Multiscale coefficient

    .. math:: a = \prod_{k=1}^{6} (1 + \tfrac12 \cos(a_k \pi (x + y))) (1 + \tfrac12 \sin(a_k \pi (y - 3 x))),

    with :math:`a_k` uniform in :math:`[2^{k-1}, 1.5 \cdot 2^{k-1}]` (after Owhadi 2017, SIAM Review 59, 99).
    """
    low = 2.0 ** np.arange(scales)
    wavenumbers = np.pi * np.random.default_rng(seed).uniform(low, 1.5 * low)

    def a(x: Array, y: Array) -> Array:
        factors = ((1 + np.cos(k * (x + y)) / 2) * (1 + np.sin(k * (y - 3 * x)) / 2) for k in wavenumbers)
        return math.prod(factors, start=np.ones(np.broadcast_shapes(x.shape, y.shape)))

    return a
