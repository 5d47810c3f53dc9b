"""Explicit Runge-Kutta methods for the weights of a network, with fixed steps or steps adapted to an embedded error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

Slope = Callable[[Tensor, float], Tensor]
"""``(theta, t) -> d theta / dt``"""
Size = Callable[[Tensor], float]
"""Of a change of weights, as the field sees it, relative to the field."""


class Tableau(NamedTuple):
    """Stages a, weights b, and b less the weights of an embedded method of one order less.

    Rows of explicit methods have as many numbers as there are stages before; those of implicit ones one for each stage.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int
    error: tuple[float, ...] = ()


EULER = Tableau(((),), (1.0,), 1)
MIDPOINT = Tableau(((), (0.5,)), (0.0, 1.0), 2)
RK4 = Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4)
BOGACKI_SHAMPINE = Tableau(((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)), (2 / 9, 1 / 3, 4 / 9, 0.0), 3,
                           (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8))  # fmt: skip
"""Third order (Bogacki & Shampine 1989, Appl. Math. Lett. 2, 321)."""
DORMAND_PRINCE = Tableau(
    ((), (1 / 5,), (3 / 40, 9 / 40), (44 / 45, -56 / 15, 32 / 9),
     (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
     (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
     (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0), 5,
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)  # fmt: skip
"""Fifth order (Dormand & Prince 1980, J. Comput. Appl. Math. 6, 19)."""

GAUSS_1 = Tableau(((1 / 2,),), (1.0,), 2)
"""The implicit midpoint rule."""
GAUSS_2 = Tableau(((1 / 4, 1 / 4 - 3**0.5 / 6), (1 / 4 + 3**0.5 / 6, 1 / 4)), (1 / 2, 1 / 2), 4)
"""Gauss and Legendre's of fourth order (Hairer, Lubich & Wanner 2006, section II.1.3)."""
TABLEAUS = {"euler": EULER, "midpoint": MIDPOINT, "rk4": RK4, "bogacki_shampine": BOGACKI_SHAMPINE,
            "dormand_prince": DORMAND_PRINCE, "gauss_1": GAUSS_1, "gauss_2": GAUSS_2}  # fmt: skip
ITERATIONS, STILL = 50, 1e-5


def stepped(tableau: Tableau, f: Slope, theta: Tensor, t: float, h: float) -> tuple[Tensor, Tensor | None]:
    """Weights a time h later, and the difference from the embedded method."""

    def total(weights: tuple[float, ...], slopes: Sequence[Tensor]) -> Tensor:
        return h * sum((b * k for b, k in zip(weights, slopes, strict=True) if b), 0.0 * theta)

    if len(tableau.a[0]):
        slopes = implicit_slopes(tableau, f, total, theta, t, h)
    else:
        slopes = []
        for row in tableau.a:
            slopes.append(f(theta + total(row, slopes), t + h * sum(row)))
    return theta + total(tableau.b, slopes), total(tableau.error, slopes) if tableau.error else None


def implicit_slopes(tableau: Tableau, f: Slope, total, theta: Tensor, t: float, h: float) -> list[Tensor]:
    """Of all stages, by fixed-point iteration, until rounding stops it. Raises ``FloatingPointError`` where it does not
    converge."""
    slopes, change = [f(theta, t)] * len(tableau.a), math.inf
    for _ in range(ITERATIONS):
        new = [f(theta + total(row, slopes), t + h * sum(row)) for row in tableau.a]
        before, change = change, max(float((a - b).norm() / b.norm()) for a, b in zip(new, slopes, strict=True))
        slopes = new
        if change < 1e-10 or before / 2 < change < STILL:
            return slopes
    raise FloatingPointError(f"the stages of an implicit method still change by {change:.1g}; use a smaller dt or a "
                             "larger epsilon")  # fmt: skip


def adapted(
    tableau: Tableau, f: Slope, size: Size, theta: Tensor, t: float, end: float, h: float, tolerance: float
) -> tuple[Tensor, float]:
    """Weights at ``end``, by steps whose embedded errors are at most ``tolerance``, the first of about h; and the
    length of the next step.

    Raises ``FloatingPointError`` where steps of a millionth of the way are still too long.
    """
    least, power = 1e-6 * (end - t), 1 / tableau.order
    while t < end:
        last = t + h >= end - least
        length = end - t if last else h
        try:
            tried, difference = stepped(tableau, f, theta, t, length)
            error = max(size(difference) / tolerance, 1e-10)  # type: ignore[arg-type]
        except FloatingPointError:
            error = float("inf")
        if error <= 1:
            theta, t = tried, end if last else t + length
        factor = min(max(0.9 * error**-power, 0.2), 5.0) if error == error else 0.2
        h = max(h, factor * length) if last and error <= 1 else factor * length
        if t < end and h < least:
            raise FloatingPointError(f"no step is short enough at t = {t:.6g}; use a larger epsilon or tolerance")
    return theta, h
