"""Jets against repeated automatic differentiation, networks against it, spherical harmonics against scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import sph_harm_y

from sciml.field import Siren, dirichlet
from sciml.grid import Grid
from sciml.insr.domain import Sphere
from sciml.nn.encodings import Coordinates, Harmonics
from sciml.nn.jets import (
    Jet,
    coordinates,
    cosine,
    exponential,
    indices,
    product,
    reciprocal,
    sine,
    tanh,
)
from tests.conftest import relative
from tests.test_field import OTHERS, PERIODIC


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_autograd(f, x, a):
    """``d^|a| f / dx^a`` at points, one derivative after the other."""
    x = x.clone().requires_grad_()
    value = f(x)
    for axis, times in enumerate(a):
        for _ in range(times):
            (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
            value = gradient[:, axis]
    return value.detach()


FUNCTIONS = {"sine": (sine, torch.sin), "cosine": (cosine, torch.cos), "tanh": (tanh, torch.tanh),
             "exponential": (exponential, torch.exp), "reciprocal": (reciprocal, torch.reciprocal)}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dims", "order"), [(1, 4), (2, 4), (3, 3)])
def test_functions_of_a_jet(name, dims, order):
    series, f = FUNCTIONS[name]
    x, w = draw(6, dims), draw(dims, seed=1)
    jet = coordinates(x, dims, order).linear(w[None], torch.tensor([2.5], dtype=torch.float64)).apply(series)
    for a in indices(dims, order):
        assert relative(jet.derivative(*a)[:, 0], by_autograd(lambda x: f(x @ w + 2.5), x, a)) < 1e-12


def test_products_of_jets():
    x, w = draw(6, 2), draw(2, 2, seed=1)
    a, b = (coordinates(x, 2, 4).linear(row[None]).apply(sine) for row in w)
    for i in indices(2, 4):
        expected = by_autograd(lambda x: torch.sin(x @ w[0]) * torch.sin(x @ w[1]), x, i)
        assert relative(product(a, b).derivative(*i)[:, 0], expected) < 1e-12


def test_a_jet_is_its_polynomial():
    """c_a s^a, moved by a little against the function itself."""
    x, w, s = draw(6, 2), draw(2, 1, seed=1), 1e-2 * draw(6, 2, seed=2)
    jet = coordinates(x, 2, 4).linear(w.T).apply(sine)
    assert relative(jet.moved(s), torch.sin((x + s) @ w)) < 1e-9


def test_a_jet_knows_what_it_does_not_hold():
    jet = coordinates(draw(3, 2), 1, 2)
    assert float(jet.derivative(0, 1).abs().max()) == 0.0, "nothing varies in a dimension that is not there"
    with pytest.raises(ValueError, match="order 2 has no derivative"):
        jet.derivative(3)


# -- networks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*PERIODIC, *OTHERS])
def test_all_derivatives_of_a_network(name):
    net, x = {**PERIODIC, **OTHERS}[name](2), torch.rand(5, 2, dtype=torch.float64)
    jet = net.jet(coordinates(x, 2, 3))
    assert relative(jet.c[0], net(x)) < 1e-14
    for a in indices(2, 3):
        assert relative(jet.derivative(*a)[:, 1], by_autograd(lambda x: net(x)[:, 1], x, a)) < 1e-10


@pytest.mark.parametrize("ny", [1, 16])
def test_dirichlet_values_hold_to_rounding(ny):
    grid = Grid(16, ny, Lx=3.0, Ly=2.0, x0=-1.0, y0=0.5)
    net = Siren(grid, 2, (8, 8), omega=2.0, encoding=Coordinates)
    net.constraint = dirichlet(grid, lambda position: position[0:1] * 2.0)
    y = 0.5 + 2.0 * torch.rand(9, dtype=torch.float64)
    for x in (-1.0, 2.0):
        edge = torch.stack([torch.full_like(y, x), y], -1)
        assert relative(net(edge), (2 * edge[:, :1]).expand(9, 2)) < 1e-14
    inside = torch.rand(5, 2, dtype=torch.float64)
    jet = net.jet(coordinates(inside, 1 if ny == 1 else 2, 2))
    for a in ((2, 0), (1, 0), (1, 1))[: 2 if ny == 1 else 3]:
        assert relative(jet.derivative(*a)[:, 1], by_autograd(lambda x: net(x)[:, 1], inside, a)) < 1e-10


# -- the sphere ------------------------------------------------------------------------------------------------------
def test_harmonics_are_scipys():
    """Up to the order of the functions; ours have a mean square of 1."""
    x = torch.nn.functional.normalize(draw(40, 3), dim=-1)
    at = Sphere().coords(x)
    colatitude, lon = (math.pi / 2 - at["y"]).numpy(), at["x"].numpy()
    found, column = Harmonics(4)(x), 0
    for m in range(5):
        for n in range(m, 5):
            if n == 0:
                continue
            expected = torch.from_numpy(sph_harm_y(n, m, colatitude, lon)) * math.sqrt(4 * math.pi)
            parts = [expected.real, expected.imag] if m else [expected.real]
            for part in parts:
                own = found[:, column] / math.sqrt(2 if m else 1)
                assert relative(own.abs(), part.abs()) < 1e-12
                column += 1
    assert column == found.shape[1] == 24


def test_laplacians_of_harmonics():
    x = torch.nn.functional.normalize(draw(40, 3), dim=-1)
    jet = Harmonics(3).jet(Sphere().jet(x, 2))
    degrees = torch.tensor([n for m in range(4) for n in range(m, 4) if n for _ in range(2 if m else 1)])
    laplacian = jet.derivative(2, 0) + jet.derivative(0, 2)
    assert relative(laplacian, -(degrees * (degrees + 1)) * jet.c[0]) < 1e-12


def test_quadrature_on_the_sphere():
    """Harmonics are orthonormal on its nodes."""
    x, weight = Sphere().nodes(300, torch.Generator())
    Y = Harmonics(6)(x)
    assert relative(Y.T @ (weight[:, None] * Y), torch.eye(Y.shape[1], dtype=torch.float64)) < 1e-12
    assert float(weight.sum()) == pytest.approx(1.0)


def test_directions_at_the_poles():
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    _, first, second = Sphere().jet(poles, 1).c
    assert relative((first * second).sum(-1) + (first * poles).sum(-1) + 1, torch.ones(2, dtype=torch.float64)) < 1e-14
    assert relative(first.norm(dim=-1), torch.ones(2, dtype=torch.float64)) < 1e-14
    with pytest.raises(ValueError, match="second derivatives at most"):
        Sphere().jet(poles, 3)


def test_degree_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        Harmonics(0)


def test_sums_and_numbers():
    jet = coordinates(draw(3, 2), 2, 1)
    assert relative((jet + 2.0).c[0], jet.c[0] + 2.0) == 0
    assert relative((jet + 2.0).c[1], jet.c[1]) == 0
    assert relative((jet * 3.0).c, 3 * jet.c) == 0
    assert isinstance(jet.sum(), Jet)
