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
    q, r = torch.linalg.qr(stacked(J, epsilon))
    return torch.linalg.solve_triangular(r, (q[: len(J)].mT @ f)[:, None], upper=True)[:, 0]


def stacked(J: Tensor, epsilon: float) -> Tensor:
    """J on top of its regularisation, ``(n + P, P)``."""
    P = J.shape[1]
    root = (epsilon * J.square().sum() / P).sqrt()
    return torch.cat([J, root * torch.eye(P, dtype=J.dtype, device=J.device)])


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
    damping: float = 1e-3, least: float = 1e-15, linear: Tensor | None = None,
) -> Fit:  # fmt: skip
    """Least ``|r(theta)|^2`` of ``residual(theta) -> r (n,), J (n, P)``, until ``|r|`` is ``tolerance``.

    The damping, relative as everywhere here, is a third after a step that helps and four times after one that does not
    (More 1978); the search ends where damping no longer helps.

    Where r is linear in some weights, a mask ``linear (P,)``, these are always the best for the others, which move to
    remove what those cannot: variable projection (Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413; Kaufman 1975, BIT
    15, 49). It goes straight where plain steps follow a narrow valley, at two Jacobians a step, but far from a fit it
    may end in a poor one with very large linear weights: begin without.
    """
    free = slice(None) if linear is None else ~linear
    r, J = residual(theta)
    if linear is not None:
        theta = with_best(theta, r, J, linear)[0]
        r, J = residual(theta)
    cost, made = r.square().sum(), 0
    if not bool(torch.isfinite(cost)):
        raise FloatingPointError("the residual at the start of a fit is not finite")
    for made in range(1, iterations + 1):  # noqa: B007
        K = J if linear is None else beyond(J, linear)
        gram, slope = K.mT @ K, K.mT @ r
        for _ in range(12):
            try:
                tried = theta.clone()
                tried[free] -= cholesky_solve(gram, slope, damping)
                new, jacobian = residual(tried)
                if linear is not None:
                    tried, new = with_best(tried, new, jacobian, linear)
                lower = bool(new.square().sum() < cost)
            except FloatingPointError:
                lower = False
            if lower:
                break
            damping *= 4
        else:
            break
        theta, r, J = tried, new, jacobian if linear is None else residual(tried)[1]
        cost, damping = r.square().sum(), max(damping / 3, least)
        if float(cost.sqrt()) <= tolerance:
            break
    return Fit(theta, float(cost.sqrt()), made)


RIDGE = 1e-26
"""of linear weights: a column that is zero, or a sum of others, does no harm"""


def with_best(theta: Tensor, r: Tensor, J: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Weights with the best of those in which r is linear, and the residual then."""
    if not bool(torch.isfinite(J).all() & torch.isfinite(r).all()):
        raise FloatingPointError("the residual is not finite")
    change, theta = orthogonal(J[:, linear], r, RIDGE), theta.clone()
    theta[linear] -= change
    return theta, r - J[:, linear] @ change


def beyond(J: Tensor, linear: Tensor) -> Tensor:
    """Columns of the other weights, less what columns of linear ones can make of them."""
    q = torch.linalg.qr(stacked(J[:, linear], RIDGE))[0][: len(J)]
    return J[:, ~linear] - q @ (q.mT @ J[:, ~linear])
