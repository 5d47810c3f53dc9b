"""Least squares through a solver: batched shooting with segments, its Jacobian, and Levenberg-Marquardt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.compiled import compiled

Rhs = Callable[[Tensor, Tensor], Tensor]
"""``f(u, c)``: states ``(..., D)`` and constants ``(..., P)`` to rates ``(..., D)``."""


def rates(rhs: Sequence[Expr], names: Sequence[str]) -> Rhs:
    """The right-hand sides as a function of states and of the constants of these names."""
    f = compiled(rhs)

    def evaluate(u: Tensor, c: Tensor) -> Tensor:
        whole = torch.broadcast_shapes(u.shape[:-1], c.shape[:-1])
        return f(u.expand(*whole, -1), dict(zip(names, c.unbind(-1), strict=True)))

    return evaluate


def runge_kutta(f: Rhs, u: Tensor, c: Tensor, h: Tensor) -> Tensor:
    """One classical Runge-Kutta step of fourth order; h broadcasts against u."""
    k1 = f(u, c)
    k2 = f(u + h / 2 * k1, c)
    k3 = f(u + h / 2 * k2, c)
    k4 = f(u + h * k3, c)
    return u + h / 6 * (k1 + 2 * (k2 + k3) + k4)


def run(f: Rhs, u: Tensor, c: Tensor, steps: Tensor, substeps: int) -> Tensor:
    """States ``(..., S, L + 1, D)`` of S runs each of L steps ``(S, L)``, cut into substeps, from ``(..., S, D)``."""
    out, c = [u], c[..., None, :]
    for h in (steps / substeps).mT[..., None]:
        for _ in range(substeps):
            u = runge_kutta(f, u, c, h)
        out.append(u)
    return torch.stack(out, -2)


def differences(function: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(B, ...)`` at x ``(B, n)`` and derivatives ``(K, B, ...)`` along directions ``(K, n)``, in one call.

    Forward differences in float64 with steps of 1e-7 of the largest moved component (at least of 0.1).
    """
    size = (x.abs() * directions[:, None]).amax(-1, keepdim=True).clamp(min=0.1) * 1e-7
    moved = torch.cat((x[None], x + size * directions[:, None]))
    values = function(moved.flatten(0, 1)).unflatten(0, moved.shape[:2])
    return values[0], (values[1:] - values[0]) / size.view(*size.shape[:2], *[1] * (values.ndim - 2))


@dataclass(frozen=True)
class Shooting:
    """Residuals of multiple shooting (Bock 1983) in unknowns ``(B, P + S D)``: constants, then S initial states.

    Residuals are (model - data) / sigma at the samples, ``match`` times the jumps between segments / sigma, and
    (c - prior) / width.

    Parameters
    ----------
    steps : time steps ``(S, L)`` from each sample of a segment to the next; 0 past the end
    data, sigma : samples ``(B, S, L, D)`` and their standard deviations ``(B, 1)``, or ``(B, D)`` of each component
    mask : 1 where a sample counts ``(S, L)``
    prior, width : constants ``(B, P)`` expected, and their standard deviations (infinite where nothing is known)
    """

    f: Rhs
    steps: Tensor
    data: Tensor
    sigma: Tensor
    mask: Tensor
    prior: Tensor
    width: Tensor
    substeps: int
    match: float = 1.0

    def nodes(self, x: Tensor) -> Tensor:
        """States ``(B, S, L + 1, D)`` at the samples of each segment and at its end."""
        p, s, d = self.prior.shape[-1], len(self.steps), self.data.shape[-1]
        return run(self.f, x[:, p:].unflatten(-1, (s, d)), x[:, :p], self.steps, self.substeps)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals ``(B, M)`` and their Jacobian ``(B, M, n)``."""
        (p, s, d), eye = (self.prior.shape[-1], len(self.steps), self.data.shape[-1]), torch.eye(len(self.steps)).to(x)
        constants = torch.eye(p, x.shape[1]).to(x)
        states = torch.cat((torch.zeros(d, p), torch.eye(d).repeat(1, s)), 1).to(x)  # all segments are moved at once
        nodes, slopes = differences(self.nodes, x, torch.cat((constants, states)))
        slopes = slopes.movedim(0, -1)
        blocks = torch.einsum("bsldi,sj->bsldji", slopes[..., p:], eye).flatten(-2)
        jacobian = torch.cat((slopes[..., :p], blocks), -1)
        ends = nodes[:, :-1, -1] - x[:, p:].unflatten(-1, (s, d))[:, 1:]
        starts = torch.cat((torch.zeros((s - 1) * d, p + d), torch.eye((s - 1) * d)), 1).to(x)
        jump = jacobian[:, :-1, -1].flatten(1, 2) - starts
        weight = (self.mask[..., None] / self.sigma[:, None, None]).expand_as(self.data)
        misfit, tie = weight * (nodes[:, :, :-1] - self.data), (self.match / self.sigma[:, None]).expand_as(ends)
        residuals = (misfit.flatten(1), (tie * ends).flatten(1), (x[:, :p] - self.prior) / self.width)
        prior = constants / self.width[..., None]
        rows = ((weight[..., None] * jacobian[:, :, :-1]).flatten(1, 3), tie.flatten(1)[..., None] * jump, prior)
        return torch.cat(residuals, 1), torch.cat(rows, 1)


def levenberg_marquardt(
    residuals: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, iterations: int, tolerance: float = 1e-9
) -> Tensor:
    """Minimum of each ``|r(x_b)|^2``, x ``(B, n)``, by the method of Levenberg and Marquardt (Marquardt 1963).

    The damping of each row scales with the diagonal of its J^T J; trials that are worse or not finite are refused.
    """
    r, j = residuals(x)
    best, damping = _cost(r, j), torch.full_like(x[:, :1], 1e-3)
    for _ in range(iterations):
        trial = x - _step(r, j, damping)
        r_new, j_new = residuals(trial)
        cost = _cost(r_new, j_new)
        better = cost < best
        done = (better & (best - cost <= tolerance * best)) | (damping[:, 0] > 1e9) | (best < 1e-24)
        x, best = torch.where(better[:, None], trial, x), torch.where(better, cost, best)
        r, j = torch.where(better[:, None], r_new, r), torch.where(better[:, None, None], j_new, j)
        damping = torch.where(better[:, None], (damping * 0.2).clamp(min=1e-12), damping * 6)
        if bool(done.all()):
            break
    return x


def _cost(r: Tensor, j: Tensor) -> Tensor:
    cost = r.square().sum(1)
    finite = cost.isfinite() & j.flatten(1).isfinite().all(1)
    return torch.where(finite, cost, torch.inf)


def _step(r: Tensor, j: Tensor, damping: Tensor) -> Tensor:
    finite = r.isfinite().all(1) & j.flatten(1).isfinite().all(1)
    r, j = torch.where(finite[:, None], r, 0.0), torch.where(finite[:, None, None], j, 0.0)
    normal = j.mT @ j
    diagonal = normal.diagonal(dim1=1, dim2=2)
    floor = (1e-14 * diagonal.amax(1, keepdim=True)).clamp(min=1e-30)
    matrix = normal + torch.diag_embed(damping * diagonal + floor)
    return torch.linalg.solve_ex(matrix, j.mT @ r[..., None]).result[..., 0]  # nan, and refused, where singular
