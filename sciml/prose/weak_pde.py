r"""SINDy in the weak form for one-dimensional fields, a baseline: Messenger & Bortz (2021), JCP 443, 110525.

Multiplied by test functions :math:`\psi(x, t)` and integrated by parts,
:math:`\partial_t u = \sum_j w_j \partial_x^{a_j} u^{p_j}` is a linear system for w without derivatives of the data,
:math:`-\langle \psi_t, u\rangle = \sum_j w_j (-1)^{a_j} \langle \partial_x^{a_j} \psi, u^{p_j} \rangle`; second
order in time has :math:`\langle \psi_{tt}, u\rangle` on the left.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from torch import Tensor

from sciml.equation.expression import Expr, Field, Number, dx, lap
from sciml.prose.partial import LENGTH

POWERS, DERIVATIVES = (1, 2, 3), (0, 1, 2, 3, 4)
HALF_X, HALF_T, SMOOTH = 14, 12, 8
"""Half widths of the test functions in points and in frames, and the power of ``(1 - s^2)`` that they are."""
THRESHOLDS = np.logspace(-4, 0, 50)


def weak_sindy(t: Tensor, u: Tensor, order: int = 1, length: float = LENGTH) -> tuple[Expr, ...]:
    """Right-hand sides of ``order`` fields from frames ``u (n, points)`` at evenly spaced times: sparse sums of
    derivatives to the fourth of powers of u_0 to the third.

    Raises ``ValueError`` for windows that are not finite, shorter than the test functions, or the same everywhere.
    """
    if u.ndim != 2 or len(u) != len(t) or len(t) <= 2 * HALF_T or not bool(u.isfinite().all()):
        raise ValueError(f"give finite frames ({len(t)}, points), more than {2 * HALF_T} of them; got {tuple(u.shape)}")
    if float(u.std()) <= 1e-12 * float(u.abs().max()):
        raise ValueError("the frames are the same everywhere: nothing can be learned from them")
    frames, dt, h = u.double().cpu().numpy(), float(t[1] - t[0]), length / u.shape[1]
    terms = list(product(POWERS, DERIVATIVES))
    columns = [(-1) ** a * _weak(frames**p, a, 0, h, dt) for p, a in terms]
    w = _sparse(np.stack(columns, 1), (-1) ** order * _weak(frames, 0, order, h, dt))
    found = sum((float(c) * _term(p, a) for c, (p, a) in zip(w, terms, strict=True) if c), Number(0.0))
    return (*[Field(f"u_{i}") for i in range(1, order)], found)


def _term(power: int, derivatives: int) -> Expr:
    e = Field("u_0") ** power
    for _ in range(derivatives // 2):
        e = lap(e)
    return dx(e) if derivatives % 2 else e


def _bump(half: int, derivative: int, spacing: float) -> np.ndarray:
    """``(1 - s^2)^SMOOTH``, or a derivative of it, at whole points from -half to half."""
    shape = np.polynomial.Polynomial([1, 0, -1]) ** SMOOTH
    s = np.arange(-half, half + 1) / half
    return (shape.deriv(derivative) if derivative else shape)(s) / (half * spacing) ** derivative


def _weak(f: np.ndarray, in_x: int, in_t: int, h: float, dt: float) -> np.ndarray:
    """Integrals of f times derivatives of the test functions around all points, where these are within the window."""
    kernel = np.zeros(f.shape[1])
    kernel[np.arange(-HALF_X, HALF_X + 1)] = _bump(HALF_X, in_x, h)
    along = np.fft.irfft(np.fft.rfft(f) * np.conj(np.fft.rfft(kernel)), n=f.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(along, 2 * HALF_T + 1, axis=0)
    return (windows @ _bump(HALF_T, in_t, dt) * h * dt).ravel()


def _sparse(g: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The thresholded least squares of least loss, which adds up misfit and share of terms (section 4.2)."""
    size = np.linalg.norm(g, axis=0)
    ratio = np.linalg.norm(b) / size
    full = _least_squares(g, b, np.ones(g.shape[1], bool))
    best, least = full, np.inf
    for threshold in THRESHOLDS:
        w = full
        low, high = threshold * np.maximum(1, ratio), np.minimum(1, ratio) / threshold
        for _ in range(g.shape[1]):
            kept = (np.abs(w) >= low) & (np.abs(w) <= high) & (w != 0)
            w, before = _least_squares(g, b, kept), w
            if np.array_equal(w != 0, before != 0):
                break
        loss = np.linalg.norm(g @ (w - full)) / np.linalg.norm(g @ full) + np.count_nonzero(w) / len(w)
        if loss < least:
            best, least = w, loss
    return best


def _least_squares(g: np.ndarray, b: np.ndarray, kept: np.ndarray) -> np.ndarray:
    w, size = np.zeros(g.shape[1]), np.linalg.norm(g, axis=0)
    if kept.any():
        w[kept] = np.linalg.lstsq(g[:, kept] / size[kept], b, rcond=None)[0] / size[kept]
    return w
