r"""Least squares in a whitened control variable: the solver of 3D-Var and 4D-Var.

.. math:: J(v) = \tfrac12 |v|^2 + \tfrac12 |g(v) - d|^2,

with ``g`` the equivalents and ``d`` the observations, both in units of the observation error. Gauss-Newton outer loops,
conjugate gradients inside with tangent and adjoint products by automatic differentiation (Courtier et al. 1994,
QJRMS 120, 1367): ``(I + G^T G) dv = -v - G^T (g(v) - d)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.step import constant_trajectory

Map = Callable[[Tensor], Tensor]


def cost(g: Map, d: Tensor, v: Tensor) -> Tensor:
    """J(v)."""
    return half_squares(v, g(v) - d)


def half_squares(v: Tensor, departure: Tensor, batch: int = 0) -> Tensor:
    """``(|v|^2 + |departure|^2) / 2``, of each of the problems in the first ``batch`` axes."""
    return 0.5 * (v**2).flatten(batch).sum(-1) + 0.5 * (departure**2).flatten(batch).sum(-1)


def gauss_newton(
    g: Map, d: Tensor, v: Tensor, outer: int, inner: int, tolerance: float = 1e-3, halve: bool = True, batch: int = 0
) -> tuple[Tensor, list[float]]:
    """Minimise J from ``v``; returns the control and J before each outer loop and at the end.

    With ``halve``, a step that makes J larger is halved up to four times, and the search ends where that does not help.
    The first ``batch`` axes (0 or 1) of ``v`` and of ``g(v)`` hold problems of their own, solved side by side; what is
    returned then is the mean of their J.
    """
    value, tangent, adjoint = linearised(g, v)
    lowest = half_squares(v, value - d, batch)
    costs = [float(lowest.mean())]
    for _ in range(outer):
        full = conjugate_gradients(hessian(tangent, adjoint), -v - adjoint(value - d), inner, tolerance, batch)
        dv, worse = full, torch.ones_like(lowest, dtype=torch.bool)
        for part in (1.0, 0.5, 0.25, 0.125, 0.0625, 0.0):
            dv = torch.where(worse.reshape(*worse.shape, *[1] * (v.ndim - batch)), part * full, dv)
            value, tangent, adjoint = linearised(g, v + dv)
            now = half_squares(v + dv, value - d, batch)
            worse = ~(now <= lowest)
            if not halve or not bool(worse.any()):
                break
        if halve and not bool(dv.any()):  # no step helps
            return v, costs
        v, lowest = v + dv, now
        costs.append(float(now.mean()))
    return v, costs


def linearised(g: Map, v: Tensor) -> tuple[Tensor, Map, Map]:
    """``g(v)`` and the products with its derivative and with the adjoint of that.

    The adjoint's product is linear in its argument, so that its own adjoint, again by autograd, is the tangent's.
    """
    v = v.detach().requires_grad_()
    with torch.enable_grad():
        value = g(v)
        y = torch.zeros_like(value, requires_grad=True)
    if not value.requires_grad:  # nothing is observed
        return value, lambda p: torch.zeros_like(value), lambda w: torch.zeros_like(v)
    kept: list[Tensor] = []

    def adjoint(w: Tensor) -> Tensor:
        return torch.autograd.grad(value, v, w, retain_graph=True)[0]

    def tangent(p: Tensor) -> Tensor:
        if not kept:
            with constant_trajectory():
                kept.extend(torch.autograd.grad(value, v, y, create_graph=True))
        return torch.autograd.grad(kept[0], y, p, retain_graph=True)[0]

    return value.detach(), tangent, adjoint


def hessian(tangent: Map, adjoint: Map) -> Map:
    """The Gauss-Newton Hessian of J, ``p + G^T G p``."""
    return lambda p: p + adjoint(tangent(p))


def conjugate_gradients(A: Map, b: Tensor, iterations: int, tolerance: float, batch: int = 0) -> Tensor:
    """``A x = b`` from zero, until the residual is ``tolerance |b|``; the first ``batch`` axes hold systems of their
    own, all of which must be solved before it ends."""
    axes = tuple(range(batch, b.ndim))

    def dot(p: Tensor, q: Tensor) -> Tensor:
        return (p * q).sum(axes, keepdim=True)

    x, r = torch.zeros_like(b), b
    p, rho = r, dot(r, r)
    goal, tiny = tolerance**2 * rho, torch.finfo(b.dtype).tiny
    for _ in range(iterations):
        if bool((rho <= goal).all()) or not bool(rho.any()):
            break
        q = A(p)
        alpha = rho / dot(p, q).clamp(min=tiny)
        x, r = x + alpha * p, r - alpha * q
        new = dot(r, r)
        p, rho = r + (new / rho.clamp(min=tiny)) * p, new
    return x
