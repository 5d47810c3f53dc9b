import math

import pytest
import torch

from sciml.equation.expression import parse
from sciml.equation.tokens import write
from sciml.prose.field_scores import difference, forecast, lifted, random_fields, right_sides, structures, valid
from sciml.prose.partial import PDES
from sciml.prose.solvers import finite_volume, spectral
from sciml.prose.weak_pde import weak_sindy

X = (torch.arange(128, dtype=torch.float64) + 0.5) / 64
T = torch.linspace(0, 1, 32, dtype=torch.float64)
PROBES = {d: random_fields(4, d, 128, torch.Generator().manual_seed(0)) for d in (1, 2)}


def rhs(text):
    return tuple(parse(e) for e in text.split(";"))


# -- right-hand sides ------------------------------------------------------------------------------------------------
def test_right_sides_are_derivatives():
    u = torch.stack([torch.sin(math.pi * X), torch.cos(2 * math.pi * X)])[None]
    found = right_sides(rhs("u_1; dx(u_0**2) - 2*lap(u_1) + x"), u)
    expected = math.pi * torch.sin(2 * math.pi * X) + 8 * math.pi**2 * u[0, 1]
    torch.testing.assert_close(found[0, 0], u[0, 1])
    low = slice(2, 30)  # the coordinate jumps at the end of the box
    spectra = [torch.fft.rfft(f)[low] for f in (found[0, 1] - right_sides(rhs("u_1;x"), u)[0, 1], expected)]
    torch.testing.assert_close(spectra[0], spectra[1], atol=1e-9, rtol=0)


def test_difference_is_that_of_the_worst_right_hand_side():
    assert difference(rhs("0.55*dx(u_0)"), rhs("0.5*dx(u_0)"), PROBES[1]) == pytest.approx(0.1)
    assert difference(rhs("u_1; 0.4*lap(u_0)"), rhs("u_1; 0.5*lap(u_0)"), PROBES[2]) == pytest.approx(0.2)
    assert difference(rhs("0"), rhs("u_0"), PROBES[1]) == 1.0


def test_random_fields_are_smooth_and_between_one_and_minus_one():
    u = random_fields(6, 2, 128, torch.Generator().manual_seed(1))
    assert u.shape == (6, 2, 128)
    assert 0.95 < float(u.amax()) <= 1.0
    power = torch.fft.rfft(u).abs().square().sum((0, 1))
    assert float(power[25:].sum()) < 1e-6 * float(power.sum())


@pytest.mark.parametrize("name", PDES)
def test_equations_of_all_families_are_valid(name):
    pde = PDES[name]
    system = pde.written(pde.centres | {n: v[0] for n, v in pde.choices.items()})
    found = valid(write(system), len(system), PROBES[len(system)])
    assert found is not None
    assert difference(found, system, PROBES[len(system)]) < 0.01, "numbers of three digits"


@pytest.mark.parametrize(
    "tokens",
    [
        "mul ? u_0", "mul 2", "", "u_1", "u_0 | u_0", "pow u_0 + N250 E-3", "inv 0", "exp exp exp mul 10 u_0 u_0",
        "mul t u_0",
    ],
)  # fmt: skip
def test_what_is_no_equation_is_not_valid(tokens):
    assert valid(tokens.split(), 1, PROBES[1]) is None


# -- forecasts -------------------------------------------------------------------------------------------------------
def test_forecasts_of_several_structures_against_exact_solutions():
    wave = 0.5 + 0.2 * torch.sin(2 * math.pi * X)
    systems = [rhs("-0.5*dx(u_0)"), None, rhs("0.003*lap(u_0)"), rhs("-0.4*dx(u_0)"), rhs("u_1; 0.0625*lap(u_0)")]
    states = [*[wave[None]] * 4, torch.stack([wave, 0 * X])]
    found = forecast(systems, states, 1 + T)

    def at(shift, size=1.0):
        return 0.5 + 0.2 * size * torch.sin(2 * math.pi * (X - shift))

    decay = math.exp(-0.003 * 4 * math.pi**2)
    stand = math.cos(0.25 * 2 * math.pi)
    for k, end in ((0, at(0.5)), (2, at(0.0, decay)), (3, at(0.4)), (4, at(0.0, stand))):
        torch.testing.assert_close(found[k, -1], end, atol=1e-6, rtol=0)
    assert found[1].isnan().all()
    assert len(structures(systems)) == 3


def test_one_without_a_solution_leaves_those_of_its_structure_as_they_are():
    state = (0.5 + 0.4 * torch.sin(math.pi * X))[None]
    steep, bounded = rhs("-1e5*dx(u_0**2)"), rhs("-0.5*dx(u_0**2)")
    times = T[:5] / 4
    both = forecast([steep, bounded], [state, state], times)
    assert both[0].isnan().all(), "it would take as many steps"
    torch.testing.assert_close(both[1:], forecast([bounded], [state], times))
    growing = forecast([rhs("9e3*u_0**3"), rhs("0.1*u_0**3")], [state, state], times)
    assert growing[0].isnan().all()
    assert growing[1].isfinite().all()
    assert forecast([rhs("u_0*pow(u_0, u_0 - u_0)")], [state], times).shape == (1, 5, 128)


@pytest.mark.parametrize("solver", [spectral(refine=4), finite_volume(refine=4)])
def test_lifted_states_are_the_same_functions(solver):
    u = torch.sin(3 * math.pi * X)[None, None]
    mesh = solver.mesh(128, 2.0).x[0]
    torch.testing.assert_close(lifted(u, solver)[0, 0], torch.sin(3 * math.pi * mesh), atol=1e-12, rtol=0)


# -- weak SINDy ------------------------------------------------------------------------------------------------------
def noise(scale):
    return scale * torch.randn(32, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_weak_sindy_finds_transport_and_diffusion():
    k = math.pi * torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64)
    waves = [torch.exp(-0.01 * q * q * T)[:, None] * torch.sin(q * (X - 0.5 * T[:, None]) + q) for q in k]
    clean = 0.5 + 0.2 * sum(waves)
    (found,) = weak_sindy(T, clean)
    assert difference((found,), rhs("0.01*lap(u_0) - 0.5*dx(u_0)"), clean[:, None]) < 1e-4
    (found,) = weak_sindy(T, clean + noise(0.001))
    assert difference((found,), rhs("0.01*lap(u_0) - 0.5*dx(u_0)"), clean[:, None]) < 0.1


def test_weak_sindy_of_second_order():
    u = sum(torch.cos(0.5 * q * T)[:, None] * torch.cos(q * X) / n for n, q in ((1, math.pi), (2, 3 * math.pi)))
    first, second = weak_sindy(T, u, order=2)
    assert str(first) == "u_1"
    assert difference((first, second), rhs("u_1; 0.25*lap(u_0)"), torch.stack([u, 0 * u], 1)) < 1e-3


@pytest.mark.parametrize("u", [torch.ones(20, 128), torch.full((32, 128), torch.nan), torch.ones(1, 32, 128)])
def test_weak_sindy_refuses(u):
    with pytest.raises(ValueError, match="finite frames"):
        weak_sindy(T[: len(u)] if u.ndim == 2 else T, u)


def test_weak_sindy_refuses_what_does_not_change():
    with pytest.raises(ValueError, match="the same everywhere"):
        weak_sindy(T, torch.full((len(T), 128), 3.0))
