"""Elliptic and Helmholtz problems: orders of convergence, conservation, maximum principle, fields against theory."""

import math

import numpy as np
import pytest

from sciml.equation import helmholtz as waves
from sciml.equation.coefficients import cosine_field, rough_phases, smooth_phases, trigonometric, two_phase
from sciml.equation.elliptic import (
    arithmetic,
    conductance,
    conjugate_gradients,
    darcy,
    direct,
    elliptic,
    harmonic,
    laplacian_inverse,
    linear_elements,
    operator,
    outflow,
)
from tests.conftest import relative

PI = math.pi


def axes(ny, nx=None):
    return np.linspace(0, 1, nx or ny)[None, :], np.linspace(0, 1, ny)[:, None]


def varying(x, y):
    return 2 + np.sin(3 * x) * np.cos(2 * y) + x * y


def manufactured(x, y):
    """A solution, and its source for the coefficient :func:`varying`."""
    e, sx, cx, sy, cy = np.exp(x), np.sin(PI * x), np.cos(PI * x), np.sin(2 * PI * y), np.cos(2 * PI * y)
    u, ux, uy = e * sx * sy, e * (sx + PI * cx) * sy, 2 * PI * e * sx * cy
    laplacian = e * sy * (2 * PI * cx + (1 - PI**2) * sx) - 4 * PI**2 * u
    ax, ay = 3 * np.cos(3 * x) * np.cos(2 * y) + y, -2 * np.sin(3 * x) * np.sin(2 * y) + x
    return u, -(ax * ux + ay * uy + varying(x, y) * laplacian)


def orders(error, sizes):
    e = np.array([error(n) for n in sizes])
    return np.log(e[:-1] / e[1:]) / np.log((np.array(sizes[1:]) - 1) / (np.array(sizes[:-1]) - 1))


# -- order -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("solve", [conjugate_gradients, direct])
@pytest.mark.parametrize("faces", [harmonic, arithmetic, linear_elements])
def test_second_order_for_smooth_coefficients(faces, solve):
    """On grids with other numbers of points in y than in x."""

    def error(n):
        ny = 2 * (n - 1) + 1
        x, y = axes(ny, n)
        u, f = manufactured(x, y)
        k = linear_elements(varying, ny, n) if faces is linear_elements else conductance(varying(x, y), faces)
        return relative(elliptic(k, f, solve), u)

    assert orders(error, (13, 25, 49)) == pytest.approx(2, abs=0.06)
    assert error(49) < 2e-3


def test_harmonic_means_halve_the_error_where_the_coefficient_jumps():
    def coefficient(n):
        return two_phase(cosine_field(n, 0, 5.0, 2.0, modes=41), 12.0, 2.0)

    best = darcy(coefficient(401))[::10, ::10]
    errors = {m: np.linalg.norm(darcy(coefficient(41), mean=m) - best) for m in (harmonic, arithmetic)}
    assert errors[harmonic] < 0.7 * errors[arithmetic]
    assert errors[harmonic] < 0.05 * np.linalg.norm(best)


def test_flux_through_an_interface_between_two_points_is_exact():
    """u linear on either side of x = 1/2 with a du/dx the same."""
    x, _ = axes(10)
    a = np.where(x < 0.5, 12.0, 2.0) * np.ones((10, 1))
    u = np.where(x < 0.5, x / 12, 0.5 / 12 + (x - 0.5) / 2) * np.ones((10, 1))
    flux = 9 * conductance(a).x * np.diff(u[1:-1], axis=1)
    assert flux == pytest.approx(1.0, rel=1e-13)


# -- the matrix ------------------------------------------------------------------------------------------------------
def test_matrix_is_the_outflow_and_is_inverted():
    """Against a dense matrix whose columns are outflows of unit vectors, and numpy's solver."""
    ny, nx, rng = 9, 12, np.random.default_rng(0)
    a = rng.uniform(1, 5, (ny, nx))
    k, source = conductance(a), rng.standard_normal((ny - 2, nx - 2))
    units = np.eye(source.size).reshape(-1, *source.shape)
    dense = np.stack([outflow(k, e).ravel() for e in units], axis=1)
    assert relative(operator(k).toarray(), dense) < 1e-14
    assert np.array_equal(dense, dense.T)
    expected = np.linalg.solve(dense, source.ravel()).reshape(source.shape)
    assert relative(direct(k, source), expected) < 1e-12
    assert relative(conjugate_gradients(k, source, 1e-12), expected) < 1e-10


def triangle(p):
    """Stiffness of the linear element with corners ``p (3, 2)``: area times products of gradients."""
    gradients = np.linalg.inv(np.column_stack([np.ones(3), p]))[1:]
    return abs(np.linalg.det(np.column_stack([np.ones(3), p]))) / 2 * gradients.T @ gradients


def test_linear_elements_are_those_assembled_triangle_by_triangle():
    """Each square is cut from its upper left to its lower right corner; the coefficient is that of the centroid."""
    ny, nx = 6, 5
    corners, number = np.stack(np.broadcast_arrays(*axes(ny, nx)), -1), np.arange(ny * nx).reshape(ny, nx)
    full = np.zeros((ny * nx, ny * nx))
    for i in range(ny - 1):
        for j in range(nx - 1):
            for at in (((i, i, i + 1), (j, j + 1, j)), ((i + 1, i + 1, i), (j + 1, j, j + 1))):
                p, n = corners[at], number[at]
                full[np.ix_(n, n)] += varying(*p.mean(0)) * triangle(p)
    inside = number[1:-1, 1:-1].ravel()
    assert relative(operator(linear_elements(varying, ny, nx)).toarray(), full[np.ix_(inside, inside)]) < 1e-13


def test_sine_transforms_invert_the_laplacian():
    u = np.random.default_rng(0).standard_normal((7, 10))
    assert relative(laplacian_inverse(u.shape)(outflow(conductance(np.ones((9, 12))), u)), u) < 1e-13


def test_what_is_produced_flows_out():
    """Of the whole box and of a part of it: sources in it equal fluxes across its boundary."""
    a, n = rough_phases(65, 0), 65
    u = darcy(a, solve=direct)
    k = conductance(a)
    x, y = k.x * np.diff(u[1:-1], axis=1), k.y * np.diff(u[:, 1:-1], axis=0)
    for low, high in ((0, n - 2), (10, 31)):
        part = slice(low, high)
        out = (x[part, low] - x[part, high]).sum() + (y[low, part] - y[high, part]).sum()
        assert out == pytest.approx((high - low) ** 2 / (n - 1) ** 2, rel=1e-11)


def test_maximum_principle():
    """A source nowhere negative makes nothing negative; where there is none, no point is above its neighbours."""
    f = np.zeros((33, 33))
    f[8, 20] = 1.0
    u = darcy(rough_phases(33, 1), f, solve=direct)
    inner, neighbours = u[1:-1, 1:-1], np.stack([u[:-2, 1:-1], u[2:, 1:-1], u[1:-1, :-2], u[1:-1, 2:]])
    assert inner.min() > 0
    above = inner > neighbours.max(0)
    assert np.argwhere(above).tolist() == [[7, 19]]
    assert (inner > neighbours.min(0)).all()


def test_bad_coefficients_are_refused():
    for a in (np.ones((2, 5)), np.ones(5), np.zeros((5, 5)), np.full((5, 5), np.nan)):
        with pytest.raises(ValueError, match="coefficient"):
            darcy(a)
    x, y = axes(65)
    with pytest.raises(ValueError, match="solve=direct"):
        darcy(trigonometric(0)(x, y) ** 2)


# -- random coefficients ---------------------------------------------------------------------------------------------
def test_cosine_field_has_the_stated_covariance():
    """Variance at points and covariance of two points, from the series, within 5 standard errors of 3000 samples."""
    points, n, tau, alpha = 17, 3000, 3.0, 2.0
    fields = np.stack([cosine_field(points, seed, tau, alpha) for seed in range(n)])
    k = np.arange(points)
    eigenvalues = tau**2 * (PI**2 * (k[:, None] ** 2 + k**2) + tau**2) ** -alpha
    eigenvalues[0, 0] = 0
    c = np.where(k == 0, 1, math.sqrt(2)) * np.cos(PI * np.linspace(0, 1, points)[:, None] * k)

    def covariance(p, q):
        return float(np.einsum("m,n,mn,m,n", c[p[0]], c[p[1]], eigenvalues, c[q[0]], c[q[1]]))

    for p, q in (((0, 0), (0, 0)), ((8, 8), (8, 8)), ((4, 10), (6, 9)), ((0, 3), (16, 3))):
        size = math.sqrt((covariance(p, p) * covariance(q, q) + covariance(p, q) ** 2) / n)
        assert (fields[:, *p] * fields[:, *q]).mean() == pytest.approx(covariance(p, q), abs=5 * size)
    weight = np.where((k == 0) | (k == points - 1), 0.5, 1.0)
    assert np.abs(np.einsum("sij,i,j->s", fields, weight, weight)).max() < 1e-12  # no mean


def test_a_seed_is_one_field_on_all_grids():
    coarse, fine = (cosine_field(n, 3, 5.0, 2.0, modes=20) for n in (21, 61))
    assert relative(fine[::3, ::3], coarse) < 1e-12
    assert relative(cosine_field(21, 4, 5.0, 2.0, modes=20), coarse) > 0.3
    with pytest.raises(ValueError, match="holds from 2 to 21 modes"):
        cosine_field(21, 0, 5.0, 2.0, modes=40)


def test_phases():
    for make, values in ((smooth_phases, {3.0, 12.0}), (rough_phases, {2.0, 12.0})):
        a = np.stack([make(33, seed) for seed in range(200)])
        assert set(np.unique(a)) == values
        assert (a == 12).mean() == pytest.approx(0.5, abs=0.05)


def test_trigonometric_coefficient():
    """Of one scale: the wavenumber seen on the line y = 3 x explains the rest."""
    for seed in range(5):
        a = trigonometric(seed, scales=1)
        x, y = axes(7)
        k = math.acos(2 * (float(a(np.array(0.01), np.array(0.03))) - 1)) / 0.04
        assert PI <= k <= 1.5 * PI
        assert relative(a(x, y), (1 + np.cos(k * (x + y)) / 2) * (1 + np.sin(k * (y - 3 * x)) / 2)) < 1e-9
        assert float(trigonometric(seed)(np.zeros(1), np.zeros(1))[0]) == pytest.approx(1.5**6)


# -- Helmholtz -------------------------------------------------------------------------------------------------------
def test_helmholtz_is_second_order():
    """u = cos(2 pi x) y^3 / 3 with a speed that varies: no flux but cos(2 pi x) through the top."""
    omega = 100.0

    def c(x, y):
        return 20 + np.tanh(np.cos(PI * x) * np.cos(2 * PI * y))

    def u(x, y):
        return np.cos(2 * PI * x) * y**3 / 3

    def f(x, y):
        return (4 * PI**2 - (omega / c(x, y)) ** 2) * u(x, y) - 2 * y * np.cos(2 * PI * x)

    def error(n):
        x, y = axes(n)
        rhs = waves.load(f, n) + waves.top_load(lambda s: np.cos(2 * PI * s), n)
        return relative(waves.helmholtz(c(x, y), omega, rhs), u(x, y))

    assert orders(error, (26, 51, 101)) == pytest.approx(2, abs=0.15)
    assert error(101) < 1e-3


def test_waves_in_a_box_balance_the_flux():
    """The integral of the equation: (omega / c)^2 u over the square is minus the flux, 0.3."""
    c = waves.speed(101, 0)
    A = waves.matrix(c, 1000.0)
    assert abs(A - A.T).max() < 1e-14
    w = np.full(101, 0.01)
    w[[0, -1]] /= 2
    integral = np.einsum("i,j,ij", w, w, (1000 / c) ** 2 * waves.helmholtz(c))
    assert integral == pytest.approx(-0.3, rel=0.02)
    with pytest.raises(ValueError, match="wave speed"):
        waves.helmholtz(-c)


def test_wave_speed_has_the_modes_and_variances_stated():
    """Of 100 modes, from the discrete cosine transform of many samples."""
    from scipy.fft import idctn

    n = 600
    found = np.stack([idctn(np.arctanh(waves.speed(33, seed) - 20), type=1) for seed in range(n)])
    k2 = np.arange(33)[:, None] ** 2 + np.arange(33) ** 2
    power = (found**2).mean(0)
    seen = power > 1e-12 * power.max()
    assert seen.sum() == 100
    assert not seen[0, 0]
    assert k2[seen].max() <= k2[~seen & (k2 > 0)].min()
    inner = seen & (np.outer(range(33), range(33)) > 0)  # there the series has 2 c cos cos, the transform 4 c cos cos
    theory = (4 / 2) ** -2 * (PI**2 * k2[inner] + 9.0) ** -2
    assert (power[inner] / theory).mean() == pytest.approx(1, abs=5 * math.sqrt(2 / n / inner.sum()))
