r"""How an analysis answers one observation: the experiment of FuXi-DA's paper (Xu et al. 2025), and what it should be.

A network cannot be given one observation alone, so that one of many is changed: the difference of the two analyses,
over the change, is its column of the gain. For a linear analysis this is ``B H^T (H B H^T + R)^{-1} e_i``; its shape is
near to that of ``B H^T e_i``, from an ensemble at the same time or from a static covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sciml.assim.base import Analysis, Covariance
from sciml.grid import Grid
from sciml.observe import Window
from sciml.step import State, Step

Read = Callable[[Tensor], Tensor]


def changed(window: Window, i: int, amount: float) -> Window:
    """The window with ``amount`` of its errors more in observation ``i``."""
    value = window.obs["value"].values.copy()
    value[i] += amount * window.obs["sigma"].values[i]
    return replace(window, obs=window.obs.assign(value=("obs", value, window.obs["value"].attrs)))


def response(
    analysis: Analysis, read: Read, background: State, window: Window, step: Step, memory, i: int, amount: float = 1.0
) -> Tensor:
    """Change ``(lev, y, x)`` of the analysis at the end of the window per standard error of observation ``i``."""
    other = analysis(background, changed(window, i, amount), step, memory).state.z
    return (read(other) - read(analysis(background, window, step, memory).state.z)) / amount


def ensemble_column(read: Read, members: Tensor, equivalents: Tensor, sigma: Tensor) -> Tensor:
    """``B H^T e_i / sigma_i`` of ensemble states and the equivalents ``(members)`` of observation i."""
    fields, seen = read(members), (equivalents - equivalents.mean()) / sigma
    return torch.einsum("m...,m->...", fields - fields.mean(0), seen) / (len(seen) - 1)


def static_column(covariance: Covariance, read: Read, states: Tensor, window: Window, i: int) -> Tensor:
    """``B H^T e_i / sigma_i`` of a static covariance, H linearised about a trajectory ``(steps + 1, n, *modes)``."""
    v = torch.zeros(covariance.shape, dtype=window.value.dtype, device=window.value.device, requires_grad=True)
    with torch.enable_grad():
        seen = window.equivalents(states + covariance(v))[i] / window.sigma[i]
    return read(covariance(torch.autograd.grad(seen, v)[0]))


def around(grid: Grid, x: float, y: float) -> tuple[Tensor, Tensor]:
    """Distances ``(1, nx)`` and ``(ny, 1)`` east and north of a place in a periodic box."""
    dx = (grid.x - x + grid.Lx / 2) % grid.Lx - grid.Lx / 2
    return dx, (grid.y - y + grid.Ly / 2) % grid.Ly - grid.Ly / 2


def near(grid: Grid, x: float, y: float) -> Tensor:
    """Where the distance from a place is less than a quarter of the box, ``(ny, nx)``."""
    dx, dy = around(grid, x, y)
    return (dx**2 + dy**2).sqrt() < min(grid.Lx, grid.Ly) / 4


def agreement(a: Tensor, b: Tensor, where: Tensor) -> float:
    """Pattern correlation of fields ``(lev, y, x)`` at chosen points ``(y, x)``, each level scaled by its root mean
    square in ``b``."""
    a, b = a[:, where], b[:, where]
    scale = b.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-300)
    a, b = (f / scale - (f / scale).mean(-1, keepdim=True) for f in (a, b))
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp(min=1e-300))


def shape(field: Tensor, grid: Grid, x: float, y: float) -> dict[str, float]:
    """Of a response ``(lev, y, x)`` to an observation at ``x, y`` [m].

    ``sign`` and ``size`` of the upper level there; ``radius`` [m], root mean square distance of its squares within a
    quarter of the box; ``east`` and ``north`` [m], their centre; ``projection``, regression of the lowest level on it.
    """
    dx, dy = around(grid, x, y)
    distance = (dx**2 + dy**2).sqrt()
    top, weight = field[0], field[0].square() * near(grid, x, y)
    here = top.flatten()[distance.argmin()]
    total = weight.sum().clamp(min=1e-300)
    return {
        "sign": float(here.sign()),
        "size": float(here.abs()),
        "radius": float(((weight * distance**2).sum() / total).sqrt()),
        "east": float((weight * dx).sum() / total),
        "north": float((weight * dy).sum() / total),
        "projection": float((top * field[-1]).sum() / top.square().sum().clamp(min=1e-300)),
    }
