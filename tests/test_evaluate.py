"""Scores of assimilation runs, on records whose errors are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from sciml import evaluate
from sciml.assim.base import Analysed
from sciml.assim.cycle import Departures, Record
from sciml.grid import Grid
from sciml.observations import codes
from sciml.step import State

GRID = Grid(15, 15, 1.0, 1.0, dealias=1)
CYCLES, SKIP = 200, 20


def read(z):
    return GRID.ifft(z)


def noise(rng, *leading, size=1.0):
    """Coefficients of fields of independent normal numbers."""
    return GRID.fft(size * torch.randn(*leading, 15, 15, generator=rng, dtype=torch.float64))


def record(truth, analysis, background, spread=None, departures=()):
    return Record(torch.arange(len(truth)), background, analysis, spread, list(departures), None, [], [])  # type: ignore[arg-type]


@pytest.fixture
def run(rng):
    """Truth, climatology of standard deviations 2 and 4, a record with errors 0.2, 1.2 and spread of the same size."""
    layers = torch.tensor([2.0, 4.0], dtype=torch.float64)[:, None, None]
    climate, truth = (noise(rng, n, 2) * layers for n in (50, CYCLES))
    error = noise(rng, CYCLES, 2) * torch.tensor([0.2, 1.2], dtype=torch.float64)[:, None, None]
    spread = torch.tensor([0.2, 0.6], dtype=torch.float64)[:, None, None].expand(CYCLES, 2, 15, 15)
    return truth, climate, record(truth, truth + error, truth + 2 * error, spread)


def test_skill_is_the_error_over_the_climatological_standard_deviation(run):
    truth, climate, found = run
    out = evaluate.skill(read, found, truth, climate, SKIP, found.spread)
    assert out["analysis"] == pytest.approx([0.1, 0.3], rel=0.02)
    assert out["background"] == pytest.approx([0.2, 0.6], rel=0.02)
    assert out["spread"] == pytest.approx([0.1, 0.15], rel=0.02)
    assert out["spread_over_error"] == pytest.approx([1.0, 0.5], rel=0.02)
    reliable = 0.1 / math.sqrt(math.pi)  # E CRPS of N(0, s^2) where the error is that, s / sqrt(pi)
    assert out["crps_gaussian"][0] == pytest.approx(reliable, rel=0.02)
    overconfident = math.sqrt(2 * (0.3**2 + 0.15**2) / math.pi) - 0.15 / math.sqrt(math.pi)
    assert out["crps_gaussian"][1] == pytest.approx(overconfident, rel=0.02)
    expected = [1 / math.sqrt(1 + r**2) for r in (0.1, 0.3)]
    assert out["analysis_correlation"] == pytest.approx(expected, abs=2e-3)
    for value, (low, high) in zip(out["analysis"], out["analysis_interval"], strict=True):
        assert low < value < high < low * 1.1
    assert "spread" not in evaluate.skill(read, found, truth, climate, SKIP)


def test_cycles_before_the_first_scored_do_not_count(run):
    truth, climate, found = run
    spoiled = found._replace(analysis=torch.cat([1e3 * found.analysis[:SKIP], found.analysis[SKIP:]]))
    assert evaluate.skill(read, spoiled, truth, climate, SKIP) == evaluate.skill(read, found, truth, climate, SKIP) | {
        k: v for k, v in evaluate.skill(read, found, truth, climate, SKIP).items() if k.startswith("background")
    }
    assert evaluate.skill(read, spoiled, truth, climate, 0)["analysis"][0] > 1


def test_forecast_errors_grow_as_the_model_says(run):
    """A model that multiplies by 1.1 and a truth that does so, too: relative to climatology the error is 1.1^steps."""
    start, climate, _ = run
    truth = start[:1] * 1.1 ** (3.0 * torch.arange(8, dtype=torch.float64))[:, None, None, None]
    analysis = truth + 0.1 * climate[:1]
    errors = evaluate.forecasts(
        lambda s: State(1.1 * s.z), read, record(truth, analysis, analysis), truth, climate, 2, 3, 4  # type: ignore[arg-type]
    )  # fmt: skip
    assert np.shape(errors) == (5, 2)
    assert np.asarray(errors) == pytest.approx(np.outer(1.1 ** (3 * np.arange(5)), [0.1, 0.1]), rel=0.1)
    assert np.asarray(errors)[1:] / errors[0] == pytest.approx(np.outer(1.1 ** (3 * np.arange(1, 5)), [1, 1]), rel=1e-9)
    with pytest.raises(ValueError, match="forecasts of 6 windows need more than 8 cycles, got 8"):
        evaluate.forecasts(None, read, record(truth, analysis, analysis), truth, climate, 2, 3, 6)  # type: ignore[arg-type]


def test_scores_of_an_ensemble(rng):
    truth, climate = noise(rng, 3, 2), 2 * noise(rng, 50, 2)
    each = evaluate.ensemble_scores(read, truth, climate)
    members = noise(rng, 40, 2)
    analysed = Analysed(State(members), State(members), torch.zeros(40, 0))
    out = each(1, analysed)
    assert out is not None
    assert out["crps"] == pytest.approx([1 / math.sqrt(math.pi) / 2] * 2, rel=0.15), "E|X - y| - E|X - X'| / 2"
    assert np.shape(out["ranks"]) == (2, 41)
    assert np.sum(out["ranks"]) == 2 * 16
    assert each(0, Analysed(State(members[0]), State(members[0]), torch.zeros(0))) is None


def test_consistency_finds_the_error_of_each_channel(rng):
    """Optimal analyses of scalars: background variance 4, observation variances 1 (stated right) and 9 (stated 1)."""
    n, stated = 4000, torch.ones(8000, dtype=torch.float64)
    actual = torch.cat([torch.ones(n), 3 * torch.ones(n)]).double()
    background, noise_ = 2 * torch.randn(2 * n, generator=rng).double(), actual * torch.randn(2 * n, generator=rng)
    omb = noise_ - background
    oma = omb * actual**2 / (actual**2 + 4)
    channel = ("obs", np.repeat([1, 0], n), codes(["swath", "ssh"]))
    window = SimpleNamespace(obs=xr.Dataset({"channel": channel}), sigma=stated)
    found = record(torch.zeros(2), None, None, departures=[None, Departures(omb, oma, 2 * stated)])
    out = evaluate.consistency([window, window], found, 1)  # type: ignore[list-item]
    assert out["ssh"] == pytest.approx({"observation": 1.0, "innovation": 5.0, "expected": 5.0}, rel=0.1)
    assert out["swath"] == pytest.approx({"observation": 9.0, "innovation": 13.0, "expected": 5.0}, rel=0.1)
    assert evaluate.innovation_rms([window, window], found, 1) == pytest.approx(3.0, rel=0.03)  # type: ignore[list-item]
    assert math.isnan(evaluate.innovation_rms([], found, 2))
