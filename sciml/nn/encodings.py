r"""Encodings of position on a doubly periodic box, the first layer of a neural field, and sets of waves for them.

Positions are ``(..., 2)`` [x, y] in units of the box; an encoding gives ``(..., width)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sciml.fill import nyquist
from sciml.grid import Grid
from sciml.nn.jets import Jet, concatenated, cosine, reciprocal, sine

Function = Callable[[Tensor], Tensor]


# -- encodings of position -------------------------------------------------------------------------------------------
class Coordinates(nn.Module):
    """Coordinates from ``-reach`` to ``reach`` across the box, as published (of one row: x alone). Not periodic."""

    origin: Tensor
    length: Tensor

    def __init__(self, grid: Grid, reach: float = math.pi, width: int | None = None):
        super().__init__()
        self.dims = 2 if grid.ny > 1 else 1
        self.reach, self.width = reach, self.dims if width is None else width
        origin, length = torch.tensor([[grid.x0, grid.y0], [grid.Lx, grid.Ly]], dtype=torch.float64, device=grid.device)
        self.register_buffer("origin", origin[: self.dims])
        self.register_buffer("length", length[: self.dims])

    def forward(self, positions: Tensor) -> Tensor:
        return self.reach * (2 * (positions[..., : self.dims] - self.origin) / self.length - 1)

    def jet(self, positions: Jet) -> Jet:
        """The encoding of the jet of a position."""
        return (positions[: self.dims] + -self.origin) * (2 * self.reach / self.length) + -self.reach


def equal(numbers: Tensor) -> Tensor:
    """Amplitudes 1."""
    return numbers.new_ones(len(numbers))


class Waves(Coordinates):
    """``a_j cos(k_j . theta)`` and ``a_j sin(k_j . theta)`` with theta in [-pi, pi), periodic for whole numbers k.

    Parameters
    ----------
    numbers : k, ``(j, 2)``, periods of the box in x and in y
    amplitude : ``numbers -> a (j,)``; the parameters of a module are trained
    """

    numbers: Tensor

    def __init__(self, grid: Grid, numbers: Tensor, amplitude: Function = equal):
        if numbers.ndim != 2 or numbers.shape[1] != 2 or not len(numbers):
            raise ValueError(f"wave numbers must have the shape (j, 2), j at least 1, got {tuple(numbers.shape)}")
        super().__init__(grid, width=2 * len(numbers))
        self.register_buffer("numbers", numbers[:, : self.dims].to(self.origin))
        self.amplitude = amplitude

    def forward(self, positions: Tensor) -> Tensor:
        phase = super().forward(positions) @ self.numbers.T
        amplitude = self.amplitude(self.numbers).to(phase)
        return torch.cat([amplitude * phase.cos(), amplitude * phase.sin()], -1)

    def jet(self, positions: Jet) -> Jet:
        phase, amplitude = super().jet(positions).linear(self.numbers), self.amplitude(self.numbers)
        return concatenated([phase.apply(cosine) * amplitude, phase.apply(sine) * amplitude])


def periodic(grid: Grid) -> Waves:
    """Cosines and sines of ``2 pi x / Lx`` and ``2 pi y / Ly`` (in one dimension of the former only): what follows is
    exactly periodic."""
    return Waves(grid, torch.eye(2)[: 2 if grid.ny > 1 else 1])


class Harmonics(nn.Module):
    r"""Real spherical harmonics of degrees 1 to ``degree`` of unit vectors ``(..., 3)``, ``(..., (degree + 1)^2 - 1)``,
    with mean squares 1 over the sphere (Russwurm et al. 2024, ICLR).

    They are polynomials in x, y, z: :math:`\Re, \Im (x + i y)^m` times derivatives of Legendre polynomials of z.
    """

    origin: Tensor

    def __init__(self, degree: int = 1):
        super().__init__()
        if degree < 1:
            raise ValueError(f"the degree must be at least 1, got {degree}")
        self.degree, self.width = degree, (degree + 1) ** 2 - 1
        self.register_buffer("origin", torch.zeros(3, dtype=torch.float64))

    def forward(self, positions: Tensor) -> Tensor:
        return self.jet(Jet(positions[None], 2, 0)).c[0]

    def jet(self, positions: Jet) -> Jet:
        x, y, z = (positions[i : i + 1] for i in range(3))
        one = Jet(torch.zeros_like(x.c).index_fill(0, torch.tensor([0], device=x.c.device), 1.0), x.dims, x.order)
        real, imaginary, found = one, one * 0.0, []
        for m in range(self.degree + 1):
            for n, legendre in zip(range(m, self.degree + 1), derivatives_of_legendre(z, one, m), strict=False):
                norm = math.sqrt((2 * n + 1) * (2 if m else 1) * math.factorial(n - m) / math.factorial(n + m))
                if n:
                    found += [legendre * real * norm] + ([legendre * imaginary * norm] if m else [])
            real, imaginary = x * real + y * imaginary * -1.0, x * imaginary + y * real
        return concatenated(found)


def derivatives_of_legendre(z: Jet, one: Jet, m: int) -> Iterator[Jet]:
    """``d^m P_n / dz^m`` for n from m on: ``(n - m + 1) P_(n+1) = (2 n + 1) z P_n - (n + m) P_(n-1)``."""
    before, now, n = one * 0.0, one * float(math.prod(range(1, 2 * m, 2))), m
    while True:
        yield now
        before, now = now, (z * now * float(2 * n + 1) + before * -float(n + m)) * (1 / (n - m + 1))
        n += 1


class Kernels(Coordinates):
    """Kernels ``phi_i = 1 / (1 + |(x - x_i) / s_i|^2)`` and ``channels`` sines ``sin(n_j (V g + c)_j)`` of their sums
    ``g_c = sum_i w_ic (sin(m_c phi_i + b_c) - sin b_c)``, m and n from low to high ``tones``, even in their logarithm.

    Centres are evenly scattered at first, sizes ``overlap`` mean distances; all but tones is trained. Differences are
    ``L / pi sin(pi dx / L)``, periodic and smooth, and sizes are along the axes.
    """

    tones: Tensor

    def __init__(self, grid: Grid, kernels: int, channels: int, tones: tuple[float, float], overlap: float, seed: int):
        super().__init__(grid, reach=0.5, width=kernels + channels)
        draw, low, high = torch.Generator().manual_seed(seed), *map(math.log2, tones)
        even = torch.quasirandom.SobolEngine(self.dims, scramble=True, seed=seed).draw(kernels).to(self.origin)
        size = overlap * float(self.length.prod() / kernels) ** (1 / self.dims) / self.length
        self.centres, self.log_sizes = nn.Parameter(even - 0.5), nn.Parameter(size.log().repeat(kernels, 1))
        self.sums, self.mix = linear(kernels, channels, kernels**-0.5, draw), linear(channels, channels, 1.0, draw)
        self.register_buffer("tones", torch.logspace(low, high, channels, 2, dtype=torch.float64))

    def forward(self, positions: Tensor) -> Tensor:
        chord = torch.sin(math.pi * (super().forward(positions)[..., None, :] - self.centres)) / math.pi
        kernel, phase = 1 / (1 + ((chord / self.log_sizes.exp()) ** 2).sum(-1)), self.sums.bias
        waves = torch.sin(kernel[..., None] * self.tones + phase) - phase.sin()
        mixed = self.mix(torch.einsum("...ic,ci->...c", waves, self.sums.weight))
        return torch.cat([kernel, torch.sin(self.tones * mixed)], -1)

    def jet(self, positions: Jet) -> Jet:
        place = super().jet(positions)
        chord = (Jet(place.c[..., None, :], place.dims, place.order) + -self.centres) * math.pi
        square = chord.apply(sine) * (1 / (math.pi * self.log_sizes.exp()))
        kernel = ((square * square).sum() + 1.0).apply(reciprocal)
        waves = (kernel * self.tones + self.sums.bias).apply(sine) + -self.sums.bias.sin()
        kernel = Jet(kernel.c[..., 0], place.dims, place.order)
        mixed = Jet((waves.c * self.sums.weight.T).sum(-2), place.dims, place.order)
        mixed = mixed.linear(self.mix.weight, self.mix.bias) * self.tones
        return concatenated([kernel, mixed.apply(sine)])


def linear(inputs: int, outputs: int, bound: float, draw: torch.Generator) -> nn.Linear:
    """Uniform weights up to ``bound`` and biases up to ``inputs^(-1/2)``, not from torch's global generator."""
    layer = nn.Linear(inputs, outputs, dtype=torch.float64, device="meta").to_empty(device="cpu")
    nn.init.uniform_(layer.weight, -bound, bound, generator=draw)
    nn.init.uniform_(layer.bias, -(inputs**-0.5), inputs**-0.5, generator=draw)
    return layer


# -- waves -----------------------------------------------------------------------------------------------------------
def gaussian_waves(count: int, sigma: float, seed: int) -> Tensor:
    """Real wave numbers ``(count, 2)`` of standard deviation ``sigma``, 2 pi times MEDIDA's (Tancik et al. 2020)."""
    return sigma * torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_waves(grid: Grid, spectrum: Tensor, count: int, seed: int) -> Tensor:
    """Different whole wave numbers ``(count, 2)`` drawn from a ``spectrum (*modes)`` (Rahimi & Recht 2007, NeurIPS)."""
    numbers, density = half_plane(grid, spectrum, count)
    return numbers[torch.multinomial(density, count, generator=torch.Generator(grid.device).manual_seed(seed))]


def strongest_waves(grid: Grid, spectrum: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` whole wave numbers with most of a ``spectrum (*modes)``, and its square roots, their amplitudes.

    A ridge head on them is kriging with this covariance, truncated at best (Mercer). ``grid.invK2`` gives long waves.
    """
    numbers, density = half_plane(grid, spectrum, count)
    strongest = density.topk(count)
    return numbers[strongest.indices], strongest.values.sqrt()


def half_plane(grid: Grid, spectrum: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Whole numbers ``(j, 2)``, one of each k and -k, and the spectrum ``(j,)`` where it is positive."""
    if tuple(spectrum.shape) != grid.modes or not bool((spectrum >= 0).all()):
        raise ValueError(f"a spectrum must be {grid.modes} and not negative, got {tuple(spectrum.shape)}")
    k, l = torch.broadcast_tensors(grid.k * grid.Lx / (2 * math.pi), grid.l * grid.Ly / (2 * math.pi))  # noqa: E741
    kept = ((k.round() > 0) | (l.round() > 0)) & ~nyquist(grid) & (spectrum > 0)
    if not 0 < count <= int(kept.sum()):
        raise ValueError(f"the spectrum has {int(kept.sum())} waves, {count} are wanted")
    return torch.stack([k, l], -1)[kept].round(), spectrum[kept].double()


class PowerLaw(nn.Module):
    r"""Amplitudes :math:`(K^2 + \kappa^2)^{-\alpha / 2}`, times a factor for zonal waves; all three can be trained.

    The prior of a Matern covariance of order :math:`\alpha - 1`; kappa is by default twice the longest wave's K.
    """

    longest: Tensor

    def __init__(self, grid: Grid, kappa: float | None = None, alpha: float = 3.0, zonal: float = 1.0):
        super().__init__()
        longest = 2 * math.pi / torch.tensor([grid.Lx, grid.Ly], dtype=torch.float64, device=grid.device)
        kappa = 2 * float(longest.min()) if kappa is None else kappa
        self.register_buffer("longest", longest)
        self.law = nn.Parameter(longest.new_tensor([math.log(kappa), alpha, math.log(zonal)]))

    def forward(self, numbers: Tensor) -> Tensor:
        log_kappa, alpha, log_zonal = self.law
        square = ((numbers * self.longest) ** 2).sum(-1) + (2 * log_kappa).exp()
        log_amplitude = log_zonal * (numbers[:, 0] == 0) - alpha / 2 * square.log()
        return (log_amplitude - log_amplitude.max()).exp()  # the ridge has their scale
