"""The assimilation case: its files and refusals; the test bed and its sample data."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from sciml import testbed
from sciml.assim.base import trajectory
from sciml.data import write_netcdf
from sciml.observations import counts, names
from sciml.step import State
from tests import ROOT
from tests.case_fixtures import refused

CASE = "qg_assimilate"
SHORT = "--method oi --days 5 --members 4".split()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--days", "4000"], r"--days must be from 5 to 400"),
    (["--members", "1"], r"--members must be at least 2"),
    (["--members", "1000", "--method", "letkf"], r"the climatology has 96 snapshots"),
    (["--observations", "nowhere.nc"], r"no observations at nowhere.nc; make it with"),
    (["--leave-out", "nobody"], r"no platform 'nobody'; there are altimeter_1"),
    (["--method", "letkf", "--radius", "-1"], r"radius must be positive"),
    (["--days", "inf"], r"--days must be from 5 to 400"),
    (["--skip-days", "-20"], r"--skip-days must be at least 0"),
    (["--skip-days", "20"], r"--skip-days must be less than the 5 days there are, got 20"),
    (["--inflation", "0"], r"--inflation must be at least 0.1, got 0"),
    (["--model-error", "nan"], r"--model-error must be at least 0, got nan"),
    (["--truth", "data/qg_satellite_climatology.nc"], r"is no truth: it needs q \(time, lev, y, x\)"),
])  # fmt: skip
def test_requests_that_cannot_be_met(call, tmp_path, arguments, message):
    refused(call(*SHORT, "--out", tmp_path / "o", *arguments, case=CASE), message)


def test_damaged_observations_are_refused(call, tmp_path):
    whole = (ROOT / "data" / "qg_satellite.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 3])
    refused(call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "cut.nc", case=CASE), "cut.nc")
    with xr.open_dataset(ROOT / "data" / "qg_satellite.nc", decode_times=False) as ds:
        nameless = ds.load()
    del nameless.attrs["channels"]
    write_netcdf(nameless, tmp_path / "nameless.nc")
    ended = call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "nameless.nc", case=CASE)
    refused(ended, "do not say what their channels measure")


@pytest.mark.parametrize(("change", "message"), [
    (lambda ds: ds.assign(qc=0 * ds["qc"] + 7), "none of the observations may be used; flags: {'edited': "),
    (lambda ds: ds.isel(obs=slice(0, 0)).assign_attrs(windows=10), "none of the obs.*none at all"),
    (lambda ds: ds.assign(channel=ds["channel"] - 1), "numbers of channel must be 0 to 4"),
    (lambda ds: ds.assign_coords(time=ds["time"].assign_attrs(units="days since 2000-01-01")), "time must be in s"),
    (lambda ds: ds.assign(channel=ds["channel"].assign_attrs(channel_units=["cm"] * 5)), "is observed in cm"),
    (lambda ds: ds.drop_vars("time"), "no times in seconds"),
    (lambda ds: ds.assign_attrs(channels="{"), "no list of channels"),
    (lambda ds: ds.assign_attrs(channels='[{"name": "ssh"}]'), "needs name, kind, sigma and units"),
    (lambda ds: ds.assign_attrs(windows="many"), "cover no window of 5 days"),
])  # fmt: skip
def test_files_that_mean_nothing_are_refused_before_anything_is_written(change, message, call, tmp_path):
    with xr.open_dataset(ROOT / "data" / "qg_satellite.nc", decode_times=False) as ds:
        write_netcdf(change(ds.load()), tmp_path / "bad.nc")
    refused(call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "bad.nc", case=CASE), message)
    assert not list((tmp_path / "o").glob("*"))


def test_unusable_observations_are_counted_and_not_used(call, tmp_path):
    with xr.open_dataset(ROOT / "data" / "qg_satellite.nc", decode_times=False) as ds:
        ds = ds.load()
    ds["value"][:7] = np.nan
    ds["sigma"][7:10] = -1.0
    ds["x"][10:12] = 9e9
    ds["value"][12:16] = 9.96921e36
    write_netcdf(ds, tmp_path / "bad.nc")
    ended = call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "bad.nc", case=CASE)
    assert ended.status == 0
    flags = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]["flags"]
    assert (flags["missing"], flags["bad_sigma"], flags["outside_domain"], flags["gross_error"]) == (7, 3, 2, 4)
    with xr.open_dataset(tmp_path / "o" / "departures.nc", decode_times=False) as departures:
        assert departures.sizes["obs"] == flags["good"]
        assert np.isfinite(departures["omb"].values).all()
        assert np.isfinite(departures["oma"].values).all()


def test_analysis_beats_climatology_within_thirty_days(call, tmp_path):
    results = {}
    for method in ("climatology", "letkf"):
        line = f"--method {method} --days 30 --skip-days 20 --members 24".split()
        ended = call(*line, "--out", tmp_path / method, case=CASE)
        assert ended.status == 0
        results[method] = json.loads((tmp_path / method / "summary.json").read_text())["results"]
    one, both = results["climatology"]["psi"]["analysis"], results["letkf"]["psi"]["analysis"]
    assert 0.7 < one[0] < 1.4, "errors of the climatology are about its standard deviation"
    assert both[0] < 0.75 * one[0]
    assert both[1] < 0.9 * one[1]
    low, high = results["letkf"]["psi"]["analysis_interval"][0]
    assert low <= both[0] <= high
    with xr.open_dataset(tmp_path / "letkf" / "analysis.nc", decode_times=False) as ds:
        assert {"psi_analysis", "psi_background", "q_analysis", "psi_spread"} <= set(ds)
    forecast = np.asarray(results["letkf"]["forecast"]["psi"])
    assert forecast[0] == pytest.approx(both, rel=0.3), "lead 0 is the analysis, of fewer windows"
    assert forecast[-1, 0] > forecast[0, 0], "errors grow"
    assert all(c < e for c, e in zip(results["letkf"]["crps"], both, strict=True))
    with xr.open_dataset(tmp_path / "letkf" / "departures.nc", decode_times=False) as ds:
        late = ds.isel(obs=ds["time"].values > 20 * testbed.DAY)
        omb, oma = (np.sqrt(np.mean((late[n] / late["sigma"]) ** 2)) for n in ("omb", "oma"))
    assert oma < 0.9 * omb, "analyses are nearer to the observations than backgrounds"


# -- the data set ----------------------------------------------------------------------------------------------------
def test_sample_observations_fit_their_truth():
    """Innovations of the truth itself, at window ends only, have the stated error: channel by channel."""
    with xr.open_dataset(ROOT / "data" / "qg_satellite.nc", decode_times=False) as obs:
        obs = obs.load()
    with xr.open_dataset(ROOT / "data" / "qg_satellite_truth.nc", decode_times=False) as truth:
        q = torch.as_tensor(truth["q"].values[40]).double()
        start = float(truth["time"][40])
    eq = testbed.model()
    step = testbed.stepper(eq)
    states, _ = trajectory(step, State(eq.init(q), start), 4 * testbed.WINDOW)
    H = testbed.operator_of(obs, eq)
    inside = obs.isel(obs=np.flatnonzero((obs["time"] > start) & (obs["time"] <= start + 4 * testbed.WINDOW * step.dt)))
    exact = H(states, H.samples(inside, start, step.dt, 4 * testbed.WINDOW), inside.sizes["obs"]).numpy()
    standard = (inside["value"].values - exact) / inside["sigma"].values
    for code, name in enumerate(names(obs, "channel")):
        own = standard[inside["channel"].values == code]
        assert 0.8 < np.sqrt(np.mean(own**2)) < 1.25, name
    assert counts(obs) == {"good": obs.sizes["obs"]}
    assert set(names(obs, "platform")) == {"altimeter_1", "altimeter_2", "altimeter_3", "swath", "radiometer"}


def test_models_differ_as_described():
    perfect, imperfect = testbed.model(), testbed.model("imperfect")
    assert float(perfect.rek) == pytest.approx(2 * float(imperfect.rek))
    assert imperfect.rd > perfect.rd
    assert float(testbed.topography(perfect.grid).std()) == pytest.approx(testbed.ROUGHNESS)
    z = perfect.init(torch.zeros(2, 64, 64, dtype=torch.float64) + 1e-6 * torch.randn(64, 64, dtype=torch.float64))
    a, b = perfect.tendency(z), imperfect.tendency(z)
    assert (a - b).norm() > 0.01 * a.norm()
    with pytest.raises(ValueError, match="'perfect' or 'imperfect'"):
        testbed.model("good")


def test_states_of_another_model_have_the_same_flow():
    perfect, imperfect = testbed.model(), testbed.model("imperfect")
    q = perfect.read(perfect.init(1e-6 * torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0)).double()))
    z = testbed.states(imperfect, q)
    flow, expected = imperfect.grid.ifft(imperfect.psi(z)), perfect.grid.ifft(perfect.psi(perfect.init(q)))
    assert torch.allclose(flow, expected, atol=1e-9 * float(expected.abs().max()))
    assert (imperfect.read(z) - q).norm() > 0.01 * q.norm(), "the potential vorticity of that flow is another one"
    assert torch.equal(testbed.states(perfect, q), perfect.init(q))


def test_channels_of_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="unknown kind 'lidar'; there are ssh"):
        testbed.channel(testbed.model().grid, dict(name="a", kind="lidar", sigma=1.0, units="1"))
