"""4D-Var: gradients, the Kalman smoother, its two ways to overlap, and where it starts."""

from itertools import pairwise

import pytest
import torch

import sciml as sm
from sciml.assim.base import Covariance
from sciml.assim.cycle import cycle
from sciml.assim.minimise import cost, gauss_newton
from sciml.assim.variational import FourDVar
from sciml.observe import Window
from tests.models import SPACE, Linear, N, dense, kalman, linear_windows, numbers, qg, qg_covariance, ssh_window


@pytest.fixture
def step():
    return sm.rk4(Linear(), 0.1)


@pytest.mark.parametrize("model_error", [0.0, 0.3])
def test_four_d_var_gradient_passes_the_taylor_test(model_error, rng):
    """(J(v + h p) - J(v)) / (h grad.p) -> 1 linearly in h, to eight digits."""
    eq, step, operator = qg()
    start = sm.State(eq.init(sm.random_pv(eq, seed=1, speed=0.05)))
    first = ssh_window(operator)
    later = Window(first.obs.assign_coords(time=first.obs["time"] + 3 * 3600.0), operator, 3 * 3600.0, 3600.0, 3)
    B = qg_covariance(eq)
    g = FourDVar(B, lag=2, model_error=model_error).model(step, start, (first, later))
    d = torch.cat([w.value / w.sigma for w in (first, later)])
    v, p = (torch.randn(2, *B.shape, generator=rng, dtype=torch.float64) for _ in range(2))
    v.requires_grad_(True)
    J = cost(g, d, v)
    slope = float((torch.autograd.grad(J, v)[0] * p).sum())
    ratios = []
    with torch.no_grad():
        for h in (1e-2, 1e-3, 1e-4):
            ratios.append(abs(float(cost(g, d, v + h * p) - cost(g, d, v - h * p)) / (2 * h * slope) - 1))
    assert ratios[1] < 0.02 * ratios[0] or ratios[1] < 1e-10
    assert min(ratios) < 1e-8


def test_four_d_var_is_the_kalman_smoother(step):
    """On a linear model strong-constraint 4D-Var of one or several windows ends where the Kalman filter does."""
    root = torch.linalg.cholesky(torch.diag(torch.linspace(0.5, 1.5, N)).double() + 0.2)
    B = Covariance(Linear().grid, root[..., None, None])
    x = torch.ones(N, dtype=torch.float64)
    cut = linear_windows(3)
    expected, _ = kalman(step, x, root @ root.mT, cut)
    start = sm.State(torch.complex(x, 0 * x)[:, None, None])
    run = cycle(step, FourDVar(B, lag=3, outer=1, inner=50), cut, start, SPACE.read)
    torch.testing.assert_close(numbers(run.final.z), expected, atol=2e-3, rtol=2e-3)
    exact = FourDVar(B, lag=3, outer=3, inner=50)
    torch.testing.assert_close(
        numbers(cycle(step, exact, cut, start, SPACE.read).final.z), expected, atol=1e-8, rtol=1e-8
    )


def test_weak_constraint_is_the_kalman_smoother_with_model_error(step):
    """Q = model_error^2 B is added between windows: the end is the Kalman filter's, the start of each window the
    Rauch-Tung-Striebel smoother's."""
    size = 0.3
    root = torch.linalg.cholesky(torch.diag(torch.linspace(0.5, 1.5, N)).double() + 0.2)
    B = Covariance(Linear().grid, root[..., None, None])
    x, P = torch.ones(N, dtype=torch.float64), root @ root.mT
    start = sm.State(complexes(x))
    cut = linear_windows(3)
    forward = []
    for window in cut:
        M, _ = dense(step, window)
        end, P_end = kalman(step, x, P, [window])
        forward.append((x, P, M, end, P_end))
        x, P = end, P_end + size**2 * root @ root.mT
    smooth = [x]
    for i, (_, _, M, end, P_end) in reversed(list(enumerate(forward))):
        if i < len(cut) - 1:
            end = end + P_end @ torch.linalg.solve(forward[i + 1][1], smooth[0] - forward[i + 1][0])
        smooth.insert(0, torch.linalg.solve(M, end))
    # lag = 4: no window has left yet, so the trajectory of all is kept
    run = cycle(
        step, FourDVar(B, lag=4, outer=3, inner=60, model_error=size), cut, start, SPACE.read, each=lambda _, r: r
    )  # fmt: skip
    found = [*run.extra[-1].memory.guesses, run.final.z]
    for mine, expected in zip(found, smooth, strict=True):
        torch.testing.assert_close(numbers(mine), expected, atol=1e-8, rtol=1e-8)
    strong, _ = kalman(step, numbers(start.z), root @ root.mT, cut)
    assert (numbers(run.final.z) - strong).norm() > 1e-2 * strong.norm(), "model error matters here"


def test_gauss_newton_never_makes_the_cost_larger():
    g = lambda v: torch.atan(30 * v)  # noqa: E731
    d = torch.tensor([1.4, -1.5], dtype=torch.float64)
    v, costs = gauss_newton(g, d, torch.full((2,), 3.0, dtype=torch.float64), 10, 5)
    assert all(b <= a for a, b in pairwise(costs))
    assert float(cost(g, d, v)) == pytest.approx(costs[-1])


def test_the_newest_window_counts_once_on_the_trajectory_of_the_others(step):
    """x_0 + B G^T (G B G^T + R)^-1 (y - G x_0) at each cycle, with G from the start of the interval to the new
    observations, and x_0 moved by a window once the interval is full."""
    P = torch.diag(torch.linspace(0.5, 1.5, N)).double() + 0.2
    B = Covariance(Linear().grid, torch.linalg.cholesky(P)[..., None, None])
    x = torch.ones(N, dtype=torch.float64)
    cut = linear_windows(4)
    run = cycle(
        step, FourDVar(B, lag=2, outer=3, inner=50, newest=True), cut, sm.State(complexes(x)), SPACE.read
    )  # fmt: skip
    for i, new in enumerate(cut):
        M, G = dense(step, new)
        if i > 0:
            before, _ = dense(step, cut[i - 1])
            G, M = G @ before, M @ before
        if i > 1:
            x = dense(step, cut[i - 2])[0] @ x
        S = G @ P @ G.mT + torch.diag(new.sigma**2)
        x = x + P @ G.mT @ torch.linalg.solve(S, new.value - G @ x)
        torch.testing.assert_close(numbers(run.analysis[i]), M @ x, atol=1e-8, rtol=1e-8)


def complexes(x):
    return torch.complex(x, 0 * x)[:, None, None]


def test_only_strong_constraint_assimilates_the_newest_window_alone(step):
    B = Covariance(Linear().grid, torch.eye(N, dtype=torch.float64)[..., None, None])
    with pytest.raises(ValueError, match="newest is for strong constraint: leave model_error at 0"):
        FourDVar(B, 2, model_error=0.1, newest=True)
    with pytest.raises(ValueError, match="with model_error lag must be at least 2"):
        FourDVar(B, 1, model_error=0.1)


def test_the_search_starts_where_the_cost_is_less(step):
    """A trajectory that the covariance does not allow is left for the background."""
    root = torch.linalg.cholesky(torch.diag(torch.linspace(0.5, 1.5, N)).double() + 0.2)
    four = FourDVar(Covariance(Linear().grid, root[..., None, None]), 2, outer=1, inner=2)
    start = sm.State(complexes(torch.ones(N, dtype=torch.float64)))
    first, second = linear_windows(2)
    one = four(start, first, step)
    wild = one.memory._replace(guesses=(start.z + 1e6,))
    plain = one.memory._replace(guesses=(start.z,))
    found, expected, warm = (four(one.state, second, step, past) for past in (wild, plain, one.memory))
    torch.testing.assert_close(found.state.z, expected.state.z)
    assert warm.info["cost_before"] < 0.9 * expected.info["cost_before"], "the trajectory of the cycle before is used"


@pytest.mark.parametrize("make", [
    lambda B: sm.OptimalInterpolation(B, tolerance=1e-9),
    lambda B: sm.ThreeDVar(B, tolerance=1e-9),
    lambda B: FourDVar(B, 2, 1, 40),
    lambda B: FourDVar(B, 2, 1, 40, model_error=0.3),
    lambda B: FourDVar(B, 2, 1, 40, newest=True),
], ids=["oi", "3dvar", "4dvar", "4dvar-weak", "4dvar-newest"])  # fmt: skip
def test_each_state_of_a_batch_gets_the_analysis_that_it_gets_alone(make):
    """No observation is shared between members, as one increment for all of them would do."""
    eq, step, operator = qg()
    B = qg_covariance(eq).scaled(2.0)
    first = ssh_window(operator)
    later = Window(first.obs.assign_coords(time=first.obs["time"] + 3 * 3600.0), operator, 3 * 3600.0, 3600.0, 3)
    many = eq.init(sm.random_pv(eq, seed=1, members=2, speed=0.05))
    read = lambda z: eq.grid.ifft(eq.psi(z))  # noqa: E731
    found = cycle(step, make(B), [first, later], sm.State(many), read)
    alone = [cycle(step, make(B), [first, later], sm.State(z), read) for z in many]
    expected = torch.stack([one.final.z for one in alone])
    assert (found.final.z - expected).abs().max() < 2e-3 * (expected - many).abs().max()
    means = [torch.stack([one.departures[-1][i] for one in alone]).mean(0) for i in range(2)]
    for mine, mean in zip(found.departures[-1], means, strict=False):
        assert (mine - mean).abs().max() < 1e-2 * later.sigma.min()
    assert found.spread is not None
    torch.testing.assert_close(found.spread[-1], read(found.final.z).std(0))


def test_steps_of_a_batch_are_halved_one_by_one():
    """Newton's full step of atan goes too far from 3, not from 0.02: neither may hold the other back."""
    g = lambda v: torch.atan(30 * v)  # noqa: E731
    d = torch.tensor([1.4, -1.5], dtype=torch.float64)
    starts = torch.tensor([[3.0, 3.0], [0.02, -0.02]], dtype=torch.float64)
    found, costs = gauss_newton(g, d, starts, 10, 5, batch=1)
    alone = [gauss_newton(g, d, start, 10, 5) for start in starts]
    torch.testing.assert_close(found, torch.stack([v for v, _ in alone]))
    assert all(b <= a for a, b in pairwise(costs))
    assert costs[-1] == pytest.approx(sum(c[-1] for _, c in alone) / 2)
