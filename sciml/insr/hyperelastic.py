r"""Hyperelastic energies as functions of the deformation gradient :math:`F = I + \nabla u`, with both derivatives.

All take F ``(n, d, d)``, d 2 (plane strain) or 3, first index the component, and give densities ``(n,)`` in J m-3,
first Piola-Kirchhoff stresses :math:`P = \partial \Psi / \partial F` ``(n, d, d)`` and curvatures
:math:`\partial P / \partial F` ``(n, d^2, d^2)``, both in Pa.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Energy:
    """A density and its derivatives, zero and without stress at F = I."""

    density: Function
    stress: Function
    curvature: Function


def lame(E: float, nu: float) -> tuple[float, float]:
    r"""Shear modulus :math:`\mu` and :math:`\lambda` of Young's modulus E and Poisson's ratio nu.

    Raises ``ValueError`` for a modulus that is not positive and a ratio outside -1 to 1/2.
    """
    if not (0 < E < math.inf and -1 < nu < 0.5):
        raise ValueError(f"Young's modulus must be positive and Poisson's ratio between -1 and 0.5, got {E} and {nu}")
    return E / (2 * (1 + nu)), E * nu / ((1 + nu) * (1 - 2 * nu))


# -- stable Neo-Hookean ----------------------------------------------------------------------------------------------
def stable_neo_hookean(mu: float, lam: float) -> Energy:
    r"""Finite also where the body is turned inside out (Smith, De Goes & Kim 2018, ACM TOG 37, 12, eq. 14):

    .. math:: \Psi = \tfrac{m}{2} (I_C - 3) - \tfrac{m}{2} \log(I_C + 1) + \tfrac{l}{2} (J - \alpha)^2 + c, \qquad
        m = \tfrac43 \mu, \quad l = \lambda + \tfrac56 \mu, \quad \alpha = 1 + \tfrac{3 m}{4 l}

    with :math:`I_C = |F|^2` (plus 1 in plane strain), J the determinant, and mu and lam [Pa] those of small strains.
    Raises ``ValueError`` where these are not those of a solid.
    """
    checked(mu, lam)
    m, l = 4 / 3 * mu, lam + 5 / 6 * mu  # noqa: E741
    alpha = 1 + 0.75 * m / l
    rest = 0.5 * l * (1 - alpha) ** 2

    def invariant(F: Tensor) -> Tensor:
        return F.square().sum((-1, -2)) + (4 - F.shape[-1])  # I_C + 1

    def density(F: Tensor) -> Tensor:
        I = invariant(F)  # noqa: E741
        volume = 0.5 * l * (determinant(F) - alpha).square() - rest
        return 0.5 * m * (I - 4 - (I / 4).log()) + volume

    def stress(F: Tensor) -> Tensor:
        shear, volume = m * (1 - 1 / invariant(F)), l * (determinant(F) - alpha)
        return shear[:, None, None] * F + volume[:, None, None] * cofactor(F)

    def curvature(F: Tensor) -> Tensor:
        I, f, g = invariant(F)[:, None, None], F.flatten(1), cofactor(F).flatten(1)  # noqa: E741
        one, volume = torch.eye(f.shape[1]).to(F), l * (determinant(F) - alpha)
        shear = m * (1 - 1 / I) * one + 2 * m / I.square() * outer(f, f)
        return shear + l * outer(g, g) + volume[:, None, None] * slope_of_cofactor(F)

    return Energy(density, stress, curvature)


# -- as rigid as possible --------------------------------------------------------------------------------------------
def arap(mu: float, lam: float = 0.0) -> Energy:
    r"""As rigid as possible, and a volume term: :math:`\Psi = \mu |F - R|^2 + \tfrac{\lambda}{2} (J - 1)^2`, R the
    rotation nearest to F, mu and lam [Pa] those of small strains.

    :math:`\partial R / \partial F = \sum_k 2 / (\sigma_i + \sigma_j)\, t_k \otimes t_k`, with the rotations
    :math:`t_k = U T_k V^T` in the planes of two singular vectors (Smith, De Goes & Kim 2019, ACM TOG 38, 5, section
    4.1), is smooth at F = I, where derivatives of singular vectors are not.
    """
    checked(mu, lam)

    def density(F: Tensor) -> Tensor:
        R = polar(F)[0]
        return mu * (F - R).square().sum((-1, -2)) + 0.5 * lam * (determinant(F) - 1).square()

    def stress(F: Tensor) -> Tensor:
        volume = lam * (determinant(F) - 1)
        return 2 * mu * (F - polar(F)[0]) + volume[:, None, None] * cofactor(F)

    def curvature(F: Tensor) -> Tensor:
        one, g, volume = torch.eye(F.shape[-1] ** 2).to(F), cofactor(F).flatten(1), lam * (determinant(F) - 1)
        turning = 2 * mu * (one - slope_of_polar(F))
        return turning + lam * outer(g, g) + volume[:, None, None] * slope_of_cofactor(F)

    return Energy(density, stress, curvature)


def polar(F: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The nearest rotation R, and U, singular values, V^T with ``F = U diag(s) V^T``, where the last value of s has the
    sign of the determinant, so that U V^T is R."""
    U, s, Vh = torch.linalg.svd(F)
    sign = torch.linalg.det(U @ Vh).sign()
    last = torch.cat([torch.ones_like(s[..., 1:]), sign[..., None]], -1)
    U = U * last[..., None, :]
    return U @ Vh, U, s * last, Vh


def slope_of_polar(F: Tensor) -> Tensor:
    """``dR / dF (n, d^2, d^2)``. Sums of singular values are kept from 0, where R jumps."""
    _, U, s, Vh = polar(F)
    found = F.new_zeros(len(F), F.shape[-1] ** 2, F.shape[-1] ** 2)
    for i in range(F.shape[-1]):
        for j in range(i):
            t = outer(U[..., i], Vh[..., j, :]) - outer(U[..., j], Vh[..., i, :])
            t, total = t.flatten(1), (s[:, i] + s[:, j]).clamp(min=1e-6)
            found += outer(t, t) / total[:, None, None]
    return found


# -- parts -----------------------------------------------------------------------------------------------------------
def checked(mu: float, lam: float) -> None:
    """Refuse what is no solid: shear and bulk moduli (of plane strain) must be positive."""
    if not (0 < mu < math.inf and -2 / 3 * mu < lam < math.inf):
        raise ValueError(f"the shear modulus and lambda + 2/3 mu must be positive, got mu = {mu} and lambda = {lam}")


def outer(a: Tensor, b: Tensor) -> Tensor:
    """``(n, p, q)`` of ``(n, p)`` and ``(n, q)``."""
    return a[:, :, None] * b[:, None, :]


@cache
def levi_civita(d: int) -> Tensor:
    """The alternating tensor."""
    index = torch.arange(d)
    grids = torch.meshgrid(*(index,) * d, indexing="ij")
    pairs = [grids[j] - grids[i] for i in range(d) for j in range(i + 1, d)]
    return torch.stack(pairs).sign().prod(0).double()


def determinant(F: Tensor) -> Tensor:
    """By cofactors, which is smooth and quick for small matrices."""
    return (F[:, 0] * cofactor(F)[:, 0]).sum(-1)


def cofactor(F: Tensor) -> Tensor:
    """``d det F / dF``."""
    if F.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in F.unbind(-2))
        return torch.stack([d, -c, -b, a], -1).reshape(F.shape)
    first, second, third = F.unbind(-2)
    cross = torch.linalg.cross
    return torch.stack([cross(second, third), cross(third, first), cross(first, second)], -2)


def slope_of_cofactor(F: Tensor) -> Tensor:
    """``d^2 det F / dF^2 (n, d^2, d^2)``."""
    d, e = F.shape[-1], levi_civita(F.shape[-1]).to(F)
    if d == 2:
        return torch.einsum("ik,jl->ijkl", e, e).reshape(4, 4).expand(len(F), 4, 4)
    return torch.einsum("ikb,jlm,nbm->nijkl", e, e, F).reshape(len(F), 9, 9)


def whitened(curvature: Tensor) -> Tensor:
    """R ``(n, p, p)`` with ``R^T R`` the nearest positive semi-definite matrices (Teran et al. 2005, SCA)."""
    values, vectors = torch.linalg.eigh(curvature)
    return values.clamp(min=0).sqrt()[..., None] * vectors.mT
