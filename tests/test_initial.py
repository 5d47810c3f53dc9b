"""Initial fields: seeds, statistics, amplitudes."""

import math

import pytest
import torch

from sciml.equation.layered import LayeredQG, TwoLayerQG
from sciml.equation.vorticity import Vorticity
from sciml.grid import Grid
from sciml.initial import gaussian_random_field, random_field, random_pv, rossby_wave, taylor_green, vortex_pair
from tests.conftest import relative

BOX = {"Lx": 3.0, "Ly": 1.4}
OCEAN = Grid(48, 32, Lx=1.2e6, Ly=0.8e6)


def ocean(grid: Grid = OCEAN, **options) -> TwoLayerQG:
    return TwoLayerQG(grid=grid, beta=1.5e-11, **({"U1": 0.025} | options))


def bell(K):
    return torch.exp(-((K - 8.0) ** 2) / 10)


MAKERS = {
    "random_field": lambda seed, **o: random_field(Grid(24, 16, **BOX, **o), bell, seed),
    "gaussian_random_field": lambda seed, **o: gaussian_random_field(Grid(24, 16, **BOX, **o), seed, 3.0, 2.0),
    "random_pv": lambda seed, **o: random_pv(ocean(Grid(24, 16, Lx=1.2e6, **o)), seed),
}


# -- seeds -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_seed_decides(make):
    torch.manual_seed(1)
    first = make(7)
    torch.manual_seed(2)  # the global generator has no part in it
    assert torch.equal(make(7), first)
    assert relative(make(8), first) > 0.1
    single = make(7, dtype=torch.float32)
    assert single.dtype == torch.float32
    assert relative(single, first) < 1e-5


@pytest.mark.parametrize("members", [4, 2])
def test_members_differ(members):
    eq = ocean()
    q = random_pv(eq, 0, members=members)
    assert q.shape == (members, 2, *OCEAN.shape)
    fields = random_field(OCEAN, lambda K: K**-2, 0, batch=(members,))
    for i in range(members):
        for j in range(i):
            for f in (q, fields):
                overlap = (f[i] * f[j]).mean() / (f[i].square().mean() * f[j].square().mean()).sqrt()
                assert overlap.abs() < 0.5


# -- statistics ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
@pytest.mark.parametrize(("nx", "ny"), [(16, 12), (15, 11), (32, 1)])
def test_variance_is_the_sum_of_the_spectrum(nx, ny, dealias):
    """Of each stored mode, too, within four standard errors of an exponential (or chi-square-1) distribution."""
    grid, n = Grid(nx, ny, **BOX, dealias=dealias), 4000
    f = random_field(grid, bell, 0, batch=(n,))
    K = (grid.k**2 + grid.l**2).sqrt()
    density = torch.where(K > 0, bell(K), 0.0)
    power = (grid.fft(f).abs() ** 2).mean(0)
    seen = density > 1e-6 * density.max()
    assert ((power / density)[seen] - 1).abs().max() < 5 * math.sqrt(2 / n)
    assert float((f**2).mean()) == pytest.approx(float((grid.weight * density).sum()), rel=0.02)
    assert f.mean((-2, -1)).abs().max() < 1e-14 * f.abs().max()


def test_gaussian_random_field_has_the_stated_covariance():
    """On the unit square with tau = 7, alpha = 2.5, sigma = tau^1.5, as in Li et al. (2021)."""
    grid, tau, alpha, n = Grid(32, Lx=1.0), 7.0, 2.5, 3000
    f = gaussian_random_field(grid, 0, tau, alpha, sigma=tau**1.5, batch=(n,))
    m = torch.arange(-10, 11, dtype=torch.float64)
    eigenvalues = tau**3 * (4 * math.pi**2 * (m[:, None] ** 2 + m**2) + tau**2) ** -alpha
    eigenvalues[10, 10] = 0  # the mean
    for lag in (0, 3, 8):
        expected = float((eigenvalues * torch.cos(2 * math.pi * m * lag / 32)).sum())
        seen = float((f * f.roll(lag, -1)).mean())
        assert seen == pytest.approx(expected, abs=0.02 * float(eigenvalues.sum()))


def test_statistics_do_not_depend_on_the_resolution():
    coarse, fine = (gaussian_random_field(Grid(n, Lx=1.0), 0, 7.0, 4.0, batch=(4000,)) for n in (16, 40))
    assert float((coarse**2).mean()) == pytest.approx(float((fine**2).mean()), rel=0.04)


# -- layered models --------------------------------------------------------------------------------------------------
def rms_speed(eq, q) -> torch.Tensor:
    """rms velocity of every layer, by fourth-order differences of the refined streamfunction."""
    fine = eq.grid.resized(512)
    psi = eq.grid.resample(eq.grid.ifft(eq.psi(eq.init(q))), fine)

    def slope(axis, h):
        near, far = (psi.roll(-n, axis) - psi.roll(n, axis) for n in (1, 2))
        return (8 * near - far) / (12 * h)

    return (slope(-2, fine.dy) ** 2 + slope(-1, fine.dx) ** 2).mean((-2, -1)).sqrt()


@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize(("asked", "options", "expected"), [
    (0.07, {}, 0.07),
    (None, {}, 0.0025),
    (None, {"U1": -0.03, "U2": 0.01}, 0.003),
    (None, {"U1": 0.0}, 0.01),
])  # fmt: skip
def test_random_pv_has_the_speed_asked_for(asked, options, expected, members):
    eq = ocean(**options)
    speed = rms_speed(eq, random_pv(eq, 0, members=members, speed=asked))
    assert speed.shape == (2,) if members is None else (members, 2)
    assert ((speed[..., 0] - expected).abs() < 1e-4 * expected).all()
    assert (speed[..., 1] < 1e-10 * expected).all()  # lower layers at rest


@pytest.mark.parametrize("scale", [1e5, 2e5, None])
def test_random_pv_has_the_scale_asked_for(scale):
    """The mean wavenumber of psi^2 with density K^6 exp(-3 K^2 / kp^2) per wavevector is Gamma(4.5) / Gamma(4) / 3^0.5
    times kp."""
    eq = ocean(Grid(96, 96, Lx=1.2e6))
    kp = 2 * math.pi / (scale or 1.2e6 / 8)
    power = eq.psi(eq.init(random_pv(eq, 0, members=8, scale=scale)))[:, 0].abs() ** 2 * eq.grid.weight
    mean = float((power * eq.grid.K2.sqrt()).sum() / power.sum())
    assert mean / kp == pytest.approx(math.gamma(4.5) / math.gamma(4) / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(("m", "n"), [(1, 2), (3, 0), (0, 1), (2, -1)])
def test_rossby_wave(m, n):
    eq = LayeredQG(grid=OCEAN, H=(500.0, 1000.0, 2000.0), gprime=(0.02, 0.01), f0=1e-4)
    layers = (1.0, 0.2, -0.5)
    q = rossby_wave(eq, m, n, 3e3, layers)
    x, y = OCEAN.axes()
    k, l = 2 * math.pi * m / OCEAN.Lx, 2 * math.pi * n / OCEAN.Ly
    f2 = 1e-8
    stretching = (
        f2 / 500 * (layers[1] - layers[0]) / 0.02,
        f2 / 1000 * ((layers[0] - layers[1]) / 0.02 + (layers[2] - layers[1]) / 0.01),
        f2 / 2000 * (layers[1] - layers[2]) / 0.01,
    )
    for i in range(3):
        expected = 3e3 * (-(k * k + l * l) * layers[i] + stretching[i]) * torch.cos(k * x + l * y)
        assert relative(q[i], expected) < 1e-12


def test_vortex_pair_is_pyqgs():
    eq = LayeredQG(grid=Grid(64, Lx=2 * math.pi, dealias=1, x0=0.0, y0=0.0), H=(1.0,), filterfac=23.6)
    q = vortex_pair(eq)
    assert q.shape == (1, 64, 64)
    assert float(eq.energy(eq.init(q))) == pytest.approx(1.0, rel=1e-12)
    u, v = eq.velocity(eq.init(q))
    assert float((u**2 + v**2).mean() / 2) == pytest.approx(1.0, rel=1e-12)
    assert q[0, 32, [28, 36]].tolist() == pytest.approx([float(q.min())] * 2)  # hills of psi at (1.75 and 2.25) pi / 2


# -- Taylor-Green ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("Lx", "Ly"), [(2 * math.pi, 2 * math.pi), (3.0, 1.4), (1.0, 5.0)])
@pytest.mark.parametrize("waves", [1, 3])
def test_taylor_green_has_unit_speed_and_is_steady(Lx, Ly, waves):
    grid = Grid(48, 48, Lx=Lx, Ly=Ly, x0=0.0, y0=0.0)
    omega = taylor_green(grid, waves)
    eq = Vorticity(grid=grid)
    z = eq.init(omega)
    assert eq.tendency(z).abs().max() < 1e-13 * z.abs().max()
    psi = eq.fields(z)["psi"]
    speed = (grid.ifft(grid.ik * psi) ** 2 + grid.ifft(grid.il * psi) ** 2).sqrt()
    assert float(speed.max()) == pytest.approx(1.0, rel=1e-12)
    if Lx == Ly:
        k = 2 * math.pi * waves / Lx
        assert relative(omega[0], 2 * k * torch.cos(k * grid.x) * torch.cos(k * grid.y)) < 1e-13
    fine = grid.resized(96)
    assert relative(grid.resample(omega, fine), taylor_green(fine, waves)) < 1e-12
