"""Scores of emulators, the linear inverse model, and truths that a coarse grid sees."""

import math

import numpy as np
import pytest
import torch

import sciml as sm
from sciml import emulation, snapshots, spectra
from sciml.emulation import LinearInverse, Seen, crossing, forecast
from sciml.rollout import rollout
from sciml.step import State

DAY = 86400.0


@pytest.fixture(scope="module")
def eq():
    return sm.TwoLayerQG.preset("eddy", nx=16)


@pytest.fixture(scope="module")
def run(eq):
    """A run of 30 days, each day ``(times, 2, 16, 16)``."""
    step = sm.ab3(eq, dt=7200)
    return sm.rollout(step, 12 * 30, 12)(sm.random_pv(eq, seed=1)).fields


# -- when a curve falls below a level --------------------------------------------------------------------------------
@pytest.mark.parametrize(("values", "day"), [
    ([1.0, 0.9, 0.7, 0.9], 1.5), ([1.0, 0.9, 0.85, 0.81], math.inf), ([0.7, 0.9, 0.9, 0.9], 0.0),
    ([1.0, 0.9, math.nan, math.nan], 1.0),
])  # fmt: skip
def test_crossing(values, day):
    assert crossing([0.0, 1.0, 2.0, 3.0], np.array(values), 0.8) == pytest.approx(day)


# -- skill -----------------------------------------------------------------------------------------------------------
def test_the_model_that_made_the_truth_is_perfect(eq, run):
    truth = torch.stack([run[:5], run[10:15]])
    found = emulation.skill(sm.rk4(eq, 7200.0), truth, 12)
    assert found.lead.tolist() == [i * DAY for i in range(5)]
    assert found.correlation.min() > 0.9999
    assert found.nrmse.max() < 0.01
    assert found.days_to(0.8, 0) == math.inf


def test_persistence_is_the_first_state(run):
    truth = run[None, :4]
    found = emulation.persistence(truth, DAY)
    own = [np.corrcoef(truth[0, 0, 1].ravel(), t[1].ravel())[0, 1] for t in truth[0]]
    np.testing.assert_allclose(found.correlation[:, 1], own, rtol=1e-12)
    np.testing.assert_allclose(found.nrmse[0], 0)


def test_a_forecast_that_blows_up_is_no_number_afterwards(run):
    class Growing:
        dt = 1.0

        def init(self, fields):
            return State(fields)

        def __call__(self, state):
            return State(state.z * 1e160, state.time + 1)

        def read(self, state):
            return state.z

    found = emulation.forecast(Growing(), run[:2] * 1e5, 4, 1)
    assert torch.isfinite(found[:2]).all()
    assert torch.isnan(found[-1]).all()


def test_a_finer_model_is_seen_with_fewer_points():
    """From the same large waves, and only they are compared: nearer to the truth than the coarse model."""

    def model(nx):
        return sm.ab3(sm.preset("eddy", nx=nx), 14400.0)

    truth, coarse = model(48), sm.preset("eddy", nx=16).grid
    q = rollout(truth, 400, 400)(sm.random_pv(truth.equation, seed=0)).fields[-1]
    seen = Seen(model(32), coarse)
    start = truth.equation.grid.resample(q, coarse)
    after = truth.equation.grid.resample(rollout(truth, 60, 60)(q).fields[-1], coarse)
    torch.testing.assert_close(seen.read(seen.init(start)), start)
    error = [(forecast(s, start[None], 60, 60)[-1, 0] - after).norm() for s in (seen, model(16))]
    assert seen.dt == 14400.0
    assert error[0] < 0.7 * error[1]


# -- the linear inverse model ----------------------------------------------------------------------------------------
def test_waves_are_forecast_exactly(eq):
    """A linear model's own operator is found again where its modes are excited."""
    linear = sm.TwoLayerQG.preset("eddy", nx=16)
    step = sm.etdrk4(linear, DAY)
    states = [step.init(1e-12 * sm.random_pv(linear, seed=s, speed=1e-9)) for s in range(8)]
    runs = []
    for state in states:
        kept = [step.read(state)]
        for _ in range(6):
            state = step(state)
            kept.append(step.read(state))
        runs.append(torch.stack(kept))
    runs = torch.stack(runs)
    inverse = LinearInverse.of(linear, runs[:-1], 1, DAY)
    state = inverse.init(runs[-1, 0])
    for i in range(1, 4):
        state = inverse(state)
        error = (inverse.read(state) - runs[-1, i]).norm() / runs[-1, i].norm()
        assert error < 1e-3
    assert state.time == 3 * DAY


def test_noise_has_no_linear_forecast(eq):
    noise = torch.randn(2, 400, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inverse = LinearInverse.of(eq, noise, 1, DAY)
    z = inverse(inverse.init(noise[0, 0])).z
    assert z.abs().square().sum() < 0.05 * inverse.init(noise[0, 0]).z.abs().square().sum()


# -- climate ---------------------------------------------------------------------------------------------------------
def test_climate_agrees_with_the_diagnostics(eq, run):
    found = emulation.climate(eq, run)
    expected = [spectra.diagnostics(eq, eq.init(q)) for q in run]
    energy = torch.stack([d["EKE"] for d in expected]).mean(0)
    np.testing.assert_allclose(found.energy, energy.numpy(), rtol=1e-10)
    np.testing.assert_allclose(found.spectrum.sum(-1) * found.k[1], found.energy, rtol=1e-10)
    spectrum = torch.stack([d["KEspec"] for d in expected]).mean(0)
    np.testing.assert_allclose(found.spectrum, spectrum.numpy(), rtol=1e-8, atol=1e-20)
    np.testing.assert_allclose(found.enstrophies[3], 0.5 * run[3].square().mean((-2, -1)).numpy())
    assert found.variance.shape == (2, 16, 16)


def test_worst_ratio_sees_what_is_below_two_thirds_of_the_cutoff(eq, run):
    true = emulation.climate(eq, run)
    changed = true.spectrum.copy()
    changed[1, 3] *= 1.5
    changed[:, 6:] *= 9
    np.testing.assert_allclose(emulation.worst_ratio(true._replace(spectrum=changed), true), [0, 0.5], atol=1e-12)


# -- truths ----------------------------------------------------------------------------------------------------------
def test_a_coarse_grid_sees_the_fine_run_once_a_day(tmp_path):
    (first,) = snapshots.runs(tmp_path, [3], "eddy", 16, 32, 2)
    assert first["q"].dims == ("time", "lev", "y", "x")
    assert first["q"].shape == (3, 2, 16, 16)
    assert first["time"].values.tolist() == [0.0, DAY, 2 * DAY]
    assert (first["q"].attrs["units"], first.attrs["fine"]) == ("s-1", 32)
    assert float(first["q"].std()) > 1e-7
    first.close()
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    (again,) = snapshots.runs(tmp_path, [3], "eddy", 16, 32, 2)
    assert path.stat().st_mtime_ns == written
    again.close()


def test_the_same_seed_makes_the_same_truth():
    one, two, other = (snapshots.seen("eddy", 16, 16, 1, s, years=0.1)["q"].values for s in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_refused_truths():
    with pytest.raises(ValueError, match="16 <= nx <= fine"):
        snapshots.seen("eddy", 32, 16, 1, 0)
