import math

import pytest
import torch

from sciml.equation.expression import parse
from sciml.prose.field_fit import expanded, fit_fields, project
from sciml.prose.partial import PDES
from sciml.prose.solvers import fitting
from sciml.prose.trajectories import with_noise
from sciml.prose.wiener import last_state, noise_level, rate, wiener

T = torch.linspace(0, 1, 32, dtype=torch.float64)
X = (torch.arange(128, dtype=torch.float64) + 0.5) / 64
TRUE = {
    "heat": ({"d": 3.1e-3}, 0.5 + 0.3 * torch.sin(4 * math.pi * X) + 0.2 * torch.cos(6 * math.pi * X)),
    "advection": ({"b": 0.52}, 0.5 + 0.5 * torch.sin(2 * math.pi * X)),
    "burgers": ({"e": 0.0094, "c": 0.47}, 0.5 + 0.5 * torch.sin(3 * math.pi * X)),
    "kdv": ({"d": 2.3e-4}, 0.25 + 0.25 * torch.sin(2 * math.pi * X + 1)),
    "inviscid_burgers": ({"c": 0.53}, 0.5 + 0.3 * torch.sin(2 * math.pi * X + 1)),
    "wave": ({"s": 0.06}, 0.5 + 0.5 * torch.sin(2 * math.pi * X)),
}


def noisy(u, level=0.02, seed=0):
    return with_noise(u, level, torch.Generator().manual_seed(seed))


def solution(name, times=T):
    """The field from its state at rest, on a finer mesh than any that is fitted on."""
    pde, (values, u) = PDES[name], TRUE[name]
    rhs = pde.written(values)
    solver = fitting(rhs)
    start = torch.zeros(1, len(rhs), 128 * 4, dtype=torch.float64)
    start[:, 0] = expanded(project(u[None], 8), solver.mesh(128, 2.0).x[0], 2.0)
    return solver(rhs, {}, start, times, 128, 2.0)[:, :, 0]


# -- states ----------------------------------------------------------------------------------------------------------
def test_coefficients_are_those_of_the_points():
    u = torch.stack([0.3 + torch.cos(math.pi * X), torch.sin(3 * math.pi * X)])
    a = project(u, 3)
    expected = torch.zeros(2, 7, dtype=torch.float64)
    expected[0, 0], expected[0, 1], expected[1, 6] = 0.3, 1, 1
    torch.testing.assert_close(a, expected, atol=1e-14, rtol=0)
    fine = torch.linspace(0, 2, 33, dtype=torch.float64)
    torch.testing.assert_close(expanded(a, fine, 2.0)[1], torch.sin(3 * math.pi * fine), atol=1e-13, rtol=0)


def test_level_of_noise_also_beside_a_shock():
    u = solution("inviscid_burgers").repeat(40, 1, 1)
    size = float(u[0].square().mean().sqrt())
    for level in (0.005, 0.05):
        found = noise_level(noisy(u, level))
        assert found.shape == (40, 1, 1)
        assert float(found.mean()) == pytest.approx(level * size, rel=0.2)


def test_wiener_filter_lessens_noise_and_keeps_fronts():
    for name, gain in (("advection", 0.3), ("inviscid_burgers", 0.95)):
        u = solution(name)
        seen = noisy(u, 0.05)
        before, after = ((v[:, -1] - u[:, -1]).norm() for v in (seen, wiener(seen)))
        assert after < gain * before
    assert (wiener(u) - u).abs().max() < 1e-3, "nothing is taken from a field without noise"


def test_rates_are_exact_for_cubics_and_fill_the_second_field():
    u = (T**3 - 2 * T)[None, :, None].expand(1, -1, 128)
    assert rate(T, u, -1)[0, 0].item() == pytest.approx(1.0)
    assert rate(T, u, 0)[0, 0].item() == pytest.approx(-2.0)
    state = last_state(T, u, 2)
    assert state.shape == (1, 2, 128)
    assert state[0, :, 5].tolist() == pytest.approx([-1.0, 1.0])


# -- fits ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TRUE)
def test_constants_and_forecasts_from_two_percent_noise(name):
    values, _ = TRUE[name]
    u = solution(name, torch.linspace(0, 2, 63, dtype=torch.float64))
    start = {n: 1.06 * v for n, v in values.items()}
    fit = fit_fields(PDES[name].rhs, start, T, noisy(u[:, :32]))
    for n, c, std in zip(fit.names, fit.constants[0].tolist(), fit.std[0].tolist(), strict=True):
        assert c == pytest.approx(values[n], rel=0.01)
        assert abs(c - values[n]) < 4 * std
    assert 0.9 < float(fit.misfit) < 1.25
    forecast = fit.predict(torch.linspace(0, 2, 63, dtype=torch.float64))[:, 32:, 0]
    assert float((forecast - u[:, 32:]).norm() / u[:, 32:].norm()) < 0.01


def test_windows_of_one_structure_are_fitted_together_each_by_itself():
    u = noisy(solution("advection"))
    both = torch.cat([u, solution("heat")])
    rhs = (parse("d*lap(u_0) - b*dx(u_0)", ("d", "b")),)
    start = {"d": torch.tensor([1e-3, 3e-3]), "b": torch.tensor([0.5, 0.1])}
    fit = fit_fields(rhs, start, T, both)
    alone = fit_fields(rhs, {"d": 1e-3, "b": 0.5}, T, both[:1])
    torch.testing.assert_close(fit.constants[:1], alone.constants, rtol=0.02, atol=2e-5)
    torch.testing.assert_close(fit.constants[1], torch.tensor([3.1e-3, 0.0]).double(), rtol=1e-3, atol=1e-4)
    assert str(fit.written(1)[0]).count("u_0") == 2


def test_a_wrong_structure_does_not_fit_and_a_prior_holds_what_data_do_not_say():
    u = noisy(solution("burgers"))
    assert float(fit_fields((parse("-b*dx(u_0)", ("b",)),), {"b": 0.5}, T, u).misfit) > 3
    rhs = (parse("-b*dx(u_0) + a*dx(u_0)*u_0**3*0", ("b", "a")) + parse("a*lap(lap(lap(u_0)))", ("a",)),)
    fit = fit_fields(rhs, {"b": 0.5, "a": 1e-12}, T, noisy(solution("advection")), prior=0.1)
    assert float(fit.constants[0, 1]) == pytest.approx(1e-12, rel=1e-3)
    assert float(fit.constants[0, 0]) == pytest.approx(0.52, rel=0.01)


def test_no_constants_leave_the_state_to_be_fitted():
    u = solution("heat")
    fit = fit_fields(PDES["heat"].written(TRUE["heat"][0]), {}, T, noisy(u))
    assert fit.constants.shape == (1, 0)
    assert float((fit.predict(T)[:, :, 0] - u).norm() / u.norm()) < 0.004


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=torch.full((1, 32, 128), torch.nan)), "not finite everywhere"),
        (dict(u=torch.ones(1, 31, 128)), r"shape \(B, 32, points\) for 32 times"),
        (dict(u=torch.ones(32, 128)), "shape"),
        (dict(u=torch.ones(1, 32, 8)), "points >= 16"),
        (dict(t=T**2), "evenly spaced"),
        (dict(start={}), r"\['b'\] without values"),
        (dict(start={"b": math.nan}), r"start values of \['b'\] are not finite"),
        (dict(start={"b": 1.0, "c": 1.0}), r"no constants \['c'\]"),
        (dict(rhs=PDES["wave"].rhs[1:], start={"s": 1.0, "b": 1.0}), r"no constants \['b'\]"),
    ],
)
def test_bad_windows_and_constants_are_refused(change, message):
    arguments = dict(rhs=PDES["advection"].rhs, start={"b": 0.5}, t=T, u=torch.ones(1, 32, 128)) | change
    with pytest.raises(ValueError, match=message):
        fit_fields(**arguments)
