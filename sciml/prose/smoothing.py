"""Smooth curves through noisy samples, and the weak form of an ordinary differential equation on them."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.prose.shooting import Rhs, differences, levenberg_marquardt


def smoothed(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth values ``(..., n, D)`` and the noise's standard deviation ``(..., 1)``, the same in all components.

    Minimises |u - z|^2 + a |z'''|^2 (divided differences; Whittaker 1923, Eilers 2003), with a of each component by
    generalised cross-validation (Craven & Wahba 1979). t is ``(n,)``, increasing.
    """
    smooth, left, free = _cross_validated(t, u)
    return smooth, (left.sum(-1, keepdim=True) / free.sum(-1, keepdim=True)).sqrt()


SHARED = 5.0
"""Degrees of freedom that the noise of all components together counts for in that of each"""


def noise(t: Tensor, u: Tensor) -> Tensor:
    """Standard deviation of each component's noise ``(D,)``, u ``(n, D)`` as in :func:`smoothed`.

    Logarithms of the estimates of each and of all together are averaged with their degrees of freedom, for where
    cross-validation takes noise for signal it leaves next to none of them.
    """
    _, left, free = _cross_validated(t, u)
    each, all_ = left / free, left.sum() / free.sum()
    tiny = torch.finfo(u.dtype).tiny
    part = free / (free + SHARED)
    return (part * each.clamp(min=tiny).log() + (1 - part) * all_.clamp(min=tiny).log()).div(2).exp()


def _cross_validated(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth values, sums of squares that they leave, and what those have of degrees of freedom ``(..., D)``."""
    rough, basis = torch.linalg.eigh(_roughness(t))
    penalty = torch.logspace(-12, 8, 81, dtype=u.dtype, device=u.device) / rough[-1] * 1e4
    kept = 1 / (1 + penalty[:, None] * rough.clamp(min=0))  # (K, n)
    free = len(t) - kept.sum(1)  # (K,)
    spectrum = basis.mT @ u
    rest = torch.einsum("kn,...nd->...kd", (1 - kept) ** 2, spectrum**2)
    choice = (rest / free[:, None] ** 2).argmin(-2)  # (..., D)
    left = rest.gather(-2, choice[..., None, :])[..., 0, :]
    return basis @ (kept[choice].mT * spectrum), left, free[choice]


def _roughness(t: Tensor) -> Tensor:
    """D^T D of third divided differences, each row weighted with the root of the time it stands for."""
    d, at = torch.eye(len(t), dtype=t.dtype, device=t.device), t
    for _ in range(3):
        at_next = (at[1:] + at[:-1]) / 2
        d, at = (d[1:] - d[:-1]) / (at[1:] - at[:-1])[:, None], at_next
    d = d * torch.gradient(at)[0].sqrt()[:, None]
    return d.mT @ d


def weak_form(t: Tensor, width: int = 8) -> tuple[Tensor, Tensor]:
    r"""Matrices W, V ``(K, n)`` with :math:`V u = W \dot u` for smooth u, up to quadrature errors.

    Test functions (1 - s^2)^4, s = (t - t_k) / half-width, zero at the ends of ``2 width + 1`` samples; by parts,
    :math:`-\int \dot\phi u = \int \phi f` (Messenger & Bortz 2021, eqs. 2.3 and 2.6), by the trapezoidal rule.
    """
    n = len(t)
    width = max(1, min(width, (n - 1) // 2))
    first = torch.arange(0, n - 2 * width, device=t.device)
    half = (t[first + 2 * width] - t[first]) / 2
    s = (t - t[first][:, None] - half[:, None]) / half[:, None]
    inside = (1 - s**2).clamp(min=0)
    quadrature = torch.gradient(torch.cat((2 * t[:1] - t[1:2], t, 2 * t[-1:] - t[-2:-1])))[0][1:-1]
    return inside**4 * quadrature, 8 * s * inside**3 / half[:, None] * quadrature


def regressed(
    f: Rhs,
    start: Tensor,
    t: Tensor,
    u: Tensor,
    smooth: Tensor,
    generator: torch.Generator | None = None,
    tries: int = 8,
) -> Tensor:
    """Constants ``(B, P)`` that fit the weak form of u' = f(u; c) in least squares, f read on smooth states.

    Constants that are nan in ``start`` are tried from several random values, signs and sizes (.1 to 10) alike; for
    those that enter linearly all tries end the same.
    """
    w, v = weak_form(t)
    target, unknown = v @ u, start.isnan()
    tries = tries if bool(unknown.any()) else 1
    noise = torch.randn(2, tries, *start.shape, generator=generator, dtype=start.dtype).to(start.device)
    x = torch.where(unknown, noise[0].sign() * 10 ** noise[1].clamp(-2, 2).div(2), start).flatten(0, 1)
    if not x.shape[1]:
        return start
    target, smooth = target.repeat(tries, 1, 1), smooth.repeat(tries, 1, 1)

    def residuals(c: Tensor) -> Tensor:
        rows = c.view(-1, *target.shape[:1], c.shape[-1])
        values = w @ f(smooth, rows[..., None, :]) - target
        return values.flatten(-2).flatten(0, -2)

    def linearised(c: Tensor) -> tuple[Tensor, Tensor]:
        r, slopes = differences(residuals, c, torch.eye(c.shape[1]).to(c))
        return r, slopes.movedim(0, -1)

    x = levenberg_marquardt(linearised, x, 30).view(tries, *start.shape)
    cost = residuals(x.flatten(0, 1)).square().sum(-1).view(tries, -1)
    best = torch.where(cost.isfinite(), cost, torch.inf).argmin(0)
    return x[best, torch.arange(len(best), device=x.device)]
