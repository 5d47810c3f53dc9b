"""The fifteen families of PROSE against functions typed from the published table, and what they conserve."""

import numpy as np
import pytest
import torch
from numpy import cos, sin

from sciml.equation.expression import Apply, Number, Param, canonical, leaves, parse, to_text
from sciml.prose.compiled import compiled
from sciml.prose.ordinary import SYSTEMS, as_equation, lorenz96
from sciml.rollout import rollout
from sciml.step import STEPPERS


def lorenz_96(u, F):
    n = len(u)
    return [(u[(i + 1) % n] - u[(i - 2) % n]) * u[(i - 1) % n] - u[i] + F for i in range(n)]


def pendulum(u, a, b, c):
    p, q, v, w = u
    below = 3 - cos(2 * (p - q))
    first = a * sin(p) + b * sin(p - 2 * q) - 2 * sin(p - q) * (w**2 + v**2 * cos(p - q))
    return [v, w, first / below, sin(p - q) * (4 * v**2 + c * cos(p) + w**2 * cos(p - q)) / below]


TABLE = {
    "thomas": lambda x, y, z, b: [sin(y) - b * x, sin(z) - b * y, sin(x) - b * z],
    "lorenz63": lambda x, y, z, s, r, b: [s * (y - x), x * (r - z) - y, x * y - b * z],
    "aizawa": lambda x, y, z, a, b, c, d, f: [
        (z - b) * x - d * y, d * x + (z - b) * y, c + a * z - 0.333 * z**3 - x**2 + f * z * x**3
    ],
    "chen_lee": lambda x, y, z, a, d: [a * x - y * z, -10 * y + x * z, d * z + 0.333 * x * y],
    "dadras": lambda x, y, z, a, b, c, d, e: [
        y / 2 - a * x + b * y * z, c * y - x * z / 2 + z / 2, d * x * y - e * z
    ],
    "rossler": lambda x, y, z, a, b, c: [-y - z, x + a * y, b + z * (x - c)],
    "halvorsen": lambda x, y, z, a: [
        a * x - y - z - y**2 / 4, a * y - z - x - z**2 / 4, a * z - x - y - x**2 / 4
    ],
    "rabinovich_fabrikant": lambda x, y, z, a, g: [
        y * (z - 1 + x**2) + g * x, x * (3 * z + 1 - x**2) + g * y, a * z - 2 * x * y * z
    ],
    "sprott_b": lambda x, y, z, a, b, c: [a * y * z, x - b * y, c - x * y],
    "sprott_linz_f": lambda x, y, z, a: [y + z, -x + a * y, x**2 - z],
    "four_wing": lambda x, y, z, a, b, c: [a * x + y * z, b * x + c * y - x * z, -z - x * y],
    "duffing": lambda t, v, w, a, b, c, d, o: [1 + 0 * t, w, d * w + a * v + b * v**3 + c * cos(o * t)],
    "lorenz96_4": lambda *u, F: lorenz_96(u, F),
    "lorenz96_5": lambda *u, F: lorenz_96(u, F),
    "double_pendulum": lambda *u, a, b, c: pendulum(u, a, b, c),
}  # fmt: skip
CENTRES = {
    "thomas": [0.17], "lorenz63": [10, 28, 8 / 3], "aizawa": [0.95, 0.7, 0.6, 3.5, 0.1], "chen_lee": [5, -0.38],
    "dadras": [1.25, 1.15, 0.75, 0.8, 4], "rossler": [0.1, 0.1, 14], "halvorsen": [-0.35],
    "rabinovich_fabrikant": [-1.96, 0.1], "sprott_b": [0.4, 1.2, 1], "sprott_linz_f": [0.5],
    "four_wing": [0.2, 0.01, -0.4], "duffing": [-1, -5, 8, -0.02, 0.5], "lorenz96_4": [8], "lorenz96_5": [8],
    "double_pendulum": [9.81, 1],
}  # fmt: skip


def numbers(e):
    own = [e.value] if isinstance(e, Number) else []
    return own + [v for a in e.args for v in numbers(a)] if isinstance(e, Apply) else own


def test_the_families_are_those_of_the_table_in_its_order():
    assert list(SYSTEMS) == list(TABLE)
    assert {name: list(s.centres.values()) for name, s in SYSTEMS.items()} == CENTRES
    assert [len(s.rhs) for s in SYSTEMS.values()] == [3] * 12 + [4, 5, 4]
    assert {name: s.bound for name, s in SYSTEMS.items() if s.bound != 1e3} == {"rabinovich_fabrikant": 1e5}


@pytest.mark.parametrize("name", TABLE)
def test_right_hand_sides_are_those_of_the_table(name):
    system, generator = SYSTEMS[name], torch.Generator().manual_seed(1)
    params = system.sample(6, generator)
    u = 4 * torch.randn(6, len(system.rhs), generator=generator, dtype=torch.float64)
    expected = np.stack(TABLE[name](*u.T.numpy(), **{k: p.numpy() for k, p in params.items()}), -1)
    np.testing.assert_allclose(compiled(system.rhs)(u, params), expected, rtol=1e-12, atol=1e-12)
    written = system.written({k: float(p[2]) for k, p in params.items()})
    np.testing.assert_allclose(compiled(written)(u[2], {}), expected[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_written_equations_are_canonical_and_have_three_digits(name):
    system = SYSTEMS[name]
    params = system.sample(20, torch.Generator().manual_seed(2))
    for k in range(20):
        rhs = system.written({n: float(p[k]) for n, p in params.items()})
        assert not any(leaves(e, Param) for e in rhs)
        assert all(canonical(e) == e and parse(to_text(e)) == e for e in rhs)
        assert all(float(f"{v:.3g}") == v for e in rhs for v in numbers(e))


def test_parameters_stay_within_the_spread_and_fill_it():
    for name, system in SYSTEMS.items():
        for key, p in system.sample(2000, torch.Generator().manual_seed(3), spread=0.2).items():
            if name != "double_pendulum":
                relative = p / system.centres[key] - 1
                assert relative.abs().max() < 0.205
                assert relative.max() - relative.min() > 0.38
    ratio = SYSTEMS["double_pendulum"].sample(2000, torch.Generator().manual_seed(3))["b"] / -9.81
    assert 0.9 / 1.1 - 0.01 < ratio.min() < 0.87
    assert 1.13 < ratio.max() < 1.1 / 0.9 + 0.01


def run(rhs, u0, dt=0.004, steps=500):
    """States of the classical Runge-Kutta method, by way of the steppers that all equations share."""
    step = STEPPERS["rk4"](as_equation(rhs, "test"), dt)
    return rollout(step, steps, 50)(torch.tensor(u0, dtype=torch.float64)).fields


def test_double_pendulum_conserves_energy_but_for_one_factor_of_the_published_code():
    """Half of one term, ``w_2^2 cos(d) sin(d) / (3 - cos 2d)``, is missing there."""
    rhs = SYSTEMS["double_pendulum"].written({"a": -30.0, "b": -10.0, "c": 40.0})
    missing = parse("sin(u_0 - u_1)*cos(u_0 - u_1)*u_3**2*(3 - cos(2*u_0 - 2*u_1))**(-1)")

    def drift(rhs):
        p, q, v, w = run(rhs, [1.2, -0.7, 0.4, 1.0]).T
        energy = v**2 + w**2 / 2 + v * w * torch.cos(p - q) - 10 * (2 * torch.cos(p) + torch.cos(q))
        return float((energy - energy[0]).abs().max())

    assert drift((*rhs[:3], rhs[3] + missing)) < 1e-6
    assert drift(rhs) > 0.1


def test_duffing_without_damping_and_force_conserves_energy():
    rhs = SYSTEMS["duffing"].written({"a": -1.0, "b": -5.0, "c": 0.0, "d": 0.0, "o": 0.5})
    t, v, w = run(rhs, [0.0, 0.8, -0.3]).T
    energy = w**2 / 2 + v**2 / 2 + 5 * v**4 / 4
    assert float((energy / energy[0] - 1).abs().max()) < 1e-8
    assert float((t - t[0]).max()) == pytest.approx(2.0)


def test_terms_of_an_equation_add_up_to_its_tendency():
    rhs = SYSTEMS["aizawa"].written(SYSTEMS["aizawa"].centres)
    equation = as_equation(rhs, "aizawa")
    z = equation.init(torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64))
    assert len(equation.terms) == 3 + 3 + 5
    torch.testing.assert_close(sum(equation.by_term(z).values()), equation.tendency(z))
    torch.testing.assert_close((equation + as_equation(rhs, "again").terms).tendency(z), 2 * equation.tendency(z))


def test_what_is_no_equation_is_refused():
    with pytest.raises(ValueError, match=r"unknown fields \['u_2'\]"):
        as_equation((parse("u_1"), parse("u_0*u_2")), "two")
    with pytest.raises(ValueError, match="no coordinates"):
        as_equation((parse("u_0*t"),), "forced")
    with pytest.raises(ValueError, match=r"System\.written"):
        as_equation(SYSTEMS["thomas"].rhs, "thomas")
    with pytest.raises(ValueError, match="no right-hand sides"):
        as_equation((), "nothing")
    with pytest.raises(ValueError, match="at least 4"):
        lorenz96(3)
