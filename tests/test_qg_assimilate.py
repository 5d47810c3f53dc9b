"""The assimilation case: its files and refusals; the test bed and its sample data."""

import json
import re

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
SHORT = "--method oi --days 5".split()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--days", "4000"], r"--days must be from 5 to 400"),
    (["--members", "1"], r"--members must be from 2"),
    (["--members", "1000", "--method", "letkf"], r"the climatology has 96 snapshots"),
    (["--observations", "nowhere.nc"], r"no observations at nowhere.nc; make it with"),
    (["--leave-out", "nobody"], r"no platform 'nobody'; there are altimeter_1"),
    (["--method", "letkf", "--radius", "-1"], r"--radius must be above 0"),
    (["--days", "inf"], r"--days must be above 0, got inf"),
    (["--skip-days", "-20"], r"--skip-days must be at least 0"),
    (["--skip-days", "20"], r"--skip-days must be less than the 5 days there are, got 20"),
    (["--adaptive", "0.1"], r"--adaptive goes with --method letkf"),
    (["--inflation", "0"], r"--inflation must be from 0.1 .*, got 0"),
    (["--model-error", "nan"], r"--model-error must be from 0 .*, got nan"),
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
    write_netcdf(xr.Dataset(), tmp_path / "grouped.nc")
    nameless.to_netcdf(tmp_path / "grouped.nc", mode="a", group="good")
    ended = call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "grouped.nc", case=CASE)
    refused(ended, r"grouped.nc has all its variables in groups \(good\)")


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
        used = departures["qc"].values == 0
        assert used.sum() == flags["good"]
        assert (~used).sum() == 7 + 3 + 2 + 4, "those that may not be used are written with their flag"
        for name in ("omb", "oma"):
            assert np.array_equal(np.isfinite(departures[name].values), used)


@pytest.mark.parametrize(("channel", "change", "message"), [
    (0, {"f0": 0.0}, "needs f0 that is not zero"),
    (0, {"f0": "x"}, "'ssh' of kind ssh is not defined right"),
    (0, {"sigma": "x"}, "'ssh' of kind ssh is not defined right"),
    (0, {"name": 5}, "must be text, got 5"),
    (0, {"footprint": "wide"}, "'ssh' of kind ssh is not defined right"),
    (0, {"footprint": float("inf")}, "footprint must be finite"),
    (0, {"kind": ["ssh"]}, r"must be text, got 'ssh', \['ssh'\]"),
    (2, {"scale": 0.0}, "a scale that is not zero"),
    (2, {"weights": [1.0]}, "weights for 1 layers, the fields have 2"),
])  # fmt: skip
def test_channels_that_cannot_be_seen_are_refused(channel, change, message, call, tmp_path):
    with xr.open_dataset(ROOT / "data" / "qg_satellite.nc", decode_times=False) as ds:
        ds = ds.load()
    definitions = json.loads(ds.attrs["channels"])
    definitions[channel] |= change
    write_netcdf(ds.assign_attrs(channels=json.dumps(definitions)), tmp_path / "bad.nc")
    refused(call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "bad.nc", case=CASE), message)


@pytest.mark.parametrize(("lev", "message"), [(0, "counted from 1 at the top, got 0"), (5, "'tb' cannot be seen")])
def test_layers_that_are_not_there_cannot_be_seen(lev, message):
    eq = testbed.model()
    for kind in ("level", "u"):
        with pytest.raises(ValueError, match=message):
            testbed.operator(eq, [{"name": "tb", "kind": kind, "sigma": 1.0, "units": "1", "lev": lev}])


@pytest.mark.parametrize(("change", "message"), [
    (lambda ds: ds.isel(time=slice(None, None, -1)), "time must go from 0 to 432000 in 2 steps"),
    (lambda ds: ds.assign_coords(time=ds["time"] + 43200), "time must go from 0"),
    (lambda ds: ds.isel(y=slice(None, None, -1)), "y must go from"),
    (lambda ds: ds.assign(q=ds["q"].isel(y=slice(None, None, -1)).drop_vars("y")), "no better than the climatological"),
    (lambda ds: ds.assign(q=("time lev y x".split(), ds["q"].values[40:])), "ends before|no better|conflicting"),
    (lambda ds: ds.assign(q=ds["q"] * 1e6), "no better than the climatological mean"),
    (lambda ds: ds.assign(q=ds["q"] * np.nan), "must be finite numbers"),
    (lambda ds: ds.assign(q=ds["q"].astype(str)), "must be finite numbers|is no truth"),
])  # fmt: skip
def test_another_truth_is_refused(change, message, call, tmp_path):
    with xr.open_dataset(ROOT / "data" / "qg_satellite_truth.nc", decode_times=False) as ds:
        ds = ds.load()
    try:
        changed = change(ds)
    except ValueError:  # of other times: cut by hand
        changed = ds.isel(time=slice(40, None)).assign_coords(time=ds["time"][:41].values)
    write_netcdf(changed, tmp_path / "truth.nc")
    refused(call(*SHORT, "--out", tmp_path / "o", "--truth", tmp_path / "truth.nc", case=CASE), message)


@pytest.mark.parametrize(("change", "message"), [
    (lambda ds: ds.isel(sample=slice(0, 1)), r"must hold q \(sample, 2, 64, 64\), two at least"),
    (lambda ds: ds.assign(background_root=ds["background_root"].isel(k=slice(0, 9)).rename(k="c")),
     r"must hold background_root \(2, 2, 33, 64\)"),
    (lambda ds: ds.assign(q=ds["q"] * np.inf), "must hold q .*, finite"),
    (lambda ds: ds.drop_vars("analysis_root"), "must hold analysis_root"),
])  # fmt: skip
def test_another_climatology_is_refused(change, message, call, tmp_path):
    with xr.open_dataset(ROOT / "data" / "qg_satellite_climatology.nc", decode_times=False) as ds:
        write_netcdf(change(ds.load()), tmp_path / "climatology.nc")
    refused(call(*SHORT, "--out", tmp_path / "o", "--climatology", tmp_path / "climatology.nc", case=CASE), message)


def test_blunders_of_a_plausible_size_are_flagged(call, tmp_path):
    """A height of 25 cm, where the sea stands up to 8 from its mean; a bias of all of them is no flow of this ocean."""
    with xr.open_dataset(ROOT / "data" / "qg_satellite.nc", decode_times=False) as ds:
        ds = ds.load()
    height = names(ds, "channel").index("ssh")
    own = np.flatnonzero(ds["channel"].values == height)
    ds["value"][own[:30]] = 0.25
    write_netcdf(ds, tmp_path / "bad.nc")
    ended = call(*SHORT, "--out", tmp_path / "o", "--observations", tmp_path / "bad.nc", case=CASE)
    assert ended.status == 0
    assert "'gross_error': 30" in ended.out


def test_a_filter_that_fails_ends_with_one_line(call, tmp_path):
    ended = call(
        *"--method hybrid --days 20 --hybrid-members 4 --inflation 8".split(), "--out", tmp_path / "o", case=CASE
    )
    assert ended.status == 2
    assert re.fullmatch(r"error: .* the filter diverged; try other inflation.*\n", ended.err)


def test_an_earlier_run_is_set_aside(call, tmp_path):
    for method in ("letkf", "oi"):
        line = f"--method {method} --days 5".split()
        line += ["--truth", "None"] if method == "oi" else ["--members", "4"]
        assert call(*line, "--out", tmp_path / "o", case=CASE).status == 0
    assert {"maps.png", "summary.json"} <= {p.name for p in (tmp_path / "o" / "earlier-1").iterdir()}
    assert not (tmp_path / "o" / "maps.png").exists(), "the picture of another method"


def test_analysis_beats_climatology_within_thirty_days(call, tmp_path):
    results = {}
    for method in ("climatology", "letkf"):
        line = f"--method {method} --days 30 --skip-days 20".split() + ["--members", "24"] * (method == "letkf")
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


@pytest.mark.slow
def test_the_ladder_does_not_depend_on_the_processes(call, tmp_path):
    found = []
    for workers in (1, 2):
        line = f"--method all --days 5 --members 4 --hybrid-members 4 --workers {workers}".split()
        assert call(*line, "--out", tmp_path / str(workers), case=CASE).status == 0
        found.append(json.loads((tmp_path / str(workers) / "summary.json").read_text())["results"]["ladder"])
    assert list(found[0]) == list(found[1])
    assert {"oi", "letkf", "4dvar", "hybrid"} <= found[0].keys()
    assert all(r["psi"]["analysis"] == found[1][m]["psi"]["analysis"] for m, r in found[0].items())
