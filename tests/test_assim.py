"""Analyses against the Kalman filter, the gain formula, the smoother, and each other."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import sciml as sm
from sciml import Grid
from sciml.assim.base import Covariance, Space, covariance, trajectory
from sciml.assim.cycle import cycle, tune
from sciml.assim.ensemble import (
    EnKF,
    combined,
    deterministic,
    finite_size,
    perturbed_observations,
    rotation,
    square_root,
)
from sciml.assim.local import LETKF, Memory, gaspari_cohn, refined
from sciml.assim.optimal import OptimalInterpolation, ThreeDVar, refitted
from sciml.assim.variational import FourDVar, whitened
from sciml.observations import observations
from sciml.observe import Channel, Operator, Window, level, windows
from tests.models import (
    DT,
    SPACE,
    STEPS,
    H,
    Linear,
    dense,
    ensemble_of,
    kalman,
    linear_windows,
    numbers,
    qg,
    qg_covariance,
)


@pytest.fixture
def step():
    return sm.rk4(Linear(), DT)


def test_square_root_filter_is_the_kalman_filter(step):
    """With a full-rank ensemble and observations inside the window, mean and covariance agree to rounding."""
    start, x, P = ensemble_of(12)
    cut = linear_windows()
    expected, covariance_ = kalman(step, x, P, cut)
    for rotate in (False, True):
        end = numbers(cycle(step, EnKF(square_root, rotate=rotate), cut, start, SPACE.read).final.z)
        torch.testing.assert_close(end.mean(0), expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(torch.cov(end.mT), covariance_, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["square_root", "letkf", "4dvar"])
def test_analysis_departures_are_those_of_the_analysed_trajectory(step, name):
    """The linear model runs back from the analysis at the end of the window through the equivalents that are kept."""
    many, x, P = ensemble_of(12)
    one = sm.State(torch.complex(x, 0 * x)[:, None, None])
    analysis, start = {
        "square_root": (EnKF(square_root), many),
        "letkf": (LETKF(SPACE, radius=1e8), many),
        "4dvar": (FourDVar(Covariance(Linear().grid, torch.linalg.cholesky(P)[..., None, None])), one),
    }[name]
    window = linear_windows(1)[0]
    result = analysis(start, window, step)
    M, G = dense(step, window)
    end = numbers(result.state.z)
    end = end.mean(0) if end.ndim == 2 else end
    torch.testing.assert_close(result.analysis_equivalents, G @ torch.linalg.solve(M, end), atol=1e-8, rtol=1e-8)
    assert (result.analysis_equivalents - window.value).norm() < (window.value - G @ x).norm()


def test_local_filter_with_a_wide_taper_is_the_global_one(step):
    start, *_ = ensemble_of(12)
    cut = linear_windows()
    wide = cycle(step, LETKF(SPACE, 1e6), cut, start, SPACE.read).final.z
    globally = cycle(step, EnKF(square_root), cut, start, SPACE.read).final.z
    torch.testing.assert_close(wide, globally, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("every", [1, 2])
def test_nearest_column_has_the_largest_weight(every):
    grid = Grid(12, 8, Lx=3.0, Ly=2.0, x0=0.1, y0=-0.3)
    places = np.random.default_rng(0).uniform(0, 1, (2, 50)) * [[3.0], [2.0]] + [[0.1], [-0.3]]
    window = SimpleNamespace(obs=xr.Dataset({"x": ("obs", places[0]), "y": ("obs", places[1])}))
    local = LETKF(Space(grid, lambda z: z, lambda z: z), radius=0.4, every=every)
    assert (local.nearest(window) == local.taper(window).argmax(0)).all()  # type: ignore[arg-type]


def test_radius_is_the_length_of_a_gaussian():
    """At a distance of one radius the taper is exp(-1/2), at two exp(-2)."""
    grid = Grid(12, 12, Lx=12.0, Ly=12.0, x0=0.0, y0=0.0)
    window = SimpleNamespace(obs=xr.Dataset({"x": ("obs", [4.0]), "y": ("obs", [4.0])}))
    taper = LETKF(Space(grid, lambda z: z, lambda z: z), radius=2.0).taper(window).reshape(12, 12)  # type: ignore[arg-type]
    assert float(taper[4, 4]) == pytest.approx(1.0)
    assert float(taper[4, 6]) == pytest.approx(np.exp(-0.5), abs=0.04)
    assert float(taper[8, 4]) == pytest.approx(np.exp(-2.0), abs=0.04)


@pytest.mark.parametrize("weights", [perturbed_observations, deterministic])
def test_other_filters_converge_to_the_kalman_filter(step, weights):
    cut = linear_windows(1)
    errors = []
    for size in (100, 2000):
        start, x, P = ensemble_of(size)
        end = numbers(cycle(step, EnKF(weights), cut, start, SPACE.read).final.z)
        expected, P_a = kalman(step, x, P, cut)
        assert (end.mean(0) - expected).norm() < 1e-8 * expected.norm()
        errors.append(float((torch.cov(end.mT) - P_a).norm() / P_a.norm()))
    if weights is perturbed_observations:
        assert errors[1] < 0.06
        assert errors[1] < 0.5 * errors[0]
    else:
        assert errors[1] < 0.25, "half the gain leaves too much spread, of second order in the gain"


def test_finite_size_inflation_grows_with_surprise():
    """The dual function's minimum: nearly no inflation for innovations that the ensemble explains, much for others."""
    generator = torch.Generator().manual_seed(0)
    Y = torch.randn(10, 40, generator=generator, dtype=torch.float64)
    Y = Y - Y.mean(0)
    spread = []
    for size in (1.0, 10.0):
        d = size * (torch.randn(40, generator=generator, dtype=torch.float64) + Y[0])
        W = finite_size()(Y, d, generator)
        T = W - W.mean(1, keepdim=True)
        plain = square_root(Y, d, generator)
        spread.append(float(T.norm() / (plain - plain.mean(1, keepdim=True)).norm()))
    assert 0.9 < spread[0] < 1.3
    assert spread[1] > 1.05 * spread[0]


def test_finite_size_leaves_an_ensemble_alone_where_nothing_is_observed():
    """The mode of its prior is moved to 1 there (Bocquet et al. 2015, eq. 36); it would be 0.92 for 7 members."""
    generator = torch.Generator().manual_seed(0)
    Y = 1e-9 * torch.randn(7, 3, generator=generator, dtype=torch.float64)
    W = finite_size()(Y - Y.mean(0), torch.zeros(3, dtype=torch.float64), generator)
    torch.testing.assert_close(W, torch.eye(7, dtype=torch.float64), atol=1e-3, rtol=0)


def test_anomalies_of_the_deterministic_filter_have_half_the_gain():
    """One directly observed number: the gain is P / (P + 1), and anomalies shrink by 1 - gain / 2."""
    Y = torch.randn(9, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Y = Y - Y.mean(0)
    W = deterministic(Y, torch.zeros(1, dtype=torch.float64), torch.Generator())
    P = float(Y.square().sum() / 8)
    torch.testing.assert_close(W.mT @ Y, (1 - 0.5 * P / (P + 1)) * Y)


def test_finite_size_converges_to_the_kalman_filter(step):
    """Doubt about the covariance of N members falls like 1 / N, and with it the distance of mean and covariance."""
    cut = linear_windows(1)
    errors = []
    for size in (12, 100, 1000):
        start, x, P = ensemble_of(size)
        end = numbers(cycle(step, EnKF(finite_size()), cut, start, SPACE.read).final.z)
        expected, P_a = kalman(step, x, P, cut)
        mean, spread = (end.mean(0) - expected).norm() / expected.norm(), (torch.cov(end.mT) - P_a).norm() / P_a.norm()
        errors.append([float(mean) * size, float(spread) * size])
    small, middle, large = np.array(errors)
    assert small[1] < 2.5
    np.testing.assert_allclose(large, middle, rtol=0.2)
    assert large[0] < 0.3
    assert large[1] < 1.5


def test_rotations_keep_mean_and_covariance():
    generator = torch.Generator().manual_seed(0)
    Q = rotation(7, generator)
    torch.testing.assert_close(Q @ Q.mT, torch.eye(7, dtype=torch.float64))
    torch.testing.assert_close(Q.sum(1), torch.ones(7, dtype=torch.float64))
    z = torch.randn(7, 2, 3, 3, dtype=torch.complex128)
    torch.testing.assert_close(combined(z, Q).mean(0), z.mean(0))


def test_gaspari_cohn():
    r = np.linspace(0, 3, 3001)
    c = gaspari_cohn(r)
    assert c[0] == 1
    assert np.all(c[r >= 2] == 0)
    assert gaspari_cohn(np.array([1.0]))[0] == pytest.approx(5 / 24)
    assert np.all(np.diff(c) <= 1e-12)
    np.testing.assert_allclose(np.exp(-0.5 * (r * np.sqrt(10 / 3)) ** 2), c, atol=0.04)
    assert np.linalg.eigvalsh(gaspari_cohn(abs(np.subtract.outer(r[::50], r[::50])))).min() > -1e-12


def test_weights_are_interpolated_exactly_where_linear():
    grid = Grid(8, 12, Lx=1.0, Ly=1.0)
    coarse = torch.arange(6, dtype=torch.float64)[:, None].expand(6, 4)
    fine = refined(coarse, grid)
    torch.testing.assert_close(fine[:11, 0], torch.arange(11, dtype=torch.float64) / 2)
    torch.testing.assert_close(fine[11, 0], torch.tensor(2.5, dtype=torch.float64))  # on the way back to the first


# -- spread of the local filter --------------------------------------------------------------------------------------
@pytest.mark.parametrize("rtps", [0.0, 0.3, 1.0])
def test_relaxation_to_prior_spread(step, rtps):
    """Spread is (1 - rtps) of the Kalman filter's and rtps of the forecast's; mean and correlations are the former's.
    So 0 changes nothing and 1 restores the prior spread."""
    start, x, P = ensemble_of(12)
    window = linear_windows(1)[0]
    M, _ = dense(step, window)
    mean, P_a = kalman(step, x, P, [window])
    before, after = (C.diagonal().sqrt() for C in (M @ P @ M.mT, P_a))
    assert (after < 0.95 * before).any()
    factor = (1 - rtps) + rtps * before / after
    done = LETKF(SPACE, 1e6, rtps=rtps)(start, window, step)
    torch.testing.assert_close(numbers(done.state.z).mean(0), mean, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(
        torch.cov(numbers(done.state.z).mT), factor[:, None] * P_a * factor, atol=1e-8, rtol=1e-8
    )


def test_full_relaxation_restores_the_prior_spread_of_local_weights(step):
    start, *_ = ensemble_of(12)
    window = linear_windows(1)[0]
    plain, relaxed = (LETKF(SPACE, 1.0, rtps=r)(start, window, step) for r in (0.0, 1.0))
    before, after, restored = (numbers(s.z).std(0) for s in (relaxed.background, plain.state, relaxed.state))
    assert (after < 0.9 * before).any()
    torch.testing.assert_close(restored, before, atol=1e-12, rtol=1e-12)


def test_adaptive_inflation_multiplies_the_forecast_variance(step):
    """With an inflation of 1.5 from cycles before, the analysis is the Kalman filter's with 1.5 P."""
    start, x, P = ensemble_of(12)
    window = linear_windows(1)[0]
    M, G = dense(step, window)
    mean, P_a = kalman(step, x, 1.5 * P, [window])
    done = LETKF(SPACE, 1e6)(start, window, step, Memory(torch.Generator().get_state(), 1.5))
    torch.testing.assert_close(numbers(done.state.z).mean(0), mean, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(torch.cov(numbers(done.state.z).mT), P_a, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(done.analysis_equivalents, G @ torch.linalg.solve(M, mean), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("factor", "start", "end"), [
    (1.5, 1.0, 1.5), (1.2, 1.8, 1.2), (0.7, 1.8, 1.0), (-0.2, 1.8, 1.0), (9.0, 1.0, 2.0),
])  # fmt: skip
def test_adaptive_inflation_moves_towards_what_innovations_say(factor, start, end):
    """Innovations of mean square 1 + factor x spread^2: one cycle goes a fifth of the way, many reach the factor; but
    not less than 1, also where R alone is more than the innovations, and not more than 2."""
    generator = torch.Generator().manual_seed(0)
    Y = torch.randn(10, 40, generator=generator, dtype=torch.float64)
    Y = Y - Y.mean(0)
    d = torch.randn(40, generator=generator, dtype=torch.float64)
    d = d / d.norm() * (len(d) + factor * Y.var(0).sum()).sqrt()
    local = LETKF(SPACE, 1e6, adaptive=0.2)
    values = [start]
    for _ in range(40):
        values.append(local.followed(values[-1], Y, d))
    assert np.all(np.diff(values) * np.sign(end - start) >= 0)
    assert values[-1] == pytest.approx(end, abs=1e-3)
    if 1 < factor < 2:
        assert values[1] == pytest.approx(start + 0.2 * (factor - start))
    assert LETKF(SPACE, 1e6).followed(1.3, Y, d) == 1.3


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_adaptive_inflation_finds_a_spread_that_is_too_small(factor):
    """Forecast errors have ``factor`` times the ensemble's variance: from 1, inflation's mean over the second hundred
    cycles of 40 observations is the factor to 0.06. The model stands still."""
    generator = torch.Generator().manual_seed(0)
    line, eq = Grid(40, 1, Lx=40.0, Ly=1.0, dealias=1.0, x0=0.0, y0=0.0), sm.equation.Lorenz96()
    space = Space(line, lambda z: z[..., 0, 0].real[..., None, None, :], lambda f: eq.init(f[..., 0, 0, :]))
    operator = Operator(line, space.read, (Channel("x", level(1), 1.0),))
    local, step, memory, values = LETKF(space, 2.0, adaptive=0.05), sm.rk4(eq, 1e-9), None, []
    for _ in range(200):
        members = 2 * torch.randn(10, 40, generator=generator, dtype=torch.float64)
        error, noise = torch.randn(2, 40, generator=generator, dtype=torch.float64)
        value = 2 * factor**0.5 * error + noise
        obs = observations(value.numpy(), 1.0, np.full(40, 1e-9), np.arange(40.0), np.zeros(40), channels=["x"])
        state = sm.State(eq.init(members - members.mean(0)))
        done = local(state, Window(obs, operator, 0.0, 1e-9, 1), step, memory)
        memory = done.memory
        values.append(done.info["inflation"])
    assert np.mean(values[100:]) == pytest.approx(factor, abs=0.06)


# -- variational -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["oi", "3dvar"])
def test_single_observation_increment_is_the_gain(method):
    """x_a - x_b = B H^T (H B H^T + R)^-1 d, with B and H as matrices."""
    eq, step, operator = qg()
    B = qg_covariance(eq)
    start = sm.State(eq.init(sm.random_pv(eq, seed=1, speed=0.05)))
    obs = observations(np.array([0.02]), 1e-3, np.array([3600.0]), np.array([1.1e5]), np.array([7e4]), channels=["ssh"])
    window = Window(obs, operator, 0.0, 3600.0, 1)
    tight = dict(tolerance=1e-12, middle=1.0)
    analysis = OptimalInterpolation(B, **tight) if method == "oi" else ThreeDVar(B, 3, 50, **tight)
    done = analysis(start, window, step)
    states, _ = trajectory(step, start, 1)

    def h(v):
        return window.equivalents(torch.zeros_like(states) + B(v))

    zero = torch.zeros(B.shape, dtype=torch.float64)
    row = torch.func.vjp(h, zero)[1](torch.ones(1, dtype=torch.float64))[0]
    d = window.value - window.equivalents(states)
    expected = B(row) * (d / ((row**2).sum() + window.sigma**2))
    found = done.state.z - done.background.z
    assert (found - expected).abs().max() < 1e-8 * expected.abs().max()


def test_covariance_of_runs_of_an_ensemble():
    eq = sm.preset("eddy", nx=16)
    z = eq.init(sm.random_pv(eq, seed=0, members=12)).unflatten(0, (4, 3))
    assert torch.equal(covariance(eq.grid, z).root, covariance(eq.grid, z.flatten(0, 1)).root)


def test_covariance_is_that_of_its_samples(rng):
    eq, _, _ = qg()
    B = qg_covariance(eq)
    drawn = B(torch.randn(4000, *B.shape, generator=rng, dtype=torch.float64))
    again = covariance(eq.grid, drawn)
    want, found = (torch.einsum("ijkl,mjkl->imkl", b.root, b.root) for b in (B, again))
    energetic = want[0, 0] > 1e-3 * want[0, 0].max()
    assert ((found - want)[..., energetic].abs() / want[0, 0][energetic]).max() < 0.12
    assert float(want[0, 1].abs().max()) > 0, "layers are correlated"
    z = B(torch.randn(B.shape, generator=rng, dtype=torch.float64))
    assert (B(whitened(B, z)) - z).abs().max() < 1e-6 * z.abs().max()


# -- cycling ---------------------------------------------------------------------------------------------------------
def test_cycles_refuse_windows_of_another_time(step):
    start, *_ = ensemble_of(6)
    with pytest.raises(ValueError, match=r"window starts at 0\.4 s, the state is at 0 s"):
        cycle(step, EnKF(), linear_windows()[1:], start, SPACE.read)


def test_an_empty_window_is_a_forecast(step):
    start, *_ = ensemble_of(6)
    window = linear_windows(1)[0]
    empty = Window(window.obs.isel(obs=slice(0, 0)), H, 0.0, DT, STEPS)
    for analysis in (EnKF(), LETKF(SPACE, 2.0)):
        done = analysis(start, empty, step)
        torch.testing.assert_close(done.state.z, done.background.z)


def test_a_single_state_is_no_ensemble(step):
    start, *_ = ensemble_of(6)
    with pytest.raises(ValueError, match="at least two members"):
        EnKF()(start._replace(z=start.z[0]), linear_windows(1)[0], step)


def test_tuning_finds_the_best_and_survives_divergence():
    def error(inflation, radius):
        if inflation > 1.5:
            raise sm.BlowUp("diverged")
        return (inflation - 1.1) ** 2 + (radius - 4) ** 2

    best, found = tune(error, {"inflation": (1.0, 1.1, 2.0), "radius": (2, 4)})
    assert best == {"inflation": 1.1, "radius": 4}
    assert found[2.0, 4] == float("inf")


def test_refitted_covariance_is_that_of_cycled_errors():
    eq, step, operator = qg()
    truth = sm.State(eq.init(sm.random_pv(eq, seed=1, speed=0.05)))
    states, _ = trajectory(step, truth, 12)
    first = qg_covariance(eq)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 3e5, (2, 240))
    obs = observations(np.zeros(240), 1e-3, np.sort(rng.uniform(1, 12 * 3600.0, 240)), x, y, channels=["ssh"])
    exact = operator(states, operator.samples(obs, 0.0, 3600.0, 12), 240)
    obs = obs.assign(value=("obs", exact.numpy() + 1e-3 * rng.standard_normal(240)))
    cut = windows(obs, operator, 0.0, 3600.0, 3, 4)
    start = sm.State(torch.zeros_like(truth.z))
    found = refitted(first, step, cut, start, states[3::3], [partial(OptimalInterpolation, tolerance=1e-2)], skip=1)
    run = cycle(step, OptimalInterpolation(first, tolerance=1e-2), cut, start)
    errors = (run.background - states[3::3])[1:]
    want = (eq.grid.weight * errors.abs() ** 2).sum((-2, -1)).mean(0)
    drawn = (found.root**2).sum(1) / (eq.grid.nx * eq.grid.ny)
    torch.testing.assert_close((eq.grid.weight * drawn).sum((-2, -1)), want, rtol=1e-6, atol=0)
    assert float(want[0]) < float((eq.grid.weight * states[-1, 0].abs() ** 2).sum())
