"""The experiment with one changed observation, against gains that are known."""

from importlib import import_module

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.assim.base import covariance, trajectory
from sciml.assim.response import agreement, changed, ensemble_column, near, response, shape, static_column
from sciml.observations import observations
from sciml.observe import level
from tests import ROOT


@pytest.fixture(scope="module")
def setting():
    """A model over two short steps, the covariance of its climatology and four observations of its upper layer."""
    eq = sm.TwoLayerQG.preset("eddy", 16)
    step, grid = sm.rk4(eq, 60.0), eq.grid
    z = eq.init(sm.random_pv(eq, seed=0, members=40, speed=0.02))

    def psi(z):
        return grid.ifft(eq.psi(z))

    H = sm.Operator(grid, psi, (sm.Channel("upper", level(1), 30.0),))
    x = np.array([0.2, 0.25, 0.6, 0.8]) * grid.Lx
    obs = observations(np.zeros(4), 30.0, np.arange(1, 5) * 30.0, x, x, channels=["upper"], platforms=["a"])
    window = sm.windows(obs, H, 0.0, step.dt, 2, 1)[0]
    return eq, step, psi, z, covariance(grid, z - z.mean(0)), window


def test_only_that_observation_is_changed(setting):
    window = setting[-1]
    other = changed(window, 2, 1.5)
    assert torch.equal(other.value - window.value, torch.tensor([0.0, 0.0, 45.0, 0.0], dtype=torch.float64))
    assert not window.value.any()


def test_response_of_optimal_interpolation_is_its_gain(setting):
    """``B H^T (H B H^T + R)^{-1} e_i sigma_i`` from columns of B, for all observations together."""
    eq, step, psi, z, B, window = setting
    analysis = sm.OptimalInterpolation(B, middle=1.0, tolerance=1e-10)
    states, _ = trajectory(step, sm.State(z[0]), window.steps)
    columns = torch.stack([static_column(B, psi, states, window, i) for i in range(4)])
    v = [window.equivalents(states + eq.pv(c)) - window.equivalents(states) for c in columns]
    S = torch.stack(v) / window.sigma + torch.eye(4, dtype=torch.float64)
    expected = torch.einsum("i,i...->...", torch.linalg.inv(S)[1], columns)
    found = response(analysis, psi, sm.State(z[0]), window, step, None, 1, amount=2.0)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    where = torch.ones(16, 16, dtype=torch.bool)
    assert agreement(found, columns[1], where) > 0.5


def test_ensemble_column_is_the_sample_covariance(setting):
    _, _, psi, z, _, window = setting
    seen = psi(z)[:, 0, 3, 5]
    found = ensemble_column(psi, z, seen, window.sigma[0])
    for place in ((0, 3, 5), (1, 8, 2)):
        expected = np.cov(psi(z)[(slice(None), *place)].numpy(), seen.numpy())[0, 1] / 30.0
        assert found[place].item() == pytest.approx(expected)
    assert found[0, 3, 5] > 0


def test_shape_of_a_moved_bump_across_the_edge_of_the_box():
    grid = sm.Grid(64, 64, 1e6, 1e6)
    x, y, r = 0.98e6, 0.03e6, 40e3
    dx, dy = ((c - p - s + 5e5) % 1e6 - 5e5 for c, p, s in ((grid.x, x, 50e3), (grid.y, y, -20e3)))
    bump = torch.exp(-(dx**2 + dy**2) / (2 * r**2))
    assert bump.shape == (64, 64)
    found = shape(torch.stack([-2 * bump, bump]), grid, x, y)
    assert (found["east"], found["north"]) == (pytest.approx(50e3, abs=1e3), pytest.approx(-20e3, abs=1e3))
    assert found["radius"] == pytest.approx((r**2 + 50e3**2 + 20e3**2) ** 0.5, rel=0.02)
    assert found["sign"] == -1
    assert found["projection"] == pytest.approx(-0.5)


def test_agreement():
    a = torch.randn(2, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = torch.randn(2, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    where = torch.ones(32, 32, dtype=torch.bool)
    assert agreement(3 * a, a, where) == pytest.approx(1)
    assert agreement(-a, a, where) == pytest.approx(-1)
    assert abs(agreement(a, b, where)) < 0.1
    part = near(sm.Grid(32, 32, 1e6, 1e6), 9e5, 1e5)
    assert float(part.double().mean()) == pytest.approx(np.pi / 16, abs=0.01)
    assert part[0, 0]
    assert not part[16, 16]
    assert agreement(torch.where(part, a, b), a, part) == pytest.approx(1)


def test_displacements_are_told_by_the_time_of_the_observation(monkeypatch):
    """Errors of the gain are those of windows, in which several observations share a flow."""
    monkeypatch.syspath_prepend(str(ROOT / "cases"))
    cases = import_module("qg_fuxi_da")
    found = []
    for window in range(4):
        for part, east in ((0.1, 9e3), (0.5, 5e3), (0.9, 1e3)):
            shape_of = {"sign": 1.0, "radius": 4e4, "projection": 0.1, "east": east, "north": -east}
            own = dict.fromkeys(("network", "ensemble B", "static B"), shape_of)
            gain = 0.1 * (window % 2)
            agreement_of = {"network": 0.4 + gain, "static B": 0.4}
            found.append({"window": window, "part of the window": part, "shape": own, "agreement": agreement_of})
    row = cases.summarised(found)["network"]
    assert (row["east, early (km)"], row["east, late (km)"]) == pytest.approx((9.0, 1.0))
    assert (row["north, early (km)"], row["north, late (km)"]) == pytest.approx((-9.0, -1.0))
    assert row["over static B"] == pytest.approx(0.05)
    assert row["+-"] == pytest.approx(0.05 / 3**0.5), "of four windows, not of twelve observations"
