"""Random periodic initial states of one-dimensional fields: sums of sines, Gaussian processes and bumps.

A shape is a function ``(n, length, generator) -> state``, and ``state(x) -> (n, points)`` can be had at any points, so
that a seed gives the same states on every mesh.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

State = Callable[[Tensor], Tensor]
Shape = Callable[[int, float, torch.Generator], State]


def waves(highest: int = 4, terms: int = 2) -> Shape:
    r""":math:`\sum_j A_j \sin(2\pi n_j x / L + \varphi_j)` with ``n_j = 1 ... highest``, amplitudes in [0, 1].

    Takamoto et al. (2022), PDEBench, eq. 8, without its windows and absolute values, which have corners.
    """

    def shape(n: int, length: float, generator: torch.Generator) -> State:
        k = torch.randint(1, highest + 1, (n, terms, 1), generator=generator)
        amplitude, phase = uniform((2, n, terms, 1), 0.0, 1.0, generator)
        return lambda x: (amplitude * torch.sin(2 * math.pi * (k * x / length + phase))).sum(1)

    return shape


def gaussian_process(scale: float = 0.2, modes: int = 24) -> Shape:
    r"""Periodic Gaussian process whose spectrum is that of the covariance :math:`\exp(-r^2 / 2 l^2)`, ``l = scale``.

    ``modes`` waves are kept; the variance beyond them must be negligible (``modes > 6 L / 2 pi l``).
    """

    def shape(n: int, length: float, generator: torch.Generator) -> State:
        k = 2 * math.pi / length * torch.arange(1, modes + 1, dtype=torch.float64)[:, None]
        colour = torch.exp(-((k * scale / 2) ** 2))
        a, b = torch.randn(2, n, modes, 1, generator=generator, dtype=torch.float64) * colour
        return lambda x: (a * torch.cos(k * x) + b * torch.sin(k * x)).sum(1)

    return shape


def bump(narrow: float, wide: float, first: float = 0.25, last: float = 0.75) -> Shape:
    """Gaussians ``exp(-((x - c) / s)^2)``, made periodic by images; s uniform in [narrow, wide], c in
    [first, last] times the length."""

    def shape(n: int, length: float, generator: torch.Generator) -> State:
        width = uniform((n, 1), narrow, wide, generator)
        centre = uniform((n, 1), first * length, last * length, generator)
        images = torch.arange(-2, 3)[:, None, None] * length
        return lambda x: torch.exp(-(((x - centre + images) / width) ** 2)).sum(0)

    return shape


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Uniform random numbers, float64."""
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def scaled(shape: Shape, low: float, high: float, points: int = 1024) -> Shape:
    """The shape with each state shifted and stretched to between ``low`` and ``high``, as seen at ``points`` points."""

    def between(n: int, length: float, generator: torch.Generator) -> State:
        state = shape(n, length, generator)
        seen = state(torch.arange(points, dtype=torch.float64) * (length / points))
        least, most = seen.amin(-1, keepdim=True), seen.amax(-1, keepdim=True)
        return lambda x: low + (high - low) * (state(x) - least) / (most - least)

    return between
