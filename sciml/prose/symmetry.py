"""Shifts of periodic fields, under which equations that do not name the coordinate stay the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.equation.expression import Coord, Expr, leaves


def free_axes(equations: Sequence[Sequence[Expr]], axes: Sequence[str]) -> Tensor:
    """Whether each equation is the same everywhere along each of the axes, ``(equations, axes)``."""
    return torch.tensor([[all(a not in leaves(e, Coord) for e in system) for a in axes] for system in equations])


class Shifts:
    """``(u, context, equation, generator) -> u, context``, shifted by the same random number of points.

    Parameters
    ----------
    free : of :func:`free_axes`, for the last axes of the fields in their order
    """

    def __init__(self, free: Tensor):
        self.free = free

    def __call__(
        self, u: Tensor, context: Tensor | None, equation: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        axes = self.free.shape[1]
        for axis in range(axes):
            n = u.shape[axis - axes]
            drawn = torch.randint(n, (len(u),), generator=generator, device=u.device)
            by = torch.where(self.free[equation, axis], drawn, 0)
            u = rolled(u, by, axis - axes)
            context = None if context is None else rolled(context, by, axis - axes)
        return u, context


def rolled(u: Tensor, by: Tensor, axis: int) -> Tensor:
    """Each sample of ``u (b, ...)`` rolled along an axis by a number of its own, ``by (b,)``."""
    n = u.shape[axis]
    index = (torch.arange(n, device=u.device) - by[:, None]) % n
    shape = [1] * u.ndim
    shape[0], shape[axis] = len(u), n
    return u.gather(axis, index.view(shape).expand_as(u))
