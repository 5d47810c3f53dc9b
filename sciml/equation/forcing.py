"""Stochastic forcing of quasi-geostrophic flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.qg import QuasiGeostrophic


@dataclass(frozen=True)
class RingForcing:
    """White noise in time that feeds PV; made by :func:`ring_forcing`, given to an equation as ``noise``.

    ``amplitude (n, *modes)`` colours white noise drawn on the grid, ``input (*modes)`` is the mean energy input per
    stored wavevector.
    """

    amplitude: Tensor
    input: Tensor

    def __call__(self, eq: QuasiGeostrophic, generator: torch.Generator, batch: tuple[int, ...]) -> Tensor:
        grid = eq.grid
        white = torch.randn(*batch, 1, *grid.shape, dtype=grid.dtype, device=grid.device, generator=generator)
        return self.amplitude * grid.fft(white)


def ring_forcing(
    eq: QuasiGeostrophic, rate: float, wavenumber: float, width: float, layers: tuple[float, ...] | None = None
) -> RingForcing:
    """Isotropic forcing at ``|K - wavenumber| < width / 2`` that feeds energy at ``rate`` [m2 s-3] on average.

    The mean input is exact whatever the flow, because increments are independent of the state: half the energy norm
    of the noise (Lilly 1969, Phys. Fluids 12, II-240). ``layers`` are the relative PV amplitudes (default: upper only).
    """
    grid = eq.grid
    if not 0 <= rate < math.inf:
        raise ValueError(f"the rate of energy input must be a number that is not negative, got {rate}")
    if layers is not None and (len(layers) != eq.n or not any(layers)):
        raise ValueError(f"layers needs one amplitude for each of the {eq.n} layers, not all zero, got {layers}")
    weights = torch.tensor(layers or (1.0,) + (0.0,) * (eq.n - 1), dtype=torch.float64, device=grid.device)
    ring = ((grid.K2.sqrt() - wavenumber).abs() <= width / 2) & (grid.K2 > 0)
    if not ring.any():
        raise ValueError(f"no wavevector of the grid lies within {width / 2:g} of the wavenumber {wavenumber:g}")
    shape = weights[:, None, None] * ring
    psi = torch.einsum("ij...,j...->i...", eq.invert, shape.double())
    energy = -0.5 * grid.weight * (eq.fraction[:, None, None] * psi * shape).sum(0) / (grid.nx * grid.ny)
    scale = rate / energy.sum()
    return RingForcing(grid.real(shape * scale.sqrt()), grid.real(energy * scale))
