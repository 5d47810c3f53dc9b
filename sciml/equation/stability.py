"""Linear stability of the mean flow, and vertical modes of the stratification."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sciml.equation.base import Term, apply
from sciml.equation.qg import QuasiGeostrophic


class Stability(NamedTuple):
    """Normal modes ``exp(i (k x + l y - omega t))`` at every stored wavevector, the fastest growing first."""

    growth: Tensor
    """``Im omega``, shape ``(n, *modes)``"""
    frequency: Tensor
    """``Re omega``; the zonal phase speed is ``frequency / k``"""
    psi: Tensor
    """streamfunction of each mode, ``(n modes, n layers, *modes)``, largest entry of modulus 1"""

    def fastest(self) -> tuple[int, int, int]:
        """Indices ``(mode, m, n)`` of the largest growth rate, with m waves in x and n in y."""
        i = int(self.growth.argmax())
        return tuple(int(a) for a in torch.unravel_index(torch.tensor(i), self.growth.shape))  # type: ignore[return-value]


def stability(eq: QuasiGeostrophic) -> Stability:
    """Normal modes of all linear terms together (mean flow, beta, drag, viscosity ...) at each wavevector.

    The eigenvectors are of psi, also for unequal layers. A mean flow U(y) couples wavevectors and is refused; see
    :func:`stability_of_profile`.

    Examples
    --------
    >>> eddy = sm.stability(sm.preset("eddy", nx=32))
    >>> bool(eddy.growth.max() > 0), bool(sm.stability(sm.preset("eddy", nx=32, U1=0.0)).growth.max() <= 1e-12)
    (True, True)
    """
    if any(torch.as_tensor(u).ndim for u in eq.mean_flow[0]):
        raise ValueError("the mean flow varies in y and couples wavenumbers; use stability_of_profile(eq, m)")
    varying = [t for t in eq.nonlinear_terms if t.name != "advection" and has_linear_part(eq, t)]
    if varying:
        named = ", ".join(f"{t.name} of {t.field}" for t in varying)
        raise ValueError(
            f"{named}: coefficients that vary in space couple wavenumbers; use stability_of_profile(eq, m)"
        )
    values, vectors = torch.linalg.eig(eq.linear.movedim((0, 1), (-2, -1)))
    order = values.real.argsort(-1, descending=True)
    values = values.gather(-1, order)
    vectors = vectors.gather(-1, order.unsqueeze(-2).expand_as(vectors))
    psi = apply(eq.invert.to(vectors.dtype), vectors.movedim((-1, -2), (0, 1)))
    size = psi.abs().amax(1, keepdim=True)
    psi = psi / torch.where(size > 0, size, 1.0)
    return Stability(values.real.movedim(-1, 0), -values.imag.movedim(-1, 0), psi)


def has_linear_part(eq: QuasiGeostrophic, term: Term) -> bool:
    """Whether a term has a derivative by the state at rest."""
    generator = torch.Generator().manual_seed(0)
    z = eq.init(torch.randn(eq.n, *eq.grid.shape, generator=generator, dtype=torch.float64).to(eq.grid.device))
    response = torch.func.jvp(lambda state: eq.evaluate(state, [term]), (torch.zeros_like(z),), (z,))[1]
    return bool(response.abs().max() > 0)


def stability_of_profile(eq: QuasiGeostrophic, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Growth rates, frequencies and psi ``(mode, layer, *modes)`` of all modes with ``m`` waves in x, fastest first.

    The matrix is found column by column from the model's own terms, all but the advection of anomalies by anomalies.
    """
    columns, rows = eq.grid.modes
    if not 0 < m < columns:
        raise ValueError(f"m must lie between 1 and {columns - 1}, got {m}")
    size = eq.n * rows
    basis = torch.zeros(size, eq.n, columns, rows, dtype=eq.grid.cdtype, device=eq.grid.device)
    basis[..., m, :] = torch.eye(size, dtype=basis.dtype, device=eq.grid.device).view(size, eq.n, rows)
    terms = [t for t in eq.terms if t.name != "advection"]
    response = eq.evaluate(basis, terms) - eq.evaluate(torch.zeros_like(basis), terms)
    values, vectors = torch.linalg.eig(response[..., m, :].reshape(size, size).mT.to(torch.complex128))
    order = values.real.argsort(descending=True)
    modes = torch.zeros_like(basis)
    modes[..., m, :] = vectors[:, order].mT.reshape(size, eq.n, rows).to(basis.dtype)
    return values.real[order], -values.imag[order], eq.psi(modes)


def vertical_modes(eq: QuasiGeostrophic) -> tuple[Tensor, Tensor]:
    """Deformation radii (m, infinite for the barotropic mode) and modes ``(mode, layer)`` of the stratification.

    ``S phi = -phi / R^2``, orthonormal: ``sum_i (H_i/H) phi_m,i phi_n,i = delta_mn``, positive in the upper layer.

    Examples
    --------
    >>> from sciml.equation.stability import vertical_modes
    >>> radii, modes = vertical_modes(sm.preset("eddy", nx=16))
    >>> round(float(radii[1])), modes.shape  # m
    (15000, torch.Size([2, 2]))
    """
    root = eq.fraction.sqrt()
    symmetric = root[:, None] * eq.S / root[None, :]
    values, vectors = torch.linalg.eigh(-(symmetric + symmetric.mT) / 2)
    values[0] = 0.0
    phi = (vectors / root[:, None]).mT
    return values.rsqrt(), phi * phi[:, :1].sign()
