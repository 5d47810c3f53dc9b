"""The smaller equations against exact solutions and independent integrations; what all equations share."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.equation.advection import Advection
from sciml.equation.base import Term
from sciml.equation.burgers import Burgers
from sciml.equation.expression import Field, Param, dx, lap, parse, sin
from sciml.equation.kuramoto import KuramotoSivashinsky
from sciml.equation.lorenz import Lorenz63, Lorenz96
from sciml.equation.vorticity import Vorticity
from sciml.grid import Grid
from sciml.initial import taylor_green
from sciml.step import etdrk4, rk4
from tests.conftest import relative


def after(step, fields, n: int) -> torch.Tensor:
    """Fields after n steps."""
    state = step.init(torch.as_tensor(fields, dtype=torch.float64))
    for _ in range(n):
        state = step(state)
    return step.read(state)


def dop853(rhs, start, t: float) -> np.ndarray:
    return solve_ivp(rhs, (0, t), np.asarray(start), "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]


# -- advection and diffusion -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
@pytest.mark.parametrize(("U", "V", "kappa"), [(1.3, -0.4, 0.0), (0.0, 0.0, 0.02), (0.7, 0.2, 0.01)])
def test_advection_and_heat(U, V, kappa, dealias):
    grid = Grid(24, 20, Lx=3.0, Ly=1.4, dealias=dealias)
    k, l = 2 * math.pi / 3.0, 2 * 2 * math.pi / 1.4

    def exact(t):
        x, y = grid.x - U * t, grid.y - V * t
        return (math.exp(-kappa * (k * k + l * l) * t) * torch.sin(k * x) * torch.cos(l * y + 0.3)
                + math.exp(-kappa * 4 * k * k * t) * torch.cos(2 * k * x))[None]  # fmt: skip

    eq = Advection(grid=grid, U=U, V=V, kappa=kappa)
    assert relative(after(etdrk4(eq, 0.5), exact(0), 4), exact(2.0)) < 1e-12
    assert relative(after(rk4(eq, 0.005), exact(0), 100), exact(0.5)) < 1e-7
    assert eq.cfl(eq.init(exact(0)), 0.1) == pytest.approx(0.1 * (abs(U) * 24 / 3 + abs(V) * 20 / 1.4))


# -- Burgers ---------------------------------------------------------------------------------------------------------
def cole_hopf(x: np.ndarray, t: float, nu: float) -> np.ndarray:
    """Solution from ``-sin(pi x)`` by the Cole-Hopf formula (Basdevant et al. 1986, eq. 2.6), by quadrature."""
    eta = np.linspace(-12, 12, 6001) * math.sqrt(2 * nu * t)
    points = x[:, None] - eta
    exponent = -np.cos(math.pi * points) / (2 * math.pi * nu) - eta**2 / (4 * nu * t)
    weight = np.exp(exponent - exponent.max(1, keepdims=True))
    return -(np.sin(math.pi * points) * weight).sum(1) / weight.sum(1)


@pytest.mark.parametrize(
    ("nu", "nx", "t", "tolerance"),
    [(0.05 / math.pi, 256, 0.2, 1e-10), (0.05 / math.pi, 512, 0.6, 2e-9), (0.01 / math.pi, 1024, 0.25, 1e-9)],
)
def test_burgers_against_cole_hopf(nu, nx, t, tolerance):
    """Before and after the shock forms at t = 1/pi."""
    grid = Grid(nx, 1, Lx=2.0, x0=-1.0)
    start = -torch.sin(math.pi * grid.x)[None]
    u = after(etdrk4(Burgers(grid=grid, nu=nu), t / 400), start, 400)
    assert relative(u[0, 0], cole_hopf(grid.x[0].numpy(), t, nu)) < tolerance


def test_burgers_conserves_momentum_and_energy_without_viscosity(rng):
    eq = Burgers(grid=Grid(33, 1, Lx=2.0), nu=0.0)
    z = eq.init(torch.randn(1, 1, 33, dtype=torch.float64, generator=rng))
    dz = eq.tendency(z)
    assert dz[0, 0, 0].abs() < 1e-15
    assert (eq.grid.weight * (z.conj() * dz).real).sum().abs() < 1e-13 * eq.grid.mean_square(dz).sqrt()


# -- Kuramoto-Sivashinsky --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("coefficients", [(1.0, 1.0, 1.0, 0.0), (0.8, 1.2, 0.9, 0.3)])
def test_kuramoto_against_dop853(coefficients):
    """The right-hand side is written for all waves at once, with numpy's complex transform, and not dealiased."""
    a, b, c, d = coefficients
    n, L = 128, 16 * math.pi
    grid = Grid(n, 1, Lx=L, x0=0.0)
    k = 2 * math.pi / L * np.fft.fftfreq(n, 1 / n)

    def rhs(t, u):
        uh = np.fft.fft(u)
        ux, uxx, uxxx, uxxxx = (np.fft.ifft((1j * k) ** p * uh).real for p in (1, 2, 3, 4))
        return -a * u * ux - b * uxx - c * uxxxx - d * uxxx

    x = grid.x[0].numpy()
    start = np.cos(x / 8) * (1 + np.sin(x / 8))
    eq = KuramotoSivashinsky(grid=grid, a=a, b=b, c=c, d=d)
    u = after(etdrk4(eq, 0.01), start[None, None], 300)
    assert relative(u[0, 0], dop853(rhs, start, 3.0)) < 3e-9


@pytest.mark.parametrize("waves", [1, 3, 5])
def test_kuramoto_linear_growth(waves):
    grid = Grid(48, 1, Lx=22.0)
    k = 2 * math.pi * waves / 22.0
    u = after(etdrk4(KuramotoSivashinsky(grid=grid), 0.1), 1e-9 * torch.cos(k * grid.x)[None], 50)
    assert relative(u, 1e-9 * math.exp((k**2 - k**4) * 5) * torch.cos(k * grid.x)[None]) < 1e-7


# -- two-dimensional vorticity ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
def test_taylor_green_decay(dealias):
    grid = Grid(20, 24, Lx=3.0, Ly=2.0, dealias=dealias)
    eq = Vorticity(grid=grid, nu=0.01, drag=0.1)
    start = taylor_green(grid, waves=2)
    K2 = (4 * math.pi / 3.0) ** 2 + (4 * math.pi / 2.0) ** 2
    exact = start * math.exp(-(0.01 * K2 + 0.1) * 2.0)
    assert relative(after(etdrk4(eq, 0.05), start, 40), exact) < 1e-12
    assert relative(after(rk4(eq, 0.05), start, 40), exact) < 1e-5


def test_rossby_wave():
    grid, beta = Grid(18, 16, Lx=3.0, Ly=1.4), 2.0
    k, l = 2 * math.pi / 3.0, 2 * math.pi / 1.4
    frequency = -beta * k / (k * k + l * l)

    def exact(t):
        return torch.cos(k * grid.x + l * grid.y - frequency * t)[None]

    assert relative(after(etdrk4(Vorticity(grid=grid, beta=beta), 0.1), exact(0), 30), exact(3.0)) < 1e-12


def test_velocity_and_energy_of_vortices():
    """psi = sin x cos 2 y: u = 2 sin x sin 2 y, v = cos x cos 2 y, and half of the mean square of both is 5 / 8."""
    grid = Grid(24, 16, Lx=2 * math.pi, Ly=2 * math.pi)
    eq, (x, y) = Vorticity(grid=grid), grid.axes()
    z = eq.init((-5 * torch.sin(x) * torch.cos(2 * y))[None])
    u, v = grid.ifft(eq.velocity(z))
    torch.testing.assert_close(u, 2 * torch.sin(x) * torch.sin(2 * y), atol=1e-12, rtol=0)
    torch.testing.assert_close(v, torch.cos(x) * torch.cos(2 * y), atol=1e-12, rtol=0)
    assert float(eq.energy(z)) == pytest.approx(5 / 8, rel=1e-12)


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2, 1])
def test_vorticity_advection(dealias):
    """Two shear flows, ``omega = cos kx + cos ly``: ``d omega/dt = (l/k - k/l) sin kx sin ly`` at the start."""
    grid = Grid(14, 13, Lx=3.0, Ly=2.0, dealias=dealias)
    k, l = 2 * math.pi / 3.0, 2 * 2 * math.pi / 2.0
    eq = Vorticity(grid=grid)
    z = eq.init((torch.cos(k * grid.x) + torch.cos(l * grid.y))[None])
    expected = (l / k - k / l) * torch.sin(k * grid.x) * torch.sin(l * grid.y)
    assert relative(eq.read(eq.tendency(z))[0], expected) < 1e-13


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2, 1])
def test_vorticity_conserves_energy_and_enstrophy(dealias, rng):
    eq = Vorticity(grid=Grid(24, 21, Lx=3.0, Ly=2.0, dealias=dealias), beta=1.5)
    omega = torch.randn(4, 1, 21, 24, dtype=torch.float64, generator=rng)
    z = eq.init(omega)
    dz, psi = eq.tendency(z), eq.fields(z)["psi"][:, None]
    scale = eq.grid.mean_square(dz).sqrt()
    rates = [
        ((eq.grid.weight * (w.conj() * dz).real).sum((-2, -1)) / (scale * eq.grid.mean_square(w).sqrt())).abs().max()
        for w in (psi, z)
    ]
    assert rates[0] < 1e-14  # the flux form conserves energy even where products alias
    assert rates[1] < 1e-14 if dealias != 1 else rates[1] > 1e-4
    if dealias != 1:  # and over time, to the order of the stepper
        smooth = torch.fft.irfft2(torch.fft.rfft2(omega[0])[..., :5], s=omega.shape[-2:])
        end = eq.init(after(rk4(eq, 1e-3), smooth, 100))
        start = eq.init(smooth)
        assert relative(eq.grid.mean_square(end), eq.grid.mean_square(start)) < 1e-10


def test_force():
    """A force of one wave drives exactly that wave, which saturates at force / drag."""
    grid = Grid(16, 12, Lx=2.0, Ly=1.0)
    force = torch.sin(math.pi * grid.x + 2 * math.pi * grid.y)
    eq = Vorticity(grid=grid, drag=0.5, force=force)
    rest = torch.zeros(1, *grid.shape, dtype=torch.float64)
    assert relative(eq.read(eq.tendency(eq.init(rest))), force[None]) < 1e-14
    assert relative(after(etdrk4(eq, 0.1), rest, 20), force[None] * (1 - math.exp(-0.5 * 2)) / 0.5) < 1e-12
    ensemble, single = (after(etdrk4(eq, 0.1), start, 2) for start in (rest.expand(3, 1, -1, -1), rest))
    assert relative(ensemble[2], single) < 1e-14


@pytest.mark.parametrize("waves", [(2, 0), (0, 3)])
def test_vorticity_cfl(waves):
    """A shear flow of speed 1 crosses dx, or dy, not the other."""
    grid = Grid(32, 32, Lx=4.0, Ly=1.0)
    m, n = (2 * math.pi * w / length for w, length in zip(waves, (4.0, 1.0), strict=True))
    eq = Vorticity(grid=grid)
    omega = (m + n) * torch.cos(m * grid.x + n * grid.y)[None]
    assert eq.cfl(eq.init(omega), 0.01) == pytest.approx(0.01 / (grid.dy if m else grid.dx), rel=0.02)


# -- Lorenz ----------------------------------------------------------------------------------------------------------
def test_lorenz63_against_scipy():
    def rhs(t, s):
        return 10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]

    start = [1.0, 2.0, 20.0]
    assert relative(after(rk4(Lorenz63(), 1e-3), start, 1000), dop853(rhs, start, 1.0)) < 1e-8


@pytest.mark.parametrize(("n", "F"), [(40, 8.0), (4, 5.0), (7, 10.0)])
def test_lorenz96_against_scipy(n, F):
    def rhs(t, s):
        return [(s[(i + 1) % n] - s[i - 2]) * s[i - 1] - s[i] + F for i in range(n)]

    start = F + np.sin(np.arange(n)) ** 3
    assert relative(after(rk4(Lorenz96(n=n, F=F), 1e-3), start, 1000), dop853(rhs, start, 1.0)) < 3e-7


@pytest.mark.parametrize("eq", [Lorenz63(rho=20.0), Lorenz96(n=9, F=7.0)])
def test_fast_tendencies_of_lorenz_systems_equal_their_terms(eq, rng):
    z = eq.init(torch.randn(5, len(eq.prognostic), dtype=torch.float64, generator=rng))
    assert relative(eq.tendency(z), eq.evaluate(z, eq.terms)) < 1e-14


def test_terms_added_to_lorenz96_count(rng):
    eq = Lorenz96(n=9, F=7.0)
    z = eq.init(torch.randn(5, 9, dtype=torch.float64, generator=rng))
    reference = eq.evaluate(z, eq.terms)
    pushed = eq + Term("X3", "push", 2 * Field("X1"))
    difference = pushed.tendency(z) - reference
    assert relative(difference[..., 2, :, :], 2 * z[..., 0, :, :]) < 1e-13
    assert difference[..., [0, 1, 3, 4, 5, 6, 7, 8], :, :].abs().max() < 1e-14
    assert relative(sum(eq.by_term(z).values()), reference) < 1e-14


def test_ordinary_equations_have_no_grid_to_fit():
    with pytest.raises(ValueError, match="at least 4 variables, got 3"):
        Lorenz96(n=3)
    with pytest.raises(ValueError, match=r"shape \(..., 3\), got \(2,\)"):
        Lorenz63().init(torch.zeros(2))
    fields = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(Lorenz63().read(Lorenz63().init(fields)), fields.double())


# -- what all equations share ----------------------------------------------------------------------------------------
GRID = Grid(16, 12, Lx=2.0, Ly=1.0)
LINE = Grid(32, 1, Lx=20.0)
ALL = [
    Advection(grid=GRID, U=0.5, kappa=0.1),
    Vorticity(grid=GRID, nu=0.01, beta=2.0, force=torch.sin(math.pi * GRID.x).expand(GRID.shape)),
    Burgers(grid=LINE),
    KuramotoSivashinsky(grid=LINE, d=0.2),
    Lorenz63(),
    Lorenz96(n=6),
]
every = pytest.mark.parametrize("eq", ALL, ids=lambda eq: type(eq).__name__)


def state(eq, rng) -> torch.Tensor:
    n = len(eq.prognostic)
    shape = (2, n) if eq.grid.nx == 1 else (2, n, *eq.grid.shape)
    return eq.init(torch.randn(*shape, dtype=torch.float64, generator=rng))


@every
def test_linear_nonlinear_and_terms_add_up(eq, rng):
    z = state(eq, rng)
    reference = eq.evaluate(z, eq.terms)
    linear = torch.einsum("ijyx,bjyx->biyx", eq.linear, z)
    assert relative(linear + eq.nonlinear(z), reference) < 1e-12
    assert relative(eq.tendency(z), reference) < 1e-12
    by_term = eq.by_term(z)
    assert set(by_term) == {term.name for term in eq.terms}
    assert relative(sum(by_term.values()), reference) < 1e-12


@every
def test_text_has_every_term_and_parameter(eq):
    lines = str(eq).splitlines()
    for term in eq.terms:
        assert f"    + ({term.expr})  [{term.name}]" in lines
    for name in eq.prognostic:
        assert f"d {name}/dt =" in lines
    for name, v in eq.params.items():
        assert any(line.startswith(f"{name} = {v:.6g} ") for line in lines)


@every
def test_a_further_term_and_a_further_tendency(eq, rng):
    z = state(eq, rng)
    name = eq.prognostic[-1]
    plain = eq.tendency(z)
    for expr, expected in ((-3 * Field(name), -3 * z[..., -1, :, :]), (0.5 * lap(Field(name)), None)):
        expected = -0.5 * eq.grid.K2 * z[..., -1, :, :] if expected is None else expected
        more = (eq + Term(name, "more", expr)).tendency(z) - plain
        assert torch.allclose(more[..., -1, :, :], expected + 0j, atol=1e-12 * float(plain.abs().max()), rtol=1e-12)
        assert more[..., :-1, :, :].abs().sum() <= 1e-12 * plain.abs().max()
    damped = eq.with_tendency(lambda e, w, t: -t * w).with_tendency(lambda e, w, t: 2 * w)
    assert relative(damped.tendency(z, 0.5), plain + 1.5 * z) < 1e-14
    assert relative(damped.by_term(z, 0.5)["added"], 1.5 * z) < 1e-14
    assert eq.extra == ()
    assert eq.tendencies == ()


def test_terms_that_are_nonlinear_or_vary_in_time(rng):
    eq = ALL[0]
    z = state(eq, rng)
    c = eq.read(z)
    more = (Term("c", "wave", sin(math.pi * Field("c"))), Term("c", "growth", parse("t*c")))
    nonlinear = eq + more
    expected = eq.read(eq.tendency(z)) + eq.grid.project(torch.sin(math.pi * c)) + 0.3 * c
    assert relative(eq.read(nonlinear.tendency(z, 0.3)), expected) < 1e-12
    other = Advection(grid=GRID, U=2.0, kappa=0.0)
    assert len((eq + other).terms) == 4


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("b", "more", Field("c")), r"term 'more' is for 'b'; prognostic fields: \('c',\)"),
        (Term("c", "more", dx(Field("q"))), r"term 'more' names unknown fields \['q'\]; known: \['c'\]"),
    ],
)
def test_bad_terms(term, message):
    with pytest.raises(ValueError, match=message):
        _ = (ALL[0] + term).terms


def test_bad_parameters_and_fields():
    with pytest.raises(KeyError, match="the parameter 'mu' is not known here; known: U, V, kappa"):
        (ALL[0] + Term("c", "more", Param("mu") * Field("c"))).tendency(ALL[0].init(torch.zeros(1, *GRID.shape)))
    with pytest.raises(ValueError, match=r"fields must have shape \(..., 1, 12, 16\), got \(12, 16\)"):
        ALL[0].init(torch.zeros(12, 16))
    with pytest.raises(AttributeError):
        ALL[0].U = 3.0
