r"""Kriging on a periodic box: the Gaussian process whose covariance is a climatological spectrum.

.. math:: \hat f = \bar f + C_{gs} (C_{ss} + \sigma^2)^{-1} (y - \bar f_s), \qquad
          e^2 = C_{gg} - C_{gs} (C_{ss} + \sigma^2)^{-1} C_{sg}, \qquad
          C_{ab}(x, x') = \sum_{k,l} S_{ab}(k, l)\, e^{i (k, l) \cdot (x - x')} ,

with spectra S of levels a and b (Rasmussen & Williams 2006, equations 2.25 and 2.26).

This mean is the best estimate of a field, but every mode of it is drawn to the climate by a factor of its own, so that
the product of two filled fields is not the product filled. Where products matter more than the error of the field, as
in regressions on them, :func:`resolved` keeps or drops modes whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.fill import Interpolator, Sensors, nyquist, offsets, ring_sum, rings, sensors
from sciml.grid import Grid


# -- spectra ---------------------------------------------------------------------------------------------------------
class Climate(NamedTuple):
    """Moments of fields. For levels jointly a spectrum is Hermitian, ``<f_a f_b*>``."""

    spectrum: Tensor
    """variance of coefficients about the mean, ``([lev, lev,] *modes)``"""
    mean: Tensor | float = 0.0
    """``([lev,] ny, nx)``"""


def climatological_spectrum(grid: Grid, snapshots: Tensor) -> Climate:
    """Zonal mean of snapshots ``(n, ny, nx)``, or jointly of levels ``(n, lev, ny, nx)``, and spectrum about it.

    Averaged over rings of wavenumbers, zonal modes (k = 0) apart, so that a few snapshots suffice. Raises
    ``ValueError`` for fewer than 2 snapshots, NaNs and other shapes.
    """
    if snapshots.ndim not in (3, 4) or snapshots.shape[-2:] != grid.shape or len(snapshots) < 2:
        raise ValueError(f"snapshots must be (n > 1, [lev,] {grid.ny}, {grid.nx}), got {tuple(snapshots.shape)}")
    if not bool(torch.isfinite(snapshots).all()):
        raise ValueError("a snapshot is not finite")
    f = snapshots.to(grid.device, torch.float64).reshape(len(snapshots), -1, *grid.shape)
    mean = f.mean((0, -1), keepdim=True)[0]
    fh = grid.fft(f - mean)
    moment = torch.einsum("nakl,nbkl->abkl", fh, fh.conj())
    zonal, spectrum = (grid.k == 0).expand(grid.modes), torch.zeros_like(moment)
    for part, free in ((zonal, len(f) - 1), (~zonal, len(f))):
        count = ring_sum(grid, free * part.double()).clamp(min=1)
        spectrum += part * (ring_sum(grid, part * moment) / count)[..., rings(grid)[1]]
    mean = mean.expand(*f.shape[1:])
    return Climate(spectrum, mean) if snapshots.ndim == 4 else Climate(spectrum[0, 0].real, mean[0])


# -- kriging ---------------------------------------------------------------------------------------------------------
def moments(grid: Grid, climate: Climate) -> tuple[Tensor, Tensor]:
    """Spectrum ``(lev, lev, *modes)`` and coefficients of the mean ``(lev, *modes)``, without Nyquist modes."""
    s = torch.as_tensor(climate.spectrum).to(grid.device, torch.complex128)
    s = s[None, None] if s.ndim == 2 else s
    if s.ndim != 4 or s.shape[0] != s.shape[1] or s.shape[2:] != grid.modes:
        raise ValueError(f"a spectrum must be ([lev, lev,] {grid.modes[0]}, {grid.modes[1]}), got {tuple(s.shape)}")
    power = s.diagonal().real
    if not (bool(torch.isfinite(s.abs()).all()) and bool((power >= 0).all()) and bool(power.any())):
        raise ValueError("a spectrum must be finite, not negative and not all zero")
    opposite = -torch.arange(grid.modes[1], device=s.device) % grid.modes[1]
    s = torch.where(grid.k == 0, (s + s[..., opposite].conj()) / 2, s)  # (0, l) and (0, -l) are one mode
    mean = torch.as_tensor(climate.mean).to(grid.device, torch.float64).expand(len(s), *grid.shape)
    return s * ~nyquist(grid), grid.fft(mean) * ~nyquist(grid)


def variances(grid: Grid, spectrum: Tensor) -> Tensor:
    """Of the levels, ``(lev, 1)``."""
    return (grid.weight * spectrum.diagonal().real.movedim(-1, 0)).sum((-2, -1))[:, None]


def covariance(spectrum: Tensor, a: Sensors, b: Sensors) -> Tensor:
    """Between two sets of places, ``(lev * len(a), lev * len(b))``: a table of lags where all are points of the grid,
    otherwise the sum over modes."""
    grid, lev = a.grid, len(spectrum)
    found = grid.K2.new_zeros(lev, len(a), lev, len(b))
    by_level = found.transpose(1, 2)
    if a.cell is not None and b.cell is not None:
        table = grid.ifft(spectrum).flatten(-2)
        for some in torch.arange(len(a)).split(256):  # the numbers of lags take more room than the lags
            row, column = (i[some, None] - j for i, j in zip(a.cell, b.cell, strict=True))
            by_level[:, :, some] = table[..., row % grid.ny * grid.nx + column % grid.nx]
    else:
        (ax, ay), (bx, by) = a.waves, b.waves
        for k, weight in enumerate(grid.weight):
            left, right = weight * spectrum[:, :, None, k] * ax[:, k, None] * ay, bx[:, k, None] * by
            by_level += torch.view_as_real(left).flatten(-2) @ torch.view_as_real(right).flatten(-2).T
    return found.reshape(lev * len(a), lev * len(b))


@dataclass(frozen=True)
class Posterior:
    """Gaussian process given sensors, factored once: fields of any values, and how uncertain they are."""

    where: Sensors
    spectrum: Tensor
    mean: Tensor
    factor: Tensor
    levels: tuple[int, ...]

    def fields(self, values: Tensor) -> Tensor:
        """Means ``(..., [lev,] ny, nx)`` given values ``(..., [lev,] m)``."""
        lev, m, grid = len(self.spectrum), len(self.where), self.where.grid
        y = self.where.values(values, *self.levels).reshape(-1, lev, m) - self.where.sample(self.mean)
        w = torch.cholesky_solve(y.flatten(1).T, self.factor).T.reshape(-1, lev, m)
        fh = self.mean + torch.einsum("abkl,nbkl->nakl", self.spectrum, self.where.spread(w))
        return grid.ifft(fh).reshape(*values.shape[:-1], *grid.shape)

    def std(self, chunk: int = 2048) -> Tensor:
        """Standard deviation of the error of the fields, ``([lev,] ny, nx)``."""
        grid, lev, explained = self.where.grid, len(self.spectrum), []
        for part in torch.from_numpy(offsets(grid)).to(grid.device).split(chunk):
            cross = covariance(self.spectrum, self.where, Sensors(grid, part))
            half = torch.linalg.solve_triangular(self.factor, cross, upper=False)
            explained.append((half**2).sum(0).reshape(lev, -1))
        variance = variances(grid, self.spectrum) - torch.cat(explained, -1)
        return variance.clamp(min=0).sqrt().reshape(*self.levels, *grid.shape)


def posterior(
    grid: Grid, climate: Climate, positions: Tensor, sigma: float | Tensor = 0.0, nugget: float = 1e-12
) -> Posterior:
    """The Gaussian process of a climate given sensors with noise ``sigma`` (of levels: ``(lev, 1)``).

    Decomposes a matrix of ``lev m`` rows. ``nugget`` times the variance of the level is added to ``sigma^2``, because
    covariances of smooth fields are singular to rounding. Raises ``ValueError`` where it is too small for that, for a
    negative sigma, and for spectra that are no covariances.
    """
    where, (spectrum, mean) = sensors(grid, positions), moments(grid, climate)
    noise = torch.as_tensor(sigma, dtype=torch.float64, device=grid.device)
    if not bool((noise >= 0).all() & torch.isfinite(noise).all()):
        raise ValueError(f"sigma must be finite and not negative, got {sigma}")
    covariances = covariance(spectrum, where, where)
    added = noise**2 + nugget * variances(grid, spectrum)
    covariances.diagonal().add_(added.expand(len(spectrum), len(where)).flatten())
    factor, failed = torch.linalg.cholesky_ex(covariances)
    if failed:
        raise ValueError(f"covariances of the sensors are singular to rounding with a nugget of {nugget:g}; raise it")
    levels = (len(spectrum),) if climate.spectrum.ndim == 4 else ()
    return Posterior(where, spectrum, mean, factor, levels)


def kriging(grid: Grid, climate: Climate, nugget: float = 1e-12) -> Interpolator:
    """Means of the :func:`posterior`; of levels jointly, ``(..., lev, m) -> (..., lev, ny, nx)``, where the climate has
    them."""

    def fill(positions, values, sigma=0.0):
        return posterior(grid, climate, positions, sigma, nugget).fields(values)

    return fill


def resolved(grid: Grid, climate: Climate) -> Interpolator:
    """Of fields seen with noise ``sigma`` at every point of the grid, modes that vary more in the climate than their
    noise does, as they are seen, and the climate's mean of others; ``(..., [lev,] m) -> (..., [lev,] ny, nx)``.

    What is kept is the flow's own plus noise that knows nothing of it. Raises ``ValueError`` where a point is not seen.
    """
    spectrum, mean = moments(grid, climate)
    levels = (len(spectrum),) if climate.spectrum.ndim == 4 else ()

    def fill(positions, values, sigma=0.0):
        where, points = sensors(grid, positions), grid.nx * grid.ny
        if where.cell is None or len(where) < points:
            raise ValueError(f"modes are kept as they are seen only where all {points} points of the grid are seen, "
                             f"got {len(where)} places; use kriging")  # fmt: skip
        noise = torch.as_tensor(sigma, dtype=torch.float64, device=grid.device).reshape(-1, 1, 1) ** 2 / points
        kept = spectrum.diagonal().real.movedim(-1, 0) > noise
        y = where.values(values, *levels).reshape(-1, len(spectrum), points)
        fields = torch.empty_like(y).reshape(len(y), len(spectrum), *grid.shape)
        fields[..., where.cell[0], where.cell[1]] = y
        found = torch.where(kept, grid.fft(fields), mean)
        return grid.ifft(found).reshape(*values.shape[:-1], *grid.shape)

    return fill
