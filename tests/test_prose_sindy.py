"""SINDy on windows: recovery from clean data, libraries, differentiation, refusals."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.equation.expression import Number, parse, parts
from sciml.prose import sindy as baseline
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.sindy import (
    finite_difference,
    generic,
    polynomials,
    sindy,
    spline,
    support_of,
    terms_of,
    values,
    weak,
    written,
)
from sciml.prose.trajectories import integrate

METHODS = {"finite difference": finite_difference, "spline": spline, "weak": weak(8)}


def times(end: float, n: int) -> torch.Tensor:
    return torch.linspace(0, end, n, dtype=torch.float64)


@pytest.fixture(scope="module")
def lorenz() -> tuple[torch.Tensor, torch.Tensor]:
    """A clean trajectory by scipy."""
    t = times(4, 401)
    f = lambda _, u: [10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 2.7 * u[2]]  # noqa: E731
    solution = solve_ivp(f, (0, 4), [-2.0, 1.5, 20.0], "DOP853", t.numpy(), rtol=1e-10, atol=1e-10)
    return t, torch.from_numpy(solution.y.T.copy())


def coefficients(rhs, library) -> dict[str, float]:
    """Numbers of the library's terms in a right-hand side, by text."""
    state = torch.rand(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = values(library, 3)(state)
    target = values((rhs,), 3)(state)
    return dict(zip(map(str, library), torch.linalg.lstsq(columns, target).solution[:, 0].tolist(), strict=True))


def test_libraries_hold_each_function_once():
    assert len(polynomials(3)) == math.comb(6, 3)
    assert len(set(generic(3))) == len(generic(3)) == 26
    assert {str(e) for e in polynomials(2, 2)} == {"1", "u_0", "u_1", "u_0**2", "u_0*u_1", "u_1**2"}


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_the_terms_of_each_family_span_its_right_hand_sides(name):
    system = SYSTEMS[name]
    rhs = system.written(system.centres)
    state = torch.rand(80, len(rhs), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns, target = values(terms_of(rhs), len(rhs))(state), values(rhs, len(rhs))(state)
    residual = columns @ torch.linalg.lstsq(columns, target, driver="gelsd").solution - target
    assert float(residual.abs().max()) < 1e-9


def test_terms_carry_no_factors():
    terms = terms_of((parse("2*a*u_0*(b - u_1)", ("a", "b")), parse("3.5 + sin(2*u_1)")))
    assert set(terms) == {parse("u_0"), parse("u_0*u_1"), Number(1.0), parse("sin(2*u_1)")}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_differentiation_gives_rates(method):
    t = times(2, 201)
    states, w, target = method(t, torch.stack((torch.sin(2 * t), t), 1))
    rates = torch.stack((2 * torch.cos(2 * t), torch.ones_like(t)), 1)
    scale = w.sum(1, keepdim=True)
    assert float(((target - w @ rates) / scale)[8:-8].abs().max()) < 5e-3
    assert float((states[8:-8, 0] - torch.sin(2 * t)[8:-8]).abs().max()) < 1e-4


def test_clean_data_give_back_the_equations(lorenz):
    library = polynomials(3, 2)
    rhs, start = sindy(*lorenz, library, methods=(weak(8),), thresholds=(0.3,))
    wanted = {"u_0": 28.0, "u_0*u_2": -1.0, "u_1": -1.0}
    for term, value in coefficients(rhs[1], library).items():
        assert value == pytest.approx(wanted.get(term, 0.0), abs=0.05)
    assert [len(parts(e, "add")) for e in rhs] == [2, 3, 2]
    torch.testing.assert_close(start, lorenz[1][0], rtol=1e-2, atol=0)


def test_noise_is_borne_with_the_right_terms(lorenz):
    t, clean = lorenz
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    system = SYSTEMS["lorenz63"]
    rhs, start = sindy(t[:201], (clean + 0.05 * noise)[:201], terms_of(system.written(system.centres)))
    u = integrate(rhs, {}, start, t[:201])
    assert float((u - clean[:201]).norm() / clean[:201].norm()) < 0.1


def test_each_equation_keeps_to_its_own_terms(lorenz):
    system = SYSTEMS["lorenz63"]
    rhs = system.written(system.centres)
    terms = terms_of(rhs)
    support = support_of(rhs, terms)
    found, _ = sindy(*lorenz, terms, support=support, methods=(spline,), thresholds=(0.01,))
    assert support.sum(0).tolist() == [2, 3, 2]
    assert torch.equal(support_of(found, terms), support)
    own = coefficients(found[2], terms)
    assert own["u_2"] == pytest.approx(-2.7, rel=0.01)


def test_the_score_prefers_the_model_that_fits_with_fewer_terms():
    t, terms = times(1, 30), polynomials(1, 1)
    u = torch.exp(-t)[:, None]
    models = torch.tensor([[[0.0], [-1.0]], [[1e-9], [-1.0]], [[0.0], [-2.0]], [[0.0], [900.0]]], dtype=torch.float64)
    score = baseline._score(terms, models, t, u, u[0], torch.tensor([0.01], dtype=torch.float64), 4)
    assert score.argsort().tolist()[:3] == [0, 1, 2]
    assert float(score[1] - score[0]) == pytest.approx(math.log(30), abs=1e-3)
    assert str(written(terms, models[0])[0]) == "-u_0"


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match="finite samples"):
        sindy(times(1, 20), torch.full((20, 2), torch.nan), polynomials(2))
    with pytest.raises(ValueError, match="one window"):
        sindy(times(1, 20), torch.ones(5, 20, 2), polynomials(2))
