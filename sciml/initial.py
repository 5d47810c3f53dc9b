"""Initial fields: random ones of a given spectrum, waves, vortices. All take an explicit seed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.equation.qg import QuasiGeostrophic
from sciml.grid import Grid


def random_field(grid: Grid, spectrum: Callable[[Tensor], Tensor], seed: int, batch: tuple[int, ...] = ()) -> Tensor:
    r"""Gaussian random fields ``(*batch, ny, nx)`` with variance density ``spectrum(K)`` per wavevector, mean zero.

    White noise is drawn on the grid in float64 and coloured, so that a seed gives the same field in either precision.

    Examples
    --------
    >>> grid = sm.Grid(16, 16, Lx=1.0, Ly=1.0)
    >>> from sciml.initial import random_field
    >>> f = random_field(grid, lambda K: torch.exp(-((K / 20) ** 2)), seed=0, batch=(4,))
    >>> f.shape, bool(f.mean().abs() < 1e-12)
    (torch.Size([4, 16, 16]), True)
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*batch, *grid.shape, dtype=torch.float64, generator=generator).to(grid.device)
    K = grid.K2.sqrt()
    colour = torch.where(K > 0, spectrum(torch.where(K > 0, K, 1.0)).clamp(min=0).sqrt(), 0.0)
    fh = grid.fft(noise) * colour * math.sqrt(grid.nx * grid.ny)
    return grid.real(grid.ifft(fh))


def gaussian_random_field(grid: Grid, seed: int, tau: float, alpha: float, sigma: float = 1.0, batch=()) -> Tensor:
    r"""Field of covariance :math:`\sigma^2 (-\nabla^2 + \tau^2)^{-\alpha}` (Li et al. 2021, appendix A.3)."""
    return random_field(grid, lambda K: sigma**2 * (K**2 + tau**2) ** -alpha, seed, batch)


def random_pv(
    eq: QuasiGeostrophic, seed: int, members: int | None = None, speed: float | None = None, scale: float | None = None
) -> Tensor:
    """Random PV ``([members,] n, ny, nx)``: smooth random eddies in the upper layer, lower layers at rest.

    Parameters
    ----------
    speed : rms velocity of the upper layer, m s-1 (default: a tenth of the mean shear, or 0.01 without one)
    scale : wavelength of the eddies, m (default: an eighth of the shorter side of the box)

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> q = sm.random_pv(eq, seed=0, members=3)
    >>> q.shape, torch.equal(q, sm.random_pv(eq, seed=0, members=3))
    (torch.Size([3, 2, 16, 16]), True)
    """
    grid = eq.grid
    if members is not None and members < 1:
        raise ValueError(f"members must be at least 1, got {members}")
    if not isinstance(eq, QuasiGeostrophic):
        raise ValueError(f"random_pv is for quasi-geostrophic models, not {type(eq).__name__}; see random_field")
    smallest = 2 * max(grid.dx, grid.dy)
    if not smallest <= (smallest if scale is None else scale) < math.inf or not 0 <= (speed or 0) < math.inf:
        raise ValueError(f"scale is a wavelength of at least two points, {smallest:g}, and speed not negative; got "
                         f"scale={scale} and speed={speed}")  # fmt: skip
    kp = 2 * math.pi / (min(grid.Lx, grid.Ly) / 8 if scale is None else scale)
    batch = () if members is None else (members,)
    top = random_field(grid, lambda K: (K / kp) ** 6 * torch.exp(-3 * (K / kp) ** 2), seed, batch)
    psi = torch.zeros(*batch, eq.n, *grid.shape, dtype=grid.dtype, device=grid.device)
    psi[..., 0, :, :] = top
    u, v = eq.velocity(eq.pv(psi))
    rms = (u**2 + v**2)[..., 0, :, :].mean((-2, -1), keepdim=True).sqrt()
    flow = [abs(torch.as_tensor(a)).max().item() for a in eq.mean_flow[0]]
    target = speed if speed is not None else 0.1 * max(flow) or 0.01
    return eq.read(eq.pv(psi * (target / rms).unsqueeze(-3)))


def rossby_wave(eq: QuasiGeostrophic, m: int, n: int, amplitude: float, layers: tuple[float, ...]) -> Tensor:
    """PV of ``psi_i = amplitude layers_i cos(k x + l y)`` with ``m`` and ``n`` waves in x and y.

    Examples
    --------
    >>> eq = sm.LayeredQG(grid=sm.Grid(32, 32, Lx=1e6, Ly=1e6), beta=1.5e-11)
    >>> from sciml.initial import rossby_wave
    >>> rossby_wave(eq, 1, 2, amplitude=100.0, layers=(1.0,) * eq.n).shape[-2:]
    torch.Size([32, 32])
    """
    x, y = eq.grid.axes()
    wave = amplitude * torch.cos(2 * math.pi * (m * x / eq.grid.Lx + n * y / eq.grid.Ly))
    return eq.read(eq.pv(torch.stack([a * wave for a in layers])))


def taylor_green(grid: Grid, waves: int = 1) -> Tensor:
    """Vorticity ``2 k cos k x cos k y`` of the Taylor-Green vortices of unit speed, shape ``(1, ny, nx)``.

    Examples
    --------
    >>> grid = sm.Grid(32, 32, Lx=2 * torch.pi, Ly=2 * torch.pi)
    >>> step = sm.rk4(sm.equation.Vorticity(grid=grid, nu=0.1), 0.01)
    >>> from sciml.initial import taylor_green
    >>> start = taylor_green(grid)
    >>> end = sm.rollout(step, 100, every=100)(start).fields[-1]  # exp(-2 nu t) of it
    >>> bool((end - math.exp(-0.2) * start).abs().max() < 1e-9)
    True
    """
    x, y = grid.axes()
    k, l = 2 * math.pi * waves / grid.Lx, 2 * math.pi * waves / grid.Ly  # noqa: E741
    return ((k * k + l * l) / max(k, l) * torch.cos(k * x) * torch.cos(l * y))[None]


def vortex_pair(eq: QuasiGeostrophic) -> Tensor:
    """PV of pyqg's merger test on the 2 pi box: two Gaussians in psi, kinetic energy 1."""
    x, y = eq.grid.axes()
    half = math.pi / 2
    west, east = (torch.exp(-((2 * (x - c * half)) ** 2) - (2 * (y - math.pi)) ** 2) for c in (1.75, 2.25))
    z = eq.pv((west + east)[None])
    if eq.filter is not None:
        z = z * eq.filter
    return eq.read(z / eq.energy(z).sqrt())
