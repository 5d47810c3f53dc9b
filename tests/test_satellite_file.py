"""The case that looks at any satellite file: what it counts, where it draws, what it refuses."""

import json

import numpy as np
import pytest
import xarray as xr

from sciml.charts import around
from sciml.observations import observations
from tests.case_fixtures import refused
from tests.test_readers import AMSR2, DUACS, JASON, real, track_file

CASE = "satellite_file"


def test_synthetic_swath(finished):
    out, printed = finished(CASE)
    found = json.loads((out / "summary.json").read_text())["results"]
    with xr.open_dataset(out / "synthetic_swath.nc", decode_cf=False) as ds:
        land, level = ds["l2p_flags"].values & 2 > 0, ds["quality_level"].values
    assert found["flags"] == {"good": int((level >= 4).sum()), "land": int(land.sum()),
                              "edited": int(((level < 4) & ~land).sum())}  # fmt: skip
    with xr.open_dataset(out / "observations.nc") as obs:
        assert obs.sizes["obs"] == level.size == found["written"]
    assert "36000 observations of none_synthetic" in printed


def test_superobservations_in_a_box(call, tmp_path):
    arguments = ["--superob", "0.5", "--box", "-3", "3", "-40", "-35", "--out", tmp_path]
    assert call(*arguments, case=CASE).status == 0
    with xr.open_dataset(tmp_path / "observations.nc") as obs:
        lon = (obs["lon"].values + 180) % 360 - 180
        assert np.abs(lon).max() <= 3
        assert obs["lat"].min() >= -40
        assert obs["lat"].max() <= -35
        flags = json.loads((tmp_path / "summary.json").read_text())["results"]["flags"]
        assert obs.sizes["obs"] < 14 * 11 < obs["count"].values.sum() == flags["good"]
        cells = np.stack([np.floor(obs["lon"].values / 0.5), np.floor(obs["lat"].values / 0.5)])
        assert np.unique(cells, axis=1).shape[1] == obs.sizes["obs"], "one in each cell"


@real
@pytest.mark.parametrize(("name", "arguments", "channels"), [
    (JASON, ["--reader", "jason_gdr"], 4), (AMSR2, [], 1), (DUACS, ["--reader", "duacs_l4"], 1),
])  # fmt: skip
def test_real_files(call, tmp_path, name, arguments, channels):
    ended = call(*arguments, "--file", name, "--out", tmp_path, case=CASE)
    assert (ended.status, ended.err) == (0, "")
    found = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert len(found["channels"]) == channels
    assert found["flags"]["good"] > 1000
    assert found["flags"]["land"] > 1000


def test_maps_begin_after_the_widest_gap():
    obs = observations([1.0, 2.0, 3.0], 1.0, np.arange(3.0), lon=[350.0, 355.0, 4.0], lat=[0.0, 1.0, 2.0])
    lon, _, box = around(obs)
    assert lon.tolist() == [-10.0, -5.0, 4.0]
    assert box[0] < -10
    assert box[1] > 4
    everywhere = observations(np.zeros(36), 1.0, np.arange(36.0), lon=np.arange(0, 360, 10.0), lat=np.zeros(36))
    assert around(everywhere)[0].min() == 0.0


@pytest.mark.parametrize(("arguments", "message"), [
    (["--reader", "cf"], "--reader cf needs --variable and --sigma"),
    (["--variable", "sst"], "--reader ghrsst_l2p has channels of its own; leave --variable out"),
    (["--box", "0", "1", "40", "30"], "--box is west, east, south and north edge"),
    (["--box", "170", "175", "30", "40"], "none of the observations may be used"),
    (["--sigma", "-1"], "--sigma must be from 1e-09 to 1e[+]06, got -1"),
    (["--superob", "0"], "--superob must be from 0.001 to 90"),
    (["--file", "nothing.nc"], "there is no file nothing.nc"),
])  # fmt: skip
def test_refusals(call, tmp_path, arguments, message):
    refused(call(*arguments, "--out", tmp_path / "out", case=CASE), message)


def test_a_file_of_another_kind_is_refused(call, tmp_path):
    path = track_file(tmp_path / "a.nc")
    refused(call("--file", path, "--out", tmp_path / "out", case=CASE), "this is no GHRSST L2P file: it lacks")
    refused(call("--file", path, path, "--out", tmp_path / "out", case=CASE), "the same file is given twice")
    assert not (tmp_path / "out").exists()
