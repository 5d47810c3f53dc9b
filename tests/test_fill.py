"""Interpolators against dense Gaussian processes, fields they must reproduce, and each other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sciml.fill import cubic, error_by_wavenumber, radial, spectral
from sciml.grid import Grid
from sciml.initial import random_field
from sciml.kriging import Climate, climatological_spectrum, kriging, posterior, resolved
from tests.conftest import relative

GRID = Grid(24, 32, Lx=3.0, Ly=4.4, dealias=1.5, x0=-1.5, y0=0.2)
SMALL = Grid(10, 12, Lx=2.0, Ly=3.0, dealias=1.5, x0=-0.3)


def steep(K):
    return 1e-3 * torch.exp(-((K / 6) ** 2))


def climate(grid, spectrum=steep) -> Climate:
    """Of ``random_field``, whose mean is zero."""
    return Climate(torch.where(grid.K2 > 0, spectrum(grid.K2.sqrt()), 0.0))


METHODS = {
    "cubic": cubic(GRID),
    "radial": radial(GRID),
    "kriging": kriging(GRID, climate(GRID)),
    "spectral": spectral(GRID, cut=9.0),
}
every_method = pytest.mark.parametrize("fill", METHODS.values(), ids=METHODS)


def tensor(*a) -> torch.Tensor:
    return torch.tensor(a, dtype=torch.float64)


def points(grid) -> torch.Tensor:
    x, y = grid.axes()
    return torch.stack([x.expand(grid.shape).flatten(), y.expand(grid.shape).flatten()], -1)


def chosen(grid, m, rng) -> torch.Tensor:
    """Numbers of ``m`` random points of the grid."""
    return torch.randperm(grid.nx * grid.ny, generator=rng)[:m]


def anywhere(grid, m, rng) -> torch.Tensor:
    return torch.rand(m, 2, dtype=torch.float64, generator=rng) * tensor(grid.Lx, grid.Ly)


def waves(grid, x) -> torch.Tensor:
    """A field of three waves of the box at places ``x (..., 2)``, with a mean."""
    a, b = 2 * math.pi * x[..., 0] / grid.Lx, 2 * math.pi * x[..., 1] / grid.Ly
    return 0.7 + torch.cos(a + 0.3) + 0.5 * torch.sin(2 * a - 3 * b) + 0.2 * torch.cos(b)


# -- what all must do ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["cubic", "radial", "kriging"])
def test_passes_through_the_values(name, rng):
    where = chosen(GRID, 250, rng)
    truth = random_field(GRID, steep, 1, (2, 3))
    found = METHODS[name](points(GRID)[where], truth.flatten(-2)[..., where])
    assert found.shape == truth.shape
    assert found.dtype == torch.float64
    assert relative(found.flatten(-2)[..., where], truth.flatten(-2)[..., where]) < 1e-8


@every_method
def test_moves_with_the_sensors_across_the_border(fill, rng):
    """Sensors anywhere, since the triangulation of points of a grid is not unique."""
    where, values = anywhere(GRID, 300, rng), torch.randn(2, 300, dtype=torch.float64, generator=rng)
    cells = tensor(7 * GRID.dx, -13 * GRID.dy)
    moved = fill(where + cells, values)
    assert relative(moved, fill(where, values).roll((-13, 7), (-2, -1))) < 1e-7
    assert relative(moved, fill(where + cells + tensor(2 * GRID.Lx, -GRID.Ly), values)) < 1e-7


@every_method
def test_snapshots_do_not_see_each_other(fill, rng):
    where, values = anywhere(GRID, 200, rng), torch.randn(3, 200, dtype=torch.float64, generator=rng)
    values *= tensor([1.0], [1e-9], [0.0])
    found = fill(where, values)
    for one, v in zip(found, values, strict=True):
        torch.testing.assert_close(one, fill(where, v), rtol=1e-6, atol=1e-6 * float(v.abs().max()))


@every_method
def test_a_smooth_field_is_found(fill, rng):
    where = anywhere(GRID, 400, rng)
    truth = waves(GRID, points(GRID)).reshape(GRID.shape)
    known = Climate(climate(GRID).spectrum, 0.7)
    fill = kriging(GRID, known) if fill is METHODS["kriging"] else fill
    assert relative(fill(where, waves(GRID, where)), truth) < (0.1 if fill is METHODS["cubic"] else 0.01)


def tracks(rng) -> torch.Tensor:
    """Sensors along three lines: large gaps, although many sensors."""
    along = torch.rand(3, 100, dtype=torch.float64, generator=rng) * GRID.Ly
    across = torch.arange(3.0)[:, None] * GRID.Lx / 3 + 0.1 * along
    return torch.stack([across, along], -1).flatten(0, 1)


def test_cubic_is_nearly_periodic_with_tracks(rng):
    where = tracks(rng)
    moved = cubic(GRID)(where + tensor(5 * GRID.dx, 9 * GRID.dy), waves(GRID, where))
    assert relative(moved, cubic(GRID)(where, waves(GRID, where)).roll((9, 5), (-2, -1))) < 1e-2


# -- least squares ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("on_grid", [True, False])
def test_spectral_reproduces_the_modes_it_has(on_grid, rng):
    truth = waves(GRID, points(GRID)).reshape(GRID.shape)
    where = points(GRID)[chosen(GRID, 300, rng)] if on_grid else anywhere(GRID, 300, rng)
    assert relative(spectral(GRID, cut=6.5, tol=1e-12)(where, waves(GRID, where)), truth) < 1e-10


def test_spectral_is_the_least_squares_solution(rng):
    """Normal equations over all cosines and sines, written out."""
    cut, ridge, m = 7.0, 0.02, 40
    where, y = anywhere(SMALL, m, rng), torch.randn(m, dtype=torch.float64, generator=rng)
    lattice = [(k, l) for k in range(-5, 6) for l in range(-6, 7)]
    vectors = np.array([(2 * np.pi * k / SMALL.Lx, 2 * np.pi * l / SMALL.Ly) for k, l in lattice])
    vectors = vectors[np.hypot(*vectors.T) <= cut]
    A = np.exp(1j * where.numpy() @ vectors.T)
    penalty = np.diag(ridge * (np.hypot(*vectors.T) / cut) ** 4)
    fh = np.linalg.solve(A.conj().T @ A / m + penalty, A.conj().T @ y.numpy() / m)
    expected = (np.exp(1j * points(SMALL).numpy() @ vectors.T) @ fh).real.reshape(SMALL.shape)
    assert relative(spectral(SMALL, cut, ridge, tol=1e-12)(where, y), expected) < 1e-9


# -- kriging ---------------------------------------------------------------------------------------------------------
def anisotropic(k, l):
    return np.exp(-0.05 * k**2 - 0.1 * l**2 + 0.05 * k * l)


def dense(a, b, lag=0.0) -> np.ndarray:
    """Covariances of ``anisotropic`` on all modes of SMALL, of fields moved by ``lag`` in x."""
    k, l = np.meshgrid(np.arange(-4, 5) * 2 * np.pi / SMALL.Lx, np.arange(-5, 6) * 2 * np.pi / SMALL.Ly)
    r = a[:, None, :] - b[None] + [lag, 0.0]
    return (anisotropic(k, l) * np.cos(k * r[..., :1, None] + l * r[..., 1:, None])).sum((-2, -1))


@pytest.mark.parametrize("on_grid", [True, False])
def test_equals_a_dense_gaussian_process(on_grid, rng):
    where = points(SMALL)[chosen(SMALL, 20, rng)] if on_grid else anywhere(SMALL, 20, rng)
    values, sigma = torch.randn(2, 20, dtype=torch.float64, generator=rng), 0.3
    known = Climate(
        torch.tensor(anisotropic(SMALL.k.numpy(), SMALL.l.numpy())), waves(SMALL, points(SMALL)).reshape(12, 10)
    )
    found = posterior(SMALL, known, where, sigma)
    s, p = where.numpy(), points(SMALL).numpy()
    gain = np.linalg.solve(dense(s, s) + sigma**2 * np.eye(20), dense(s, p)).T
    mean = waves(SMALL, points(SMALL)).numpy() + (values - waves(SMALL, where)).numpy() @ gain.T
    std = np.sqrt(dense(p, p).diagonal() - (gain * dense(p, s)).sum(1))
    assert relative(found.fields(values).flatten(-2), mean) < 1e-9
    assert relative(found.std(chunk=50).flatten(), std) < 1e-9
    assert relative(kriging(SMALL, known)(where, values, sigma), found.fields(values)) < 1e-12


@pytest.mark.parametrize("on_grid", [True, False])
def test_levels_jointly_equal_a_dense_gaussian_process(on_grid, rng):
    """The lower level is half the upper one, 0.4 further west, and something of its own."""
    where = points(SMALL)[chosen(SMALL, 15, rng)] if on_grid else anywhere(SMALL, 15, rng)
    values, sigma = torch.randn(15, 2, 15, dtype=torch.float64, generator=rng), tensor([0.1], [0.4])
    s = torch.tensor(anisotropic(SMALL.k.numpy(), SMALL.l.numpy())).to(torch.complex128)
    west = torch.exp(1j * 0.4 * SMALL.k) / 2
    spectrum = torch.stack([torch.stack([s, s * west.conj()]), torch.stack([s * west, s / 3])])
    found = posterior(SMALL, Climate(spectrum), where, sigma)

    def levels(a, b):
        return np.block([[dense(a, b), dense(a, b, -0.4) / 2], [dense(a, b, 0.4) / 2, dense(a, b) / 3]])

    s, p = where.numpy(), points(SMALL).numpy()
    noise = np.diag(np.repeat([0.01, 0.16], 15))
    gain = np.linalg.solve(levels(s, s) + noise, levels(s, p)).T
    std = np.sqrt(levels(p, p).diagonal() - (gain * levels(p, s)).sum(1))
    assert relative(found.fields(values).flatten(1), values.flatten(1).numpy() @ gain.T) < 1e-9
    assert relative(found.std().flatten(), std) < 1e-9


def test_certain_at_the_sensors_and_as_wrong_as_it_says(rng):
    where = chosen(GRID, 150, rng)
    truth = random_field(GRID, steep, 2, (200,))
    found = posterior(GRID, climate(GRID), points(GRID)[where])
    std = found.std()
    assert std.flatten()[where].max() < 1e-4 * std.max()
    error = (found.fields(truth.flatten(-2)[:, where]) - truth)[:, std > 0.1 * std.max()] / std[std > 0.1 * std.max()]
    assert float((error**2).mean()) == pytest.approx(1, abs=0.1)


def test_error_falls_with_sensors_and_is_less_than_that_of_others(rng):
    truth, order = random_field(GRID, steep, 3, (20,)), chosen(GRID, 768, rng)

    def error(fill, m):
        found = fill(points(GRID)[order[:m]], truth.flatten(-2)[:, order[:m]])
        return float((found - truth).square().mean().sqrt() / truth.std())

    kriged = [error(METHODS["kriging"], m) for m in (50, 100, 200, 400)]
    assert all(b < 0.75 * a for a, b in pairwise(kriged))
    for m, own in zip((50, 200, 400), (kriged[0], *kriged[2:]), strict=True):
        assert own < 0.9 * min(error(METHODS[n], m) for n in ("cubic", "radial"))


def test_noise_is_weighed(rng):
    where, truth = chosen(GRID, 500, rng), random_field(GRID, steep, 4, (5,))
    values = truth.flatten(-2)[:, where]
    noisy = values + 0.3 * truth.std() * torch.randn(values.shape, dtype=torch.float64, generator=rng)
    fill = kriging(GRID, climate(GRID))
    rms = [float((fill(points(GRID)[where], noisy, s * float(truth.std())) - truth).std()) for s in (0.03, 0.3, 3.0)]
    assert rms[1] < 0.9 * min(rms[0], rms[2])


def test_modes_above_the_noise_are_kept_whole_and_products_of_what_is_kept_are_not_biased(rng):
    truth = random_field(GRID, steep, 4, (200,))
    noise = torch.randn(truth.shape, dtype=torch.float64, generator=rng) * (sigma := 0.3 * float(truth.std()))
    order = chosen(GRID, GRID.nx * GRID.ny, rng)
    places, seen = points(GRID)[order], (truth + noise).flatten(-2)[:, order]
    whole, drawn = (f(GRID, climate(GRID))(places, seen, sigma) for f in (resolved, kriging))
    kept = GRID.fft(whole).abs().mean(0) > 1e-12 * float(truth.std())
    above = climate(GRID).spectrum > sigma**2 / (GRID.nx * GRID.ny)
    assert bool((kept == above)[1:].all())
    assert 20 < int(kept.sum()) < kept.numel() / 2
    assert relative(GRID.fft(whole), kept * GRID.fft(truth + noise)) < 1e-12

    def slope(found):  # of the filled part on the flow's own part of the same modes
        own = kept * GRID.fft(truth)
        return float((GRID.fft(found) * own.conj()).real.sum() / own.abs().square().sum())

    assert slope(whole) == pytest.approx(1, abs=2e-3)
    assert slope(drawn) < 0.99
    with pytest.raises(ValueError, match="all 768 points of the grid are seen, got 767 places; use kriging"):
        resolved(GRID, climate(GRID))(places[1:], seen[:, 1:], sigma)


# -- climate ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
def test_climate_of_fields_of_known_spectrum(dealias, rng):
    grid = Grid(24, 32, Lx=3.0, Ly=4.0, dealias=dealias)
    profile = torch.cos(2 * math.pi * grid.y / grid.Ly).expand(grid.shape)
    snapshots = random_field(grid, steep, 5, (100,)) + profile
    spectrum, mean = climatological_spectrum(grid, snapshots)
    assert isinstance(mean, torch.Tensor)
    assert relative(mean, profile) < 0.1
    wide = (grid.K2 > 0) & (grid.K2.sqrt() < 9)
    ratio = (spectrum / steep(grid.K2.sqrt()))[wide]
    assert float(ratio.log().abs().max()) < 0.6
    assert float(ratio.log().mean().abs()) < 0.1
    variance = grid.project(snapshots - profile).square().mean()
    assert float((grid.weight * spectrum).sum()) == pytest.approx(float(variance), rel=0.1)
    where = points(grid)[chosen(grid, 200, rng)]
    found = kriging(grid, Climate(spectrum, mean))(where, waves(grid, where))
    assert bool(torch.isfinite(found).all())


def test_the_upper_level_helps_the_lower(rng):
    """The lower level is hidden in noise; its sensors are those of the upper one."""
    upper, own = random_field(GRID, steep, 6, (2, 30))
    both, where = torch.stack([upper, 0.5 * upper + 0.02 * own], 1), chosen(GRID, 500, rng)
    values, sigma = both[0].flatten(-2)[..., where].clone(), tensor([0.0], [10.0])
    values[1] = 0
    found = kriging(GRID, climatological_spectrum(GRID, both[1:]))(points(GRID)[where], values, sigma)
    assert relative(found[0], both[0, 0]) < 0.05
    assert relative(found[1], both[0, 1]) < 0.1


def test_zonal_and_other_modes_are_apart():
    jets = torch.sin(4 * math.pi * GRID.y / GRID.Ly) * tensor(1.0, -1.0, 1.0, -1.0)[:, None, None]
    spectrum, _ = climatological_spectrum(GRID, jets.expand(4, *GRID.shape))
    assert float(spectrum[1:].max()) < 1e-20
    assert float(spectrum[0, 2]) == pytest.approx(float(spectrum[0, -2]))
    assert float(spectrum[0, 2]) > 0.1


def test_error_by_wavenumber_shows_what_is_missing():
    truth = random_field(GRID, lambda K: torch.exp(-0.1 * K), 7, (2,))
    low = GRID.ifft(GRID.fft(truth) * (GRID.K2.sqrt() < 10))
    k, ratio = error_by_wavenumber(GRID, low, truth)
    assert ratio.shape == (2, len(k))
    assert float(ratio[:, (k > 0) & (k < 9)].max()) < 1e-20
    torch.testing.assert_close(ratio[:, k > 11.1], torch.ones_like(ratio[:, k > 11.1]))
    torch.testing.assert_close(
        error_by_wavenumber(GRID, 0.5 * truth, truth)[1][:, 1:], torch.full_like(ratio[:, 1:], 0.25)
    )


# -- refusals --------------------------------------------------------------------------------------------------------
P, V = points(GRID)[::5], torch.zeros(154, dtype=torch.float64)
SPECTRUM = climate(GRID).spectrum


@every_method
@pytest.mark.parametrize(("positions", "values", "message"), [
    (P, V[:-1], r"values must be \(..., 154\), got \(153,\)"),
    (P, V.where(torch.arange(154) != 3, math.nan), "a value is not finite"),
    (P.T, V, r"positions must be \(m, 2\)"),
    (P[:0], V[:0], "with m at least 1"),
    (P / (P - P[0, 0]), V, "a position is not finite"),
    (torch.cat([P[:-1], P[:1] + tensor(GRID.Lx, 0.0)]), V, "sensors 0 and 153 are at one place"),
])  # fmt: skip
def test_sensors_without_sense_are_refused(fill, positions, values, message):
    with pytest.raises(ValueError, match=message):
        fill(positions, values)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: spectral(GRID, cut=0.0), "cut must be positive"),
    (lambda: spectral(GRID, cut=30.0)(P, V), "154 sensors cannot fix .* modes"),
    (lambda: spectral(GRID, cut=9.0, iterations=2)(P, waves(GRID, P)), "did not converge in 2 iterations"),
    (lambda: radial(GRID)(tracks(torch.Generator().manual_seed(0)), torch.zeros(300)), "lie on a line or two"),
    (lambda: posterior(GRID, Climate(SPECTRUM), P, sigma=-1.0), "sigma must be finite and not negative"),
    (lambda: posterior(GRID, Climate(-SPECTRUM), P), "not negative"),
    (lambda: posterior(GRID, Climate(0 * SPECTRUM), P), "not all zero"),
    (lambda: posterior(GRID, Climate(SPECTRUM[1:]), P), r"a spectrum must be \(\[lev, lev,\] 12, 31\)"),
    (lambda: posterior(GRID, Climate(SPECTRUM), points(GRID), nugget=0.0), "raise it"),
    (lambda: kriging(GRID, Climate(SPECTRUM.expand(2, 2, -1, -1)), 0.1)(P, V), r"values must be \(..., 2, 154\)"),
    (lambda: climatological_spectrum(GRID, torch.zeros(1, *GRID.shape)), r"snapshots must be \(n > 1"),
    (lambda: climatological_spectrum(GRID, torch.full((2, *GRID.shape), math.nan)), "a snapshot is not finite"),
    (lambda: error_by_wavenumber(GRID, V, V), "fields must be"),
])  # fmt: skip
def test_requests_without_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
