"""What expressions mean: the spectral, pointwise, prefix and printed readings, and Fourier multipliers."""

import math

import numpy as np
import pytest
import sympy as sp
import torch

from sciml.equation.expression import (
    Apply,
    Coord,
    Field,
    J,
    Number,
    Param,
    cos,
    dx,
    dy,
    exp,
    expand,
    from_prefix,
    lap,
    mean_x,
    parse,
    sin,
    tanh,
    to_prefix,
    to_sympy,
)
from sciml.equation.readings import NotLinear, Spectral, multipliers, pointwise
from sciml.grid import Grid
from tests.conftest import relative

f, g, h = (Field(n) for n in "fgh")
x, y, t = (Coord(n) for n in "xyt")
nu, beta, k, l = (Param(n) for n in ("nu", "beta", "k", "l"))
X, Y, T = sp.symbols("x y t")

LX, LY = 3.0, 1.4
K, L = 2 * sp.pi / 3, 2 * sp.pi / sp.Rational(7, 5)
ANALYTIC = {
    "f": sp.sin(K * X) * sp.cos(L * Y) + sp.cos(2 * K * X - L * Y) / 2,
    "g": sp.cos(K * X + L * Y) - sp.sin(2 * L * Y) / 3 + sp.Rational(1, 4),
    "h": sp.sin(K * X - 2 * L * Y) / 2 + sp.cos(K * X) / 5,
}
VALUES = {"nu": 0.3, "beta": -1.7, "k": 2 * math.pi / LX, "l": 2 * math.pi / LY}
TIME = 0.7


def grid(nx=24, ny=22, dealias=2 / 3, **options) -> Grid:
    return Grid(nx, ny, Lx=LX, Ly=LY, dealias=dealias, **options)


def at(formula, at_x: torch.Tensor, at_y: torch.Tensor) -> torch.Tensor:
    """A sympy formula at points, by numpy."""
    numbers = sp.lambdify((X, Y, T, *map(sp.Symbol, VALUES)), formula, "numpy")
    xs, ys = np.broadcast_arrays(at_x.numpy(), at_y.numpy())
    return torch.as_tensor(np.broadcast_to(numbers(xs, ys, TIME, *VALUES.values()), xs.shape).copy())


def spectral(e, on: Grid, params=VALUES) -> torch.Tensor:
    fields = {n: on.fft(at(formula, on.x, on.y)) for n, formula in ANALYTIC.items()}
    return on.ifft(Spectral(on, fields, params, TIME)(e))


def at_points(e, at_x, at_y) -> torch.Tensor:
    def derivative(name, m, n):
        formula = ANALYTIC[name]
        for variable, times in ((X, m), (Y, n)):
            formula = sp.diff(formula, variable, times) if times else formula
        return at(formula, at_x, at_y)

    return pointwise(e, derivative, VALUES, {"x": at_x, "y": at_y, "t": TIME})


def printed(e, at_x, at_y) -> torch.Tensor:
    """sympy's formula with the analytic fields put in, derivatives taken by sympy."""
    fields = {sp.Function(n)(X, Y): formula for n, formula in ANALYTIC.items()}
    return at(to_sympy(e).subs(fields).doit(), at_x, at_y)


POLYNOMIAL = [
    f + 2 * g - 0.5,
    dx(f),
    dy(f) - nu * g,
    lap(f),
    lap(lap(g)),
    dx(dy(dx(g))),
    f * g,
    nu * f * g * h + beta * g,
    f**2,
    g**3 - 2 * h**2,
    dx(f**2) / 2,
    dx(f * dy(g)),
    J(f, g),
    nu * lap(f) - J(g, f) - beta * dx(g),
    J(f, lap(g)),
    J(f, J(g, h)),
    J(f * g, h) + lap(f * h),
    sin(k * x) * f,
    cos(k * x + l * y) * dx(f) * g,
    dy(cos(l * y) * dx(f)),
    sin(2 * k * x - 0.3) + cos(l * y) ** 2 * nu,
    t * f + cos(t) * g + nu**2,
    exp(nu) * f - tanh(nu * beta) * lap(g),
    J(sin(l * y), f),
]
"""Expressions of finitely many waves: every reading is exact."""

TRANSCENDENTAL = [exp(f / 2), tanh(g), dx(tanh(f * g)), f / (3 + g), exp(sin(f)) * h, (g + 3) ** 0.5, (g + 4) ** nu]
"""Expressions of infinitely many: the spectral reading has a truncation error."""


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2, 1])
@pytest.mark.parametrize("e", POLYNOMIAL, ids=str)
def test_four_readings_agree(e, dealias):
    on = grid(dealias=dealias)
    expected = printed(e, on.x, on.y)
    rounding = 4e-12  # lap(lap(g)) amplifies that of the shortest waves kept by (k_max / k)^4
    assert relative(spectral(e, on), expected) < rounding
    assert relative(at_points(e, on.x, on.y).expand(on.shape), expected) < 1e-12
    for again in (from_prefix(to_prefix(e)), parse(str(e), tuple(VALUES)), expand(e)):
        assert relative(spectral(again, on), expected) < rounding


@pytest.mark.parametrize("e", TRANSCENDENTAL, ids=str)
def test_functions_of_fields_converge(e):
    errors = []
    for n in (24, 48, 96):
        on = grid(n, n, dealias=3 / 2)
        errors.append(relative(spectral(e, on), printed(e, on.x, on.y)))
    assert errors[1] < errors[0] / 20
    assert errors[2] < 1e-9
    scattered = torch.linspace(0, LX, 7)[None].double(), torch.linspace(0, LY, 7)[None].double()
    assert relative(at_points(e, *scattered), printed(e, *scattered)) < 1e-13


@pytest.mark.parametrize("e", POLYNOMIAL[:16], ids=str)
def test_batches_and_float32(e):
    on = grid()
    fields = {n: on.fft(at(formula, on.x, on.y)) for n, formula in ANALYTIC.items()}
    stacked = {n: torch.stack([fh, 2 * fh, -fh]) for n, fh in fields.items()}
    together = Spectral(on, stacked, VALUES, TIME)(e)
    for i, factor in enumerate((1, 2, -1)):
        alone = Spectral(on, {n: factor * fh for n, fh in fields.items()}, VALUES, TIME)(e)
        assert relative(together[i], alone) < 1e-14
    single = grid(dtype=torch.float32)
    value = Spectral(single, {n: fh.to(torch.complex64) for n, fh in fields.items()}, VALUES, TIME)(e)
    assert value.dtype == torch.complex64
    assert relative(value, together[0]) < 1e-4


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2])
def test_products_are_truncated_two_factors_at_a_time(dealias, rng):
    """All kept modes excited, against products formed by numpy on a grid four times as fine."""
    on = Grid(16, 16, Lx=LX, Ly=LY, dealias=dealias)
    fine = Grid(64, 64, Lx=LX, Ly=LY, dealias=1, x0=on.x0, y0=on.y0)
    F, G, H = (on.project(torch.randn(*on.shape, dtype=torch.float64, generator=rng)) for _ in range(3))
    read = Spectral(on, {"f": on.fft(F), "g": on.fft(G), "h": on.fft(H)}, VALUES)

    def product(*factors):
        out = factors[0]
        for factor in factors[1:]:
            out = on.project(fine.resample(on.resample(out, fine) * on.resample(factor, fine), on))
        return out

    wave = torch.sin(VALUES["k"] * on.x).expand(on.shape)
    for e, factors in ((f * g, (F, G)), (f * g * h, (F, G, H)), (f**3, (F, F, F)), (sin(k * x) * f * g, (wave, F, G))):
        assert relative(on.ifft(read(e)), product(*factors)) < 1e-13


def test_high_powers_are_taken_at_the_points():
    """A decoded equation may hold u**50000, of which a list of factors would fill the memory."""
    on = grid(dealias=1.0)
    wave = torch.cos(VALUES["k"] * on.x).expand(on.shape)
    read = Spectral(on, {"f": on.fft(wave)}, VALUES)
    assert relative(on.ifft(read(f**50_000)), wave**50_000) < 1e-10


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2])
def test_jacobian_conserves(dealias, rng):
    """Integrals of J(f, g), f J(f, g) and g J(f, g) vanish for the truncated fields."""
    on = Grid(20, 15, Lx=LX, Ly=LY, dealias=dealias)
    fields = {n: on.fft(torch.randn(*on.shape, dtype=torch.float64, generator=rng)) for n in "fg"}
    jacobian = Spectral(on, fields)(J(f, g))
    size = on.mean_square(jacobian).sqrt()
    assert size > 1
    assert jacobian[0, 0].abs() < 1e-14 * size
    for fh in fields.values():
        assert (on.weight * (fh.conj() * jacobian).real).sum().abs() < 1e-13 * size * on.mean_square(fh).sqrt()


def test_mean_x():
    on = grid()
    mean = at(sp.integrate(ANALYTIC["g"], (X, 0, 3)) / 3, on.x, on.y)
    assert relative(spectral(mean_x(g), on), mean) < 1e-13
    assert relative(spectral(mean_x(g) * f, on), mean * at(ANALYTIC["f"], on.x, on.y)) < 1e-13
    assert relative(spectral(mean_x(2 * nu), on), torch.full(on.shape, 0.6, dtype=torch.float64)) < 1e-14
    with pytest.raises(ValueError, match=r"mean_x\(g\) is a mean over x: it has no pointwise reading"):
        at_points(f + mean_x(g), on.x, on.y)
    with pytest.raises(ValueError, match="is a mean over x"):
        at_points(dy(mean_x(g)), on.x, on.y)


# -- linear terms ----------------------------------------------------------------------------------------------------
LINEAR = [
    f,
    nu * lap(f) - beta * dx(g),
    lap(lap(f)) + dx(dy(f)) * 3 - f / 4,
    (nu + 2 * beta) ** 2 * dy(g) + nu**-1 * h,
    lap(nu * f + dx(g)) - mean_x(g),
    mean_x(2 * nu) * f,
    dx(nu * beta) * f + g,
]


@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
@pytest.mark.parametrize("e", LINEAR, ids=str)
def test_multipliers(e, dealias, rng):
    on = grid(14, 11, dealias=dealias)
    fields = {n: on.fft(torch.randn(*on.shape, dtype=torch.float64, generator=rng)) for n in "fgh"}
    symbols = multipliers(e, on, VALUES)
    value = sum(m * fields[n] for n, m in symbols.items())
    assert relative(value, Spectral(on, fields, VALUES)(e)) < 1e-13
    assert all(m.dtype in (torch.float64, torch.complex128) for m in symbols.values())


def test_multipliers_by_hand():
    on = grid()
    symbols = multipliers(nu * lap(f) + dx(f) - beta * dy(g), on, VALUES)
    assert set(symbols) == {"f", "g"}
    assert relative(symbols["f"], -0.3 * (on.k**2 + on.l**2) + 1j * on.k) < 1e-15
    assert relative(symbols["g"], 1.7j * on.l * torch.ones_like(on.k)) < 1e-15


@pytest.mark.parametrize(
    "e", [f * g, f**2, J(f, g), sin(f), x * f, cos(k * x) * f, f + 1, nu * 2, Number(0.0), t * f, f / g, exp(nu) * f, x]
)
def test_not_linear(e):
    with pytest.raises(NotLinear):
        multipliers(e, grid(), VALUES)


# -- names -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("e", "message"),
    [
        (Field("q") + f, "the field 'q' is not known here; known: f, g, h"),
        (Param("mu") * f, "the parameter 'mu' is not known here; known: beta, k, l, nu"),
    ],
)
def test_unknown_names(e, message):
    with pytest.raises(KeyError, match=message):
        spectral(e, grid())
    if isinstance(e, Apply) and e.op == "mul":
        with pytest.raises(KeyError, match=message):
            multipliers(e, grid(), VALUES)
        with pytest.raises(KeyError, match=message):
            at_points(e, grid().x, grid().y)
    with pytest.raises(KeyError, match="the parameter 'nu' is not known here; known: none"):
        spectral(nu * f, grid(), params={})
    with pytest.raises(KeyError, match="the coordinate 'y' is not known here; known: x"):
        pointwise(y * f, lambda *_: torch.ones(1), {}, {"x": torch.ones(1)})


# -- gradients -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("e", [nu * lap(f) - J(f, g), nu**2 * f * g + h, exp(nu) * f + nu, dx(f**2) * sin(nu)], ids=str)
def test_gradient_with_respect_to_a_parameter(e):
    on = grid()

    def loss(value):
        return (spectral(e, on, VALUES | {"nu": value}) ** 2).mean()

    value = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(value), value)
    step = 1e-5
    assert float(gradient) == pytest.approx(float((loss(0.3 + step) - loss(0.3 - step)) / (2 * step)), rel=1e-8)


def test_gradient_with_respect_to_a_field(rng):
    on = Grid(8, 6, Lx=LX, Ly=LY)
    values = torch.randn(*on.shape, dtype=torch.float64, generator=rng, requires_grad=True)
    other = on.fft(torch.randn(*on.shape, dtype=torch.float64, generator=rng))

    def tendency(u):
        return on.ifft(Spectral(on, {"f": on.fft(u), "g": other}, VALUES)(J(g, f) - nu * lap(f) + f**3))

    assert torch.autograd.gradcheck(tendency, (values,))


def test_common_parts_are_evaluated_once():
    calls = []

    class Counting(Grid):
        def fft(self, u):
            calls.append("fft")
            return super().fft(u)

        def ifft(self, uh, shape=None):
            calls.append("ifft")
            return super().ifft(uh, shape)

    on = Counting(16)
    fields = {n: torch.ones(on.modes, dtype=torch.complex128) for n in "fgh"}
    Spectral(on, fields)(dx(f * g) + dy(f * g) + g * h + f * h + lap(f * g))
    assert (calls.count("fft"), calls.count("ifft")) == (3, 3)
