"""The case of the Lorenz tables, and filters by themselves: short runs that must already meet them, files, refusals."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr

import sciml as sm
from sciml import Grid
from sciml.assim.base import Space, trajectory
from sciml.assim.cycle import cycle
from sciml.assim.ensemble import EnKF, square_root
from sciml.assim.local import LETKF
from sciml.observations import observations
from sciml.observe import Channel, Operator, level, windows
from tests.case_fixtures import refused

CASE = "lorenz96"


@pytest.fixture
def case():
    return import_module(CASE)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--only", "particle"], r"--only 'particle' fits no row; there are Lorenz 96: climatology"),
    (["--cycles", "3"], "--cycles must be from 10"),
    (["--seeds", "-1"], "--seeds must be from 1"),
])  # fmt: skip
def test_requests_that_cannot_be_met(call, tmp_path, arguments, message):
    refused(call("--out", tmp_path / "o", *arguments, case=CASE), message)


def test_rows_are_met_in_short_runs(call, tmp_path):
    line = f"--cycles 120 --preset quick --out {tmp_path / 'o'} --only".split()
    assert call(*line, "square root, 28", case=CASE).status == 0
    found = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]["rows"]
    (row,) = found.values()
    assert row["error"][0] == pytest.approx(0.18, abs=0.04)
    assert row["spread"][0] == pytest.approx(row["error"][0], rel=0.4)
    with xr.open_dataset(tmp_path / "o" / "table.nc") as ds:
        assert ds["error"].dims == ("row", "seed")
        assert float(ds["error"][0, 0]) == row["error"][0]


def test_twins_differ_by_seed_and_their_noise_is_as_stated(case):
    system = case.SYSTEMS["Lorenz 96"]
    one, same, other = (case.twin(system, 300, seed) for seed in (1, 1, 2))
    assert torch.equal(one.truth, same.truth)
    assert not torch.allclose(one.truth, other.truth)
    noise = torch.stack([w.value for w in one.windows]) - one.truth
    assert float(noise.std()) == pytest.approx(1.0, abs=0.03)
    assert float((noise[1:] * noise[:-1]).mean()) == pytest.approx(0.0, abs=0.03)


def test_update_of_the_climatology_has_its_expected_error(case):
    """Linear theory: the error variance is P (P + R)^-1 R, whatever the model."""
    system = case.SYSTEMS["Lorenz 63"]
    states = case.free_run(system, sm.State(case.on_attractor(system, 3, 10)), 100)
    climate = system.eq.read(states).flatten(0, 1)
    P = torch.cov(climate.mT)
    expected = float((P @ torch.linalg.inv(P + 2 * torch.eye(3, dtype=P.dtype)) * 2).trace() / 3) ** 0.5
    row = next(r for r in case.TABLE if r.system == "Lorenz 63" and r.name.startswith("OI"))
    error, _ = case.run_row(row, 0, case.twin(system, 200, 5), climate)
    assert error == pytest.approx(expected, rel=0.1)


def test_a_diverging_filter_is_a_failure_and_not_an_end(case):
    system = case.SYSTEMS["Lorenz 96"]
    row = case.ensemble_row("Lorenz 96", "blown up", 0.2, 3, case.ensemble.square_root, 1e6)
    error, _ = case.run_row(row, 0, case.twin(system, 40, 1), torch.zeros(2, 40, dtype=torch.float64))
    assert np.isnan(error) or error > 3
    assert not case.meets(np.array([error]), 0.2)
    assert case.meets(np.array([0.21, 0.19]), 0.19)
    assert not case.meets(np.array([0.25, 0.19]), 0.19)


def test_four_d_var_is_near_its_reference_in_a_short_run(call, tmp_path):
    line = f"--cycles 80 --preset quick --out {tmp_path / 'o'} --only".split()
    assert call(*line, "lag 1", case=CASE).status == 0
    (row,) = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]["rows"].values()
    assert row["error"][0] == pytest.approx(0.46, abs=0.06)
    assert row["spread"][0] is None, "a single analysis has no spread"


def test_lorenz96_reference_values():
    """DAPPER's table (Sakov & Oke 2008): 0.18 for the square root filter, 0.22 for the LETKF with 7 members."""
    eq = sm.equation.Lorenz96()
    step = sm.rk4(eq, 0.05)
    line = Grid(40, 1, Lx=40.0, Ly=1.0, dealias=1.0, x0=0.0, y0=0.0)
    space = Space(line, lambda z: z[..., 0, 0].real[..., None, None, :], lambda f: eq.init(f[..., 0, 0, :]))
    generator = torch.Generator().manual_seed(1)
    state = step.init(2 + torch.randn(40, generator=generator, dtype=torch.float64))
    _, state = trajectory(step, state, 500)
    n = 500
    states, _ = trajectory(step, state, n)
    truth = space.read(states)[1:, 0, 0]
    noisy = truth + torch.randn(n, 40, generator=generator, dtype=torch.float64)
    operator = Operator(line, space.read, (Channel("x", level(1), 1.0),))
    time = np.repeat(0.05 * np.arange(1, n + 1), 40)
    obs = observations(
        noisy.flatten().numpy(), 1.0, time, np.tile(np.arange(40.0), n), np.zeros(40 * n), channels=["x"]
    )
    cut = windows(obs, operator, 0.0, 0.05, 1, n)
    start = sm.State(state.z + 0.1 * torch.randn(28, 40, 1, 1, generator=generator, dtype=torch.float64))
    for expected, analysis, members in (
        (0.18, EnKF(square_root, 1.02, True), 28),
        (0.24, LETKF(space, 4.0, 1.04, rotate=True), 7),
    ):
        run = cycle(step, analysis, cut, start._replace(z=start.z[:members]), space.read)
        error = (space.read(run.analysis)[:, 0, 0] - truth).pow(2).mean(-1).sqrt()[100:].mean()
        assert float(error) == pytest.approx(expected, abs=0.03)
        assert run.spread is not None
        assert float(run.spread[100:].pow(2).mean().sqrt()) == pytest.approx(float(error), rel=0.3)
