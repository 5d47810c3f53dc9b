import math

import numpy as np
import pytest
import torch

from sciml.equation.expression import Param, dx, lap, parse
from sciml.equation.tokens import read, write
from sciml.grid import Grid
from sciml.prose.partial import PDES, as_equation
from sciml.prose.states import gaussian_process, scaled, waves
from sciml.step import etdrk4, rk4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def physical(name):
    """The right-hand side at the centres, of a wave e^(ikx) small beside the state a, by hand and in physical time."""
    k, a = math.pi, 0.3
    return {
        "heat": -3e-3 * k**2,
        "advection": -0.5j * k,
        "kdv": -1j * a * k + 0.022**2 * 1j * k**3,
        "logistic": -3e-3 * k**2 + 1 - 2 * a,
        "linear_reaction": -3e-3 * k**2 + 0.1,
        "bistable": -3e-3 * k**2 + 2 * a - 3 * a**2,
        "squared_logistic": -3e-3 * k**2 + 2 * a * (1 - a) * (1 - 2 * a),
        "burgers": -0.01 / math.pi * k**2 - 1j * k * a,
        "linear_flux": -0.01 / math.pi * k**2 - 1j * k,
        "sine_flux": -0.01 / math.pi * k**2 - 1j * k * math.cos(a),
        "cubic_flux": -0.01 / math.pi * k**2 - 1j * k * a**2,
        "inviscid_burgers": -1j * k * a,
        "inviscid_sine_flux": -1j * k * math.cos(a),
        "inviscid_cubic_flux": -1j * k * a**2,
        "cahn_hilliard": -(k**2) * (3 * a**2 - 1) - 0.01 * k**4,
        "wave": -0.25 * k**2,
        "klein_gordon": -(k**2) - 0.01,
        "sine_gordon": -(k**2) - math.cos(a),
    }[name]


@pytest.mark.parametrize("name", [n for n in PDES if n not in ("porous_medium", "fokker_planck")])
def test_growth_of_a_small_wave_is_that_of_the_published_equation(name):
    pde = PDES[name]
    grid = Grid(64, 1, Lx=2.0)
    wave = 1e-6 * torch.cos(math.pi * grid.x)
    eq = as_equation(pde.written(pde.centres), grid)
    state = torch.zeros(len(pde.rhs), 1, 64, dtype=torch.float64)
    state[0] = 0.3
    z, z0 = eq.init(state + torch.stack([wave, 0 * wave][: len(pde.rhs)])), eq.init(state)
    rate = ((eq.tendency(z) - eq.tendency(z0))[-1] / (z - z0)[0])[1, 0]
    scale = (pde.t_f / 2) ** len(pde.rhs)
    assert rate.item() == pytest.approx(scale * physical(name), rel=2e-3)


def test_twenty_families_that_tokens_can_say():
    assert len(PDES) == 20
    for pde in PDES.values():
        params = pde.sample(30, generator())
        for i in range(30):
            values = {name: float(v[i]) for name, v in params.items()}
            assert all(abs(values[n] / c - 1) < 0.106 for n, c in pde.centres.items())
            written = pde.written(values)
            assert read(write(written), ("u_0", "u_1")) == written, pde.name
    assert set(PDES["porous_medium"].sample(50, generator())["m"].tolist()) == {2, 3, 4}


def test_porous_medium_and_fokker_planck_by_hand():
    grid = Grid(256, 1, Lx=2.0)
    x = grid.x[0].numpy()
    u = torch.exp(torch.sin(math.pi * grid.x))[None]
    cubed = np.exp(3 * np.sin(math.pi * x)) * (
        (3 * math.pi * np.cos(math.pi * x)) ** 2 - 3 * math.pi**2 * np.sin(math.pi * x)
    )
    eq = as_equation(PDES["porous_medium"].written({"m": 3.0}), grid)
    np.testing.assert_allclose(eq.read(eq.tendency(eq.init(u)))[0, 0], 0.05 * cubed, atol=1e-8)
    eq = as_equation(PDES["fokker_planck"].written({"d": 0.11, "a": 1.25}), grid)
    balance = torch.exp(-1.25 / 9.42 / 0.11 * torch.cos(9.42 * grid.x))[None]
    still = eq.read(eq.tendency(eq.init(balance)))[0, 0, 20:-20]
    assert still.abs().max() < 0.1 * 0.11 * 9.42**2  # far from the seam, where the wave is cut
    assert still.abs().mean() < 0.01 * 0.11 * 9.42**2


def test_steppers_take_decoded_equations():
    eq = as_equation((parse("u_1"), parse("0.0625*lap(u_0)")))
    u = torch.stack([torch.cos(math.pi * eq.grid.x), 0 * eq.grid.x])
    step = etdrk4(eq, 0.1)
    state = step.init(u)
    for _ in range(20):
        state = step(state)
    torch.testing.assert_close(step.read(state)[0], math.cos(0.25 * math.pi * 2) * u[0], atol=1e-12, rtol=0)
    eq = as_equation((-0.5 * dx(parse("u_0")),))
    step = rk4(eq, 0.01)
    state = step.init(u[:1])
    for _ in range(100):
        state = step(state)
    torch.testing.assert_close(step.read(state)[0], torch.sin(math.pi * eq.grid.x), atol=1e-7, rtol=0)


def test_refusals_of_equations():
    with pytest.raises(ValueError, match="parameters \\['d'\\] have no values"):
        as_equation(PDES["heat"].rhs)
    with pytest.raises(ValueError, match="unknown fields"):
        as_equation((lap(parse("u_1")),))
    with pytest.raises(ValueError, match="without values"):
        PDES["heat"].solver(
            (Param("q") * lap(parse("u_0")),), {}, torch.zeros(1, 1, 128), torch.tensor([0.0, 1.0]), 128, 2.0
        )


def test_initial_states_are_in_range_and_do_not_depend_on_the_mesh():
    for pde in PDES.values():
        u = pde.initial(50, generator())[:, 0]
        low, high = pde.states
        assert low - 1e-3 < u.min() < low + 0.02
        assert high - 0.02 < u.max() < high + 1e-3
    coarse, fine = (torch.arange(n, dtype=torch.float64) * 2 / n for n in (64, 256))
    for shape in (waves(4), gaussian_process()):
        a, b = (scaled(shape, 0.0, 1.0)(5, 2.0, generator(1))(x) for x in (coarse, fine))
        torch.testing.assert_close(a, b[:, ::4])


def test_gaussian_process_has_its_covariance():
    x = torch.tensor([0.0, 0.2, 0.4, 2.0], dtype=torch.float64)
    u = gaussian_process(0.2)(20000, 2.0, generator())(x)
    torch.testing.assert_close(u[:, 0], u[:, 3])
    found = (u[:, :3].T @ u[:, :1] / u[:, :1].square().sum())[:, 0]
    # the mean is left out, which is a known part of the variance
    k = math.pi * torch.arange(1, 30, dtype=torch.float64)
    weight = torch.exp(-((0.2 * k) ** 2) / 2)
    expected = (weight * torch.cos(k * x[:3, None])).sum(-1) / weight.sum()
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
