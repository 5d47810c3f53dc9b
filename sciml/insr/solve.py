r"""Least squares in the weights of a network: the inner solvers of neural-field time stepping.

All are regularised by :math:`\epsilon` times the mean of the diagonal of :math:`J^T J`, P weights and n samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Linear = Callable[[Tensor, Tensor, float], Tensor]
"""``(J (n, P), f (n,), epsilon) -> x (P,)`` with the least ``|J x - f|^2 + epsilon mean(diag J^T J) |x|^2``"""


# -- linear ----------------------------------------------------------------------------------------------------------
def primal(J: Tensor, f: Tensor, epsilon: float) -> Tensor:
    """By Cholesky factors of ``J^T J``, P x P. Raises ``ValueError`` for fewer samples than weights."""
    if len(J) < J.shape[1]:
        raise ValueError(f"{len(J)} samples do not fix {J.shape[1]} weights; use more samples, fewer weights or dual")
    gram = J.mT @ J
    return cholesky_solve(gram, J.mT @ f, epsilon)


def dual(J: Tensor, f: Tensor, epsilon: float) -> Tensor:
    """By Cholesky factors of ``J J^T``, n x n, with the same result (Woodbury): for more weights than samples."""
    gram = J @ J.mT
    ridge = epsilon * gram.diagonal().sum() / J.shape[1]
    return J.mT @ cholesky_solve(gram, f, 0.0, ridge)


def orthogonal(J: Tensor, f: Tensor, epsilon: float) -> Tensor:
    """By Householder reflections of J on top of its regularisation, which does not square the condition number."""
    P = J.shape[1]
    root = (epsilon * J.square().sum() / P).sqrt()
    both = torch.cat([J, root * torch.eye(P, dtype=J.dtype, device=J.device)])
    q, r = torch.linalg.qr(both)
    return torch.linalg.solve_triangular(r, (q[: len(J)].mT @ f)[:, None], upper=True)[:, 0]


def cholesky_solve(gram: Tensor, right: Tensor, epsilon: float, ridge: Tensor | float = 0.0) -> Tensor:
    """Raises ``FloatingPointError`` where the matrix is not finite or not positive."""
    gram = gram.clone()
    gram.diagonal().add_(epsilon * gram.diagonal().mean() + ridge)
    factor, info = torch.linalg.cholesky_ex(gram)
    if int(info) or not bool(torch.isfinite(factor.diagonal()).all()):
        raise FloatingPointError("the least-squares problem is singular; use a larger epsilon")
    return torch.cholesky_solve(right[:, None], factor)[:, 0]


def subset(solve: Linear, count: int, seed: int) -> Linear:
    """Only ``count`` random weights move, the same for a seed (Berman & Peherstorfer 2023, NeurIPS, section 4.1)."""

    def solved(J: Tensor, f: Tensor, epsilon: float) -> Tensor:
        kept = torch.randperm(J.shape[1], generator=torch.Generator().manual_seed(seed))[:count].to(J.device)
        return J.new_zeros(J.shape[1]).index_copy(0, kept, solve(J[:, kept], f, epsilon))

    return solved


# -- nonlinear -------------------------------------------------------------------------------------------------------
class Fit(NamedTuple):
    """Weights, norm of the residual, and iterations."""

    theta: Tensor
    error: float
    iterations: int


def levenberg_marquardt(
    residual: Callable[[Tensor], tuple[Tensor, Tensor]], theta: Tensor, iterations: int, tolerance: float = 0.0,
    damping: float = 1e-3, least: float = 1e-15,
) -> Fit:  # fmt: skip
    """Least ``|r(theta)|^2`` of ``residual(theta) -> r (n,), J (n, P)``, until ``|r|`` is ``tolerance``.

    The damping, relative as everywhere here, is a third after a step that helps and four times after one that does not
    (More 1978); the search ends where damping no longer helps.
    """
    r, J = residual(theta)
    cost, made = r.square().sum(), 0
    if not bool(torch.isfinite(cost)):
        raise FloatingPointError("the residual at the start of a fit is not finite")
    for made in range(1, iterations + 1):  # noqa: B007
        gram, slope = J.mT @ J, J.mT @ r
        for _ in range(12):
            try:
                tried = theta - cholesky_solve(gram, slope, damping)
                new, jacobian = residual(tried)
                lower = bool(new.square().sum() < cost)
            except FloatingPointError:
                lower = False
            if lower:
                break
            damping *= 4
        else:
            break
        theta, r, J, cost = tried, new, jacobian, new.square().sum()
        damping = max(damping / 3, least)
        if float(cost.sqrt()) <= tolerance:
            break
    return Fit(theta, float(cost.sqrt()), made)
