"""Scores of forecasts and equations: against exact solutions, scipy, and what hand-made equations must score."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.equation.expression import Number, parse
from sciml.equation.tokens import skeleton, write
from sciml.prose.identify import best_fits, candidates
from sciml.prose.model import Written
from sciml.prose.ordinary import SENSITIVITY, SUBSTEPS, SYSTEMS
from sciml.prose.scoring import (
    coefficient_error,
    constant_mean,
    integrated,
    judge,
    limited,
    numbered,
    persistence,
    readable,
    relative_error,
    same_terms,
)  # fmt: skip
from sciml.prose.trajectories import integrate


def system(text: str):
    return tuple(parse(e) for e in text.split(";"))


SPIRAL = system("2*u_1 - 0.3*u_0; -2*u_0 - 0.3*u_1")


def spiral(t: torch.Tensor, u0=(1.5, -0.5)) -> torch.Tensor:
    """The exact solution of :data:`SPIRAL`."""
    c, s = torch.cos(2 * t), torch.sin(2 * t)
    return torch.exp(-0.3 * t)[:, None] * torch.stack((u0[0] * c + u0[1] * s, u0[1] * c - u0[0] * s), 1)


def times(end: float, n: int) -> torch.Tensor:
    return torch.linspace(0, end, n, dtype=torch.float64)


# -- forecasts -------------------------------------------------------------------------------------------------------
def test_relative_error_is_that_of_each_trajectory():
    truth = torch.tensor([[[3.0], [4.0]], [[0.0], [2.0]]])
    assert relative_error(truth + torch.tensor([[[0.0], [1.0]]]), truth).tolist() == pytest.approx([0.2, 0.5])
    assert relative_error(torch.zeros_like(truth), truth).tolist() == [1.0, 1.0]


def test_runs_that_blow_up_count_as_predicting_zero():
    errors = torch.tensor([0.2, 3.0, torch.inf, torch.nan], dtype=torch.float64)
    assert limited(errors).tolist() == [0.2, 1, 1, 1]


def test_baselines():
    window = torch.arange(12.0).view(1, 4, 3)
    assert persistence(window, 2).tolist() == [[[9, 10, 11], [9, 10, 11]]]
    assert constant_mean(window, 1).tolist() == [[[4.5, 5.5, 6.5]]]


def test_each_equation_runs_from_its_own_state():
    """Two of one structure, one of another, one that blows up, none: against exact solutions and scipy."""
    t = times(3, 61)
    faster, pendulum = system("3*u_1 - 0.3*u_0; -3*u_0 - 0.3*u_1"), system("u_1; -9.81*sin(u_0)")
    u0 = torch.tensor([[1.5, -0.5], [0.4, 0.1], [1.5, -0.5], [1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    equations = [SPIRAL, pendulum, faster, system("u_0**2; u_1"), None]
    found = integrated(equations, u0, t)
    torch.testing.assert_close(found[0], spiral(t), rtol=0, atol=1e-7)
    rhs = lambda _, u: [u[1], -9.81 * math.sin(u[0])]  # noqa: E731
    true = solve_ivp(rhs, (0, 3), [0.4, 0.1], "DOP853", t.numpy(), rtol=1e-10, atol=1e-12).y.T
    np.testing.assert_allclose(found[1].numpy(), true, atol=1e-6)
    phase = torch.exp(-0.3 * t)[:, None] * torch.stack((torch.cos(3 * t), -torch.sin(3 * t)), 1)
    shifted = 1.5 * phase - 0.5 * torch.stack((-phase[:, 1], phase[:, 0]), 1)
    torch.testing.assert_close(found[2], shifted, rtol=0, atol=1e-6)
    assert not found[3].isfinite().all()
    assert found[3, 0].isfinite().all()
    assert found[4].isnan().all()


# -- equations -------------------------------------------------------------------------------------------------------
def test_what_is_written_is_judged():
    truth = system("2.5*u_1; -u_0")
    exact = judge(write(truth), truth)
    assert exact.valid
    assert exact.error == 0
    doubled = judge(write(system("5*u_1; -2*u_0")), truth)
    assert doubled.error == pytest.approx(1, rel=1e-9)
    for tokens in (write(truth)[:-1], write(truth)[:4], skeleton(write(truth)), write(system("u_0; u_1; u_0"))):
        assert not judge(tokens, truth).valid
        assert math.isnan(judge(tokens, truth).error)
    assert readable(write(system("u_0**0.5; u_1")), 2) is None, "not a number where u_0 is negative"
    assert readable(write(system("u_0*u_1; u_2")), 2) is None


def test_terms_and_numbers_of_products_of_sums():
    e = parse("0.5*u_0*(u_1 - 3) + 8*cos(0.5*u_0) - u_1**3")
    forms = {str(k): v for k, v in numbered(e).items()}
    assert sorted(map(tuple, forms.values())) == [(-1.5,), (-1,), (0.5,), (8, 0.5)]
    assert numbered(parse("u_0*u_1 - 0.1*u_0")).keys() == numbered(parse("2*u_0*(u_1 + 7)")).keys()
    assert numbered(Number(0.0)) == {}


@pytest.mark.parametrize("name", SYSTEMS)
def test_numbers_do_not_change_the_terms(name):
    """Of any two equations of a family; a term too many or too few does."""
    generator = torch.Generator().manual_seed(1)
    family = SYSTEMS[name]
    drawn = family.sample(2, generator, 0.1)
    first, second = (family.written({n: float(v[i]) for n, v in drawn.items()}) for i in (0, 1))
    assert same_terms(second, first)
    assert same_terms(first, first)
    assert not same_terms((first[0] + parse("0.2*exp(u_0)"), *first[1:]), first)
    assert not same_terms((Number(0.0), *first[1:]), first)
    assert not same_terms(None, first)
    assert coefficient_error(first, first) == 0
    assert 0 < coefficient_error(second, first) < 0.25
    assert coefficient_error(None, first) == 1


def test_errors_of_coefficients():
    truth = system("2.5*u_1 + 4*u_0; u_0")
    assert coefficient_error(system("5*u_1 + 4.4*u_0; u_0"), truth) == pytest.approx((1 + 0.1 + 0) / 3)
    assert coefficient_error(system("2.5*u_1 + 0.1*u_0*u_1; u_0"), truth) == pytest.approx(1 / 3)
    assert coefficient_error(system("8*cos(0.55*u_0)"), system("8*cos(0.5*u_0)")) == pytest.approx(0.05)
    assert coefficient_error(system("-99*u_1 + 4*u_0; u_0"), truth) == pytest.approx(1 / 3), "at most 1 for each"


# -- candidates ------------------------------------------------------------------------------------------------------
def test_candidates_are_whole_and_different():
    texts = ["2*u_1 - 0.31*u_0; -u_0", "2*u_1 - 0.29*u_0; -u_0", "2*u_1; -u_0"]
    beams = [Written(write(system(s)), -0.1 * i) for i, s in enumerate(texts)]
    beams.insert(1, Written(["add", "u_0"], -0.05))
    assert candidates(beams, 2) == [system(texts[0]), system(texts[2])]
    assert candidates(beams, 3) == []


def test_the_best_candidate_of_each_window_is_fitted():
    """Windows with noise of an exact solution: of a wrong, a too long and the right structure the right one wins."""
    t, generator = times(2, 64), torch.Generator().manual_seed(3)
    clean = torch.stack([spiral(t), spiral(t, (0.5, 1.0)), spiral(t)])
    u = clean + 0.02 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    right = system("2.3*u_1 - 0.2*u_0; -2.3*u_0 - 0.2*u_1")
    long = (right[0] + parse("0.11*u_0*u_1"), right[1] + parse("0.12*u_0**2"))
    wrong = system("2.2*u_1; -u_0 - 1.5*u_1")
    found = best_fits([[wrong, long, right], [right], []], t, u, segments=4, substeps=2)
    assert found[2] is None
    for fit, u0 in zip(found, ((1.5, -0.5), (0.5, 1.0)), strict=False):
        assert fit is not None
        assert same_terms(fit.written(), SPIRAL)
        assert coefficient_error(fit.written(), SPIRAL) < 0.05
        assert float((fit.predict(times(6, 40))[0][0] - spiral(times(6, 40), u0)).abs().max()) < 0.05
        assert fit.sigma.item() == pytest.approx(0.02, rel=0.3)


# -- sensitivity -----------------------------------------------------------------------------------------------------
def test_sensitivity_is_that_of_the_families():
    assert list(SENSITIVITY) == list(SYSTEMS)
    assert SENSITIVITY["lorenz63"].exponent == pytest.approx(0.9056, abs=0.01), "Sprott (2003), table A.1"
    assert {n for n, s in SENSITIVITY.items() if not s.chaotic} >= {"thomas", "aizawa", "four_wing"}


@pytest.mark.parametrize("name", ["four_wing", "rossler", "lorenz96_4"])
def test_growth_of_small_errors(name):
    """Of runs from other states than those of the table."""
    family, generator = SYSTEMS[name], torch.Generator().manual_seed(9)
    rhs = family.written(dict(family.centres))
    u0 = 4 * torch.rand(30, len(rhs), generator=generator, dtype=torch.float64) - 2
    error = torch.randn(u0.shape, generator=generator, dtype=torch.float64)
    error = 1e-7 * error / error.norm(dim=1, keepdim=True)
    runs = integrate(rhs, {}, torch.stack((u0, u0 + error)), times(6, 96), max(4, SUBSTEPS.get(name, 8) // 2))
    growth = (runs[1] - runs[0]).norm(dim=-1)[:, 32:].amax(1).median() / 1e-7
    assert 0.5 < float(growth) / SENSITIVITY[name].growth < 2
