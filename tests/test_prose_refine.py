"""Fits of constants and initial states: exact recovery, scipy's answers, statistics over noise, ranking."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from sciml.equation.expression import Number, Param, parse
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.rank import fit_each, information, pruned, rank
from sciml.prose.refine import fit, freed
from sciml.prose.shooting import levenberg_marquardt
from sciml.prose.smoothing import smoothed, weak_form

LORENZ = {"s": 10.2, "r": 27.1, "b": 2.63}
SPIRAL = tuple(parse(e, ("a", "w")) for e in ("w*u_1 - a*u_0", "-w*u_0 - a*u_1"))
FAST = dict(segments=4, substeps=2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def times(end: float, n: int) -> torch.Tensor:
    return torch.linspace(0, end, n, dtype=torch.float64)


def reference(f, u0, t) -> torch.Tensor:
    """A trajectory ``(n, D)`` by scipy's DOP853."""
    solution = solve_ivp(lambda _, u: f(u), (t[0], t[-1]), u0, "DOP853", t, rtol=1e-11, atol=1e-11)
    return torch.from_numpy(solution.y.T.copy())


def lorenz(u, s=10.2, r=27.1, b=2.63):
    return np.array([s * (u[1] - u[0]), r * u[0] - u[0] * u[2] - u[1], u[0] * u[1] - b * u[2]])


def spiral(t: torch.Tensor, a: float = 0.3, w: float = 2.0, u0=(1.5, -0.5)) -> torch.Tensor:
    """The exact solution of u' = (-a u + w v), v' = (-w u - a v)."""
    c, s = torch.cos(w * t), torch.sin(w * t)
    return torch.exp(-a * t)[:, None] * torch.stack((u0[0] * c + u0[1] * s, u0[1] * c - u0[0] * s), 1)


# -- freed -----------------------------------------------------------------------------------------------------------
def test_numbers_that_are_not_small_integers_are_freed_and_equal_ones_stay_equal():
    free, start = freed((parse("0.17*u_1 - 3*u_0**2 + 12*u_0"), parse("-0.17*u_0 + sin(0.5*u_1) + u_0**0.5")))
    names = {v: k for k, v in start.items()}
    assert set(names) == {12.0, 0.17, 0.5}
    assert free[0] == parse(f"{names[0.17]}*u_1 - 3*u_0**2 + {names[12.0]}*u_0", tuple(start))
    assert free[1] == parse(f"-{names[0.17]}*u_0 + sin({names[0.5]}*u_1) + u_0**0.5", tuple(start))


def test_parameters_are_freed_under_new_names_with_their_values():
    free, start = freed(SPIRAL, {"a": 0.3})
    assert list(start) == ["c00", "c01"]
    assert sorted(start.values(), key=math.isnan)[0] == 0.3
    assert sum(math.isnan(v) for v in start.values()) == 1
    assert freed(free, start)[0] == free


# -- smoothing -------------------------------------------------------------------------------------------------------
def test_smoothing_finds_the_curve_and_the_noise():
    t = times(2, 64)
    clean = torch.stack((torch.sin(3 * t), torch.exp(-t)), 1)
    noise = 0.03 * torch.randn(60, 64, 2, generator=generator(), dtype=torch.float64)
    smooth, sigma = smoothed(t, clean + noise)
    assert float(sigma.mean()) == pytest.approx(0.03, rel=0.03)
    assert float((smooth - clean).square().mean().sqrt()) < 0.4 * 0.03
    torch.testing.assert_close(smoothed(t, (1 + t - t**2)[:, None])[0][:, 0], 1 + t - t**2, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("uneven", "tolerance"), [(0.0, 3e-4), (0.005, 3e-3)])
def test_the_weak_form_holds_for_smooth_curves(uneven, tolerance):
    t = times(2, 64) + uneven * torch.sin(9 * times(2, 64))
    w, v = weak_form(t)
    rates = w @ (3 * torch.cos(3 * t))
    assert float((v @ torch.sin(3 * t) - rates).abs().max()) < tolerance * float(rates.abs().max())


def test_levenberg_marquardt_agrees_with_scipy_on_rosenbrock():
    def residuals(x):
        r = torch.stack((10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0], x[:, 0] - 0.5), 1)
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        rows = [torch.stack(row, 1) for row in ((-20 * x[:, 0], 10 * one), (-one, zero), (one, zero))]
        return r, torch.stack(rows, 1)

    starts = torch.tensor([[-1.2, 1.0], [3.0, -2.0]], dtype=torch.float64)
    mine = levenberg_marquardt(residuals, starts, 60)
    for start, x in zip(starts, mine, strict=True):
        f = lambda x: [10 * (x[1] - x[0] ** 2), 1 - x[0], x[0] - 0.5]  # noqa: E731
        np.testing.assert_allclose(x.numpy(), least_squares(f, start.numpy(), xtol=1e-12).x, rtol=1e-5)


# -- fit -------------------------------------------------------------------------------------------------------------
def test_clean_windows_give_back_constants_and_states_to_six_digits():
    t, states = times(1.2, 40), ([1.0, -1.5, 0.7], [-2.0, 1.0, 1.9])
    u = torch.stack([reference(lorenz, s, t.numpy()) for s in states])
    rhs = SYSTEMS["lorenz63"].rhs
    fitted = fit(rhs, {"s": 9.2, "r": 29.0, "b": math.nan}, t, u, substeps=12, generator=generator())
    want = torch.tensor([list(LORENZ.values())] * 2, dtype=torch.float64)
    torch.testing.assert_close(fitted.constants, want, rtol=1e-6, atol=0)
    torch.testing.assert_close(fitted.initial, u[:, 0], rtol=0, atol=1e-6)
    later = times(3, 96)
    want = torch.stack([reference(lorenz, s, later.numpy()) for s in states])
    torch.testing.assert_close(fitted.predict(later)[0], want, rtol=0, atol=1e-4)


def test_constants_inside_a_sine_are_found_without_start_values():
    rhs = (parse("a*sin(b*u_1)", ("a", "b")), Number(1.0))
    t, a, b = times(3, 60), 1.3, 2.2
    u = torch.stack((0.4 + a / b * (1 - torch.cos(b * t)), t), 1)
    start = {"a": math.nan, "b": math.nan}
    found = fit(rhs, start, t, u[None], generator=generator(), **FAST).constants[0].abs()
    torch.testing.assert_close(found, torch.tensor([a, b], dtype=torch.float64), rtol=1e-6, atol=0)


def test_segments_do_not_change_the_answer():
    t = times(2, 31)
    u = spiral(t) + 0.02 * torch.randn(3, 31, 2, generator=generator(), dtype=torch.float64)
    start = {"a": 0.25, "w": 2.2}
    one, many = (fit(SPIRAL, start, t, u, sigma=0.02, segments=s, substeps=2) for s in (1, 5))
    torch.testing.assert_close(one.constants, many.constants, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(one.covariance, many.covariance, rtol=1e-3, atol=1e-9)


def test_covariance_and_chi_square_are_those_of_many_noisy_windows():
    n, sigma, t = 400, 0.05, times(2, 40)
    u = spiral(t) + sigma * torch.randn(n, 40, 2, generator=generator(1), dtype=torch.float64)
    fitted = fit(SPIRAL, {"a": 0.3, "w": 2.0}, t, u, sigma=sigma, **FAST)
    estimates = torch.cat((fitted.constants, fitted.initial), 1)
    mean = fitted.covariance.mean(0)
    size = mean.diagonal().sqrt()
    torch.testing.assert_close(estimates.T.cov() / size / size[:, None], mean / size / size[:, None], atol=0.2, rtol=0)
    truth = torch.tensor([0.3, 2.0, 1.5, -0.5], dtype=torch.float64)
    assert bool(((estimates.mean(0) - truth).abs() < 4 * size / n**0.5 + 1e-3).all())
    assert float(fitted.reduced.mean()) == pytest.approx(1, abs=0.03)


def test_the_spread_of_predictions_is_the_error_that_they_make():
    t, later, sigma = times(2, 40), times(5, 26), 0.05
    u = spiral(t) + sigma * torch.randn(100, 40, 2, generator=generator(2), dtype=torch.float64)
    fitted = fit(SPIRAL, {"a": 0.3, "w": 2.0}, t, u, sigma=sigma, **FAST)
    mean, spread = fitted.predict(later, 200, generator())
    error = (mean - spiral(later)).square().mean().sqrt()
    assert float(error / spread.square().mean().sqrt()) == pytest.approx(1, abs=0.15)
    assert float(fitted.predict(later)[1].max()) == 0


def test_the_noise_is_estimated_where_it_is_not_given():
    t = times(2, 64)
    u = spiral(t) + 0.04 * torch.randn(50, 64, 2, generator=generator(3), dtype=torch.float64)
    fitted = fit(SPIRAL, {"a": 0.3, "w": 2.0}, t, u, **FAST)
    assert float(fitted.sigma.mean()) == pytest.approx(0.04, rel=0.03)
    assert float(fitted.reduced.mean()) == pytest.approx(1, abs=0.2)
    wrong = fit((parse("a*u_0", ("a",)), parse("b*u_1", ("b",))), {"a": -0.3, "b": -0.3}, t, u, **FAST)
    assert float(wrong.reduced.min()) > 10


def test_a_prior_decides_where_the_data_say_nothing():
    rhs = (parse("a*u_0 + b*u_1", ("a", "b")), parse("-u_1"))
    t = times(2, 40)
    u = torch.stack((torch.exp(-0.5 * t), 0 * t), 1)[None]
    fitted = fit(rhs, {"a": -0.6, "b": 3.0}, t, u, sigma=0.01, prior=0.2, **FAST)
    a, b = fitted.constants[0]
    assert float(a) == pytest.approx(-0.5, abs=0.01)
    assert float(b) == pytest.approx(3, abs=0.1)
    assert float(fitted.covariance[0, 1, 1].sqrt()) == pytest.approx(0.6, rel=0.1)


def test_multiple_shooting_follows_lorenz_over_six_time_units():
    t = times(6, 192)
    clean = reference(lorenz, [1.0, -1.5, 0.7], t.numpy())
    sigma = 0.02 * float(clean.square().mean().sqrt())
    u = clean + sigma * torch.randn(clean.shape, generator=generator(4), dtype=torch.float64)
    start = {"s": 11.0, "r": 25.0, "b": 2.4}
    fitted = fit(SYSTEMS["lorenz63"].rhs, start, t, u[None], sigma=sigma, segments=24)
    spread = fitted.covariance[0].diagonal()[:3].sqrt()
    error = fitted.constants[0] - torch.tensor(list(LORENZ.values()), dtype=torch.float64)
    assert bool((error.abs() < 4 * spread).all())
    assert float(fitted.reduced) == pytest.approx(1, abs=0.15)
    assert float((fitted.predict(t)[0][0] - clean).norm() / clean.norm()) < 0.01


def test_the_initial_state_is_fitted_where_there_are_no_constants():
    rhs = (parse("u_1"), parse("-u_0"))
    t = times(2, 40)
    fitted = fit(rhs, {}, t, spiral(t, 0.0, 1.0)[None])
    torch.testing.assert_close(fitted.initial[0], torch.tensor([1.5, -0.5], dtype=torch.float64), rtol=1e-5, atol=0)
    assert fitted.written() == rhs


# -- rank ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def window():
    t = times(2, 64)
    noise = 0.02 * torch.randn(64, 2, generator=generator(5), dtype=torch.float64)
    return t, spiral(t) + noise


def candidate(first: str, second: str):
    return parse(first), parse(second)


TRUE = candidate("2.1*u_1 - 0.25*u_0", "-2.1*u_0 - 0.25*u_1")
EXTRA = candidate("2.1*u_1 - 0.25*u_0 + 0.1*u_0*u_1", "-2.1*u_0 - 0.25*u_1")
LACKING = candidate("2.1*u_1", "-2.1*u_0 - 0.25*u_1")


def test_the_true_structure_beats_one_with_a_term_more_and_one_with_a_term_less(window):
    ranked = rank((EXTRA, LACKING, TRUE), *window, sigma=0.02, **FAST)
    assert ranked.index == (2, 0, 1)
    assert [row["constants"] for row in ranked.table] == [2, 3, 2]
    assert ranked.best.written() == ranked.fits[0].written()
    assert float(ranked.fits[2].reduced) > 3 * float(ranked.best.reduced)


def test_pruning_removes_the_term_that_is_not_there_and_no_other(window):
    fitted = fit(*freed(EXTRA), window[0], window[1][None], sigma=0.02, **FAST)
    smaller = pruned(fitted, *window, level=3.0, **FAST)
    assert len(smaller.names) == 2
    assert str(smaller.written()[0]).count("u_") == 2
    assert float(information(smaller)) < float(information(fitted))
    assert pruned(smaller, *window, **FAST) is smaller


def test_a_candidate_that_blows_up_comes_last(window):
    explosive = candidate("50.5*u_0**3 + 80.5", "90.5*u_1**3")
    ranked = rank((explosive, TRUE), *window, sigma=0.02, iterations=3, **FAST)
    assert ranked.index == (1, 0)
    assert ranked.score[1] > 1e3
    assert float(ranked.fits[1].predict(window[0], 10, generator())[1].max()) > 0


def test_a_structure_that_blows_up_at_once_has_no_finite_misfit(window):
    rhs = (parse("exp(exp(40*u_0**2 + a))", ("a",)), parse("u_1"))
    fitted = fit(rhs, {"a": 90.0}, window[0], window[1][None], sigma=0.02, iterations=2, **FAST)
    assert float(information(fitted)) == math.inf
    assert float(fitted.predict(window[0], 8, generator())[1][:, -1, 0]) == math.inf


def test_windows_with_their_own_equations_are_fitted_as_each_alone(window):
    t, u = window
    many = fit_each(
        (EXTRA, TRUE, candidate("2*u_1 - 0.33*u_0", "-2*u_0 - 0.33*u_1"), TRUE), t, u.expand(4, -1, -1), **FAST
    )
    alone = fit(*freed(TRUE), t, u[None], **FAST)
    assert [len(f.names) for f in many] == [3, 2, 1, 2]
    for i in (1, 3):
        torch.testing.assert_close(many[i].constants, alone.constants, rtol=1e-6, atol=0)
        torch.testing.assert_close(many[i].predict(t)[0], alone.predict(t)[0], rtol=0, atol=1e-6)


# -- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=torch.full((1, 40, 2), torch.nan)), "finite"),
        (dict(u=torch.ones(1, 40, 3)), "need samples"),
        (dict(u=torch.ones(40, 2)), "need samples"),
        (dict(t=torch.ones(40)), "increasing"),
        (dict(start={"a": 0.3}), "no start value for w"),
        (dict(rhs=(Param("a"), parse("u_7"))), "u_7"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = dict(rhs=SPIRAL, start={"a": 0.3, "w": 2.0}, t=times(2, 40), u=spiral(times(2, 40))[None]) | change
    with pytest.raises(ValueError, match=message):
        fit(**given)


def test_no_candidates_and_times_before_the_window_are_refused(window):
    with pytest.raises(ValueError, match="no candidates"):
        rank((), *window, sigma=0.02)
    fitted = fit(*freed(TRUE), window[0], window[1][None], sigma=0.02, iterations=2, **FAST)
    with pytest.raises(ValueError, match="none before"):
        fitted.predict(torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("options", [{"sigma": -0.1}, {"substeps": 0}, {"n": 3}])
def test_fits_need_times_steps_and_a_noise(options):
    t = times(2, options.pop("n", 40))
    with pytest.raises(ValueError, match="a fit needs 8 times, substeps of 1 and more and no negative sigma"):
        fit(SPIRAL, {"a": 0.3, "w": 2.0}, t, spiral(t)[None], **options)
